"""Every prior with every guide and every driver that the rooms export: it runs, or it is refused before any work."""

import math

import pytest
import torch

from pyroformer import Spec, fit, load
from pyroformer.choices import KINDS, SpecError
from pyroformer.evaluation import FEWEST_DRAWS
from pyroformer.guides import Guide
from pyroformer.inference import MCMC, OnePassELBO, StochasticGradientMCMC
from pyroformer.inference.density.row_coordinates import refusal_of
from pyroformer.priors import RowPrior
from pyroformer.priors.settings import parameters

# settings that drivers share, by name, so that a driver that is added later is quick here as well
QUICK = {
    "epochs": 1,
    "num_samples": 4,
    "warmup_steps": 1,
    "max_tree_depth": 1,
    "max_steps": 1,
    "chains": 2,
    "steps_per_draw": 1,
    "size": 2,
    "validation_samples": 1,
    "member": {"ml": {"epochs": 1}},
}
LEAST = {"mclmc": {"adjusted": False, "max_steps": 1000}, "swag": {"epochs": 2, "start": {"ml": {"epochs": 1}}}}
TASK = {"toy_regression": {"train": 8, "test": 4}}
NET = {"transformer": {"width": 4, "heads": 2, "depth": 1}}


def priors():
    for name, cls in KINDS["prior"].classes().items():
        yield name, name
        if issubclass(cls, RowPrior):
            yield f"{name} and normal", {"*.rows": name, "*": "normal"}
            yield f"{name} and learned", {"*.rows": name, "*": "learned"}


PRIORS = dict(priors())
GUIDES = {"none": None} | {name: name for name in KINDS["guide"].classes()}
DRIVERS = {
    name: {name: {key: value for key, value in {**QUICK, **LEAST.get(name, {})}.items() if key in parameters(cls)}}
    for name, cls in KINDS["driver"].classes().items()
}


CHAINS = {name for name, cls in KINDS["driver"].classes().items() if issubclass(cls, MCMC | StochasticGradientMCMC)}
"""They share everything but the kernel, or the step: one of each runs with every prior, the others with a few."""
EXACT = {name for name in CHAINS if issubclass(KINDS["driver"].classes()[name], MCMC)}
FEW = ("normal", "hierarchical")


@pytest.fixture(autouse=True)
def no_more_than_is_needed(monkeypatch):
    """Few draws tell something of importance: 50 on the 8 examples. Attention is looked at elsewhere."""
    monkeypatch.setattr("pyroformer.evaluation.MOST_PASSES", 8 * FEWEST_DRAWS)
    monkeypatch.setattr("pyroformer.run.has_attention", lambda posterior: False)


def runs(prior, guide, driver, folder):
    """Whether a combination is accepted; what is accepted has to run, and what is refused to leave nothing."""
    try:
        run = fit(Spec(task=TASK, model=NET, prior=prior, guide=guide, driver=driver), out=folder)
    except SpecError as error:
        assert error.path.partition(".")[0] in ("prior", "guide", "driver"), error
        assert not folder.exists()
        return False
    assert math.isfinite(run.metrics["test"]["nll"])
    assert (folder / "metrics.json").is_file()
    return True


def is_accepted(prior, guide, driver, folder):
    """Whether a combination is accepted, without running it."""
    try:
        spec = Spec(task=TASK, model=NET, prior=prior, guide=guide, driver=driver)
        data = spec.task.load()
        spec.build_guide(spec.build_model(data), data)
    except SpecError as error:
        assert error.path.partition(".")[0] in ("prior", "guide", "driver"), error
        return False
    return True


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("prior", PRIORS)
def test_runs_or_is_refused(prior, driver, tmp_path, monkeypatch):
    if prior not in FEW:  # importance asks a guide for its density: the prior is a number to it
        monkeypatch.setattr("pyroformer.run.k_hat", lambda *given, **settings: {})
    accept = is_accepted if driver in CHAINS - {"nuts", "sgld"} and prior not in FEW else runs
    accepted = {guide for guide in GUIDES if accept(PRIORS[prior], GUIDES[guide], DRIVERS[driver], tmp_path / guide)}
    # no guide means the right guide: it is refused only where every guide is
    assert "none" in accepted or not accepted
    cls = KINDS["prior"].classes()[prior.partition(" ")[0]]
    if prior == "normal":
        assert accepted
    if issubclass(cls, RowPrior):
        sampled = driver in EXACT and prior.endswith(" and normal") and refusal_of(cls()) is None
        assert bool(accepted) == (sampled or (driver == "svi" and " and " in prior))
    if driver != "svi":
        assert accepted <= {"none"}


