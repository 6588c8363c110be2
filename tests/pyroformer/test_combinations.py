"""Every prior with every guide and every driver that the rooms export: it runs, or it is refused before any work."""

import math

import pytest

from pyroformer import Spec, fit
from pyroformer.choices import KINDS, SpecError
from pyroformer.priors import RowPrior
from pyroformer.priors.settings import parameters

# settings that drivers share, by name, so that a driver that is added later is quick here as well
QUICK = {
    "epochs": 1,
    "num_samples": 4,
    "warmup_steps": 1,
    "max_tree_depth": 1,
    "size": 2,
    "validation_samples": 1,
    "member": {"ml": {"epochs": 1}},
}
LEAST = {"swag": {"epochs": 2, "start": {"ml": {"epochs": 1}}}}
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


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("prior", PRIORS)
def test_runs_or_is_refused(prior, driver, tmp_path):
    accepted = {guide for guide in GUIDES if runs(PRIORS[prior], GUIDES[guide], DRIVERS[driver], tmp_path / guide)}
    # no guide means the right guide: it is refused only where every guide is
    assert "none" in accepted or not accepted
    cls = KINDS["prior"].classes()[prior.partition(" ")[0]]
    if prior == "normal":
        assert accepted
    if issubclass(cls, RowPrior):
        assert bool(accepted) == (driver == "svi" and " and " in prior)
    if driver != "svi":
        assert accepted <= {"none"}


def test_an_ensemble_of_posteriors(tmp_path):
    member = {"svi": {"epochs": 1, "validation_samples": 1}}
    driver = {"deep_ensemble": {"size": 2, "member": member}}
    for guide in ("none", "mean_field", "delta"):
        assert runs("normal", GUIDES[guide], driver, tmp_path / guide)
    assert runs({"*.rows": "flat_rows", "*": "learned"}, {"*.rows": "dirichlet_rows"}, driver, tmp_path / "rows")
    assert not runs("normal", "dirichlet_rows", driver, tmp_path / "refused")