LAWS = {name: cls for name, cls in KINDS["prior"].classes().items() if issubclass(cls, RowPrior)}
CENTERS = KINDS["center"].classes()
ROW_FAMILIES = {name: cls for name, cls in KINDS["guide"].classes().items() if cls.local}


@pytest.fixture(scope="module")
def toy():
    return Spec(task=TASK).task.load()


@pytest.mark.parametrize("center", CENTERS)
@pytest.mark.parametrize("law", LAWS)
def test_laws_centers_and_families_of_rows(law, center, toy):
    """What fits has a bound and gradients, with all weights under a posterior too; what does not is refused."""
    prior = {"*.rows": {law: {"center": center, "kl_normalization": "entries"}}, "*": "normal"}
    if CENTERS[center].level and not LAWS[law].sees_level:
        with pytest.raises(SpecError, match=f"{law}.center: got {center}; accepted: another center"):
            Spec(task=TASK, model=NET, prior=prior)
        return
    for name, family in ROW_FAMILIES.items():
        spec = Spec(task=TASK, model=NET, prior=prior, guide={"*.rows": name, "*": "mean_field"})
        model = spec.build_model(toy)
        if family.space != LAWS[law].space:
            with pytest.raises(SpecError, match=f"guide: got {name}; accepted: .*_rows for blocks.0.attention.rows"):
                spec.build_guide(model, toy)
            continue
        guide = Guide(model, spec.build_guide(model, toy), toy.data.example())
        loss = OnePassELBO(num_particles=2).differentiable_loss(model, guide, toy.data.x, toy.data.y)
        parameters = [*guide.parameters(), *model.learned.values()]
        slopes = torch.autograd.grad(loss, parameters)
        assert loss.isfinite() and all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize("family", ROW_FAMILIES)
def test_rows_are_trained_saved_and_predicted_with(family, tmp_path):
    law = "gamma_rows" if ROW_FAMILIES[family].space == "positive" else "dirichlet_rows"
    prior = {"*.rows": {law: {"center": "contextual", "kl_weight": 0.1}}, "*": "normal"}
    guide = {"*.rows": family, "*": "mean_field"}
    for setting in ({"particles": 2, "row_kl_warmup": 0.5}, {"estimator": "flipout", "dtype": "float64"}):
        driver = {"svi": {**DRIVERS["svi"]["svi"], **setting}}
        assert runs(prior, guide, driver, tmp_path / "-".join(setting))


def test_an_ensemble_of_posteriors(tmp_path):
    member = {"svi": {"epochs": 1, "validation_samples": 1}}
    driver = {"deep_ensemble": {"size": 2, "member": member}}
    for guide in ("none", "mean_field", "delta"):
        assert runs("normal", GUIDES[guide], driver, tmp_path / guide)
    assert runs({"*.rows": "dirichlet_rows", "*": "learned"}, {"*.rows": "dirichlet_rows"}, driver, tmp_path / "rows")
    assert not runs("normal", "dirichlet_rows", driver, tmp_path / "refused")


def test_what_layers_share_is_saved_once_and_read_again(tmp_path):
    center = {"learned": {"shared": "global"}}
    spec = Spec(
        task=TASK,
        model={"transformer": {"width": 4, "heads": 2, "depth": 2}},
        prior={"*.rows": {"gamma_rows": {"center": center, "kl_weight": 0.1}}, "*": "learned"},
        driver={"svi": {"epochs": 2, "validation_samples": 1}},
    )
    run = fit(spec, out=tmp_path / "run")
    learned = {n: p for n, p in load(tmp_path / "run").posterior.model.learned.items() if "row_prior" in n}
    assert len(learned) == 1
    for name, value in learned.items():
        assert torch.equal(value, run.posterior.model.learned[name]) and not torch.allclose(
            value.exp(), torch.tensor(0.1)
        )
    again = load(tmp_path / "run").posterior.model.net.blocks
    assert again[0].attention.row_prior.center.log_weight is again[1].attention.row_prior.center.log_weight
