"""The specification: names, defaults, resolving and what it was resolved from."""

import inspect
import re

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyroformer
from pyroformer import Spec, Task, fit, yamlfile
from pyroformer.choices import KINDS, SpecError
from pyroformer.guides import Guide, MeanField
from pyroformer.inference import ML, SVI, DeepEnsemble
from pyroformer.models import BayesianModel, Gaussian
from pyroformer.priors import DirichletRows as PriorRows
from pyroformer.priors import Learned, Normal, Prior, RowPrior
from pyroformer.priors.settings import parameters
from pyroformer.tasks import Digits, ToyRegression

EVERY = [(kind, name, cls) for kind in KINDS.values() for name, cls in kind.classes().items()]


@pytest.mark.parametrize(("kind", "name", "cls"), EVERY, ids=[f"{k.name}-{n}" for k, n, _ in EVERY])
def test_names_are_the_snake_case_of_classes_that_their_room_exports(kind, name, cls):
    assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
    suffix = getattr(cls, "choice_suffix", "").lower()
    assert name.replace("_", "") + suffix == cls.__name__.lower()
    assert cls.__name__ in kind.room.__all__
    assert not inspect.isabstract(cls)


@pytest.mark.parametrize(("kind", "name", "cls"), EVERY, ids=[f"{k.name}-{n}" for k, n, _ in EVERY])
def test_every_choice_has_a_sentence_and_defaults_for_all_settings(kind, name, cls):
    assert inspect.getdoc(cls).partition("\n")[0].endswith((".", "`.", "following"))
    assert all(parameter.default is not parameter.empty for parameter in parameters(cls).values())


def test_known_names():
    found = {kind: set(KINDS[kind].classes()) for kind in KINDS}
    assert found["task"] >= {"arrays", "digits", "toy_regression"}
    assert found["model"] >= {"transformer"}
    assert found["prior"] >= {"normal", "improper", "fixed", "learned", "dirichlet_rows", "gamma_rows"}
    assert found["prior"] >= {"log_normal_rows", "logistic_normal_rows", "gumbel_softmax_rows", "hierarchical"}
    assert found["center"] == {"flat", "matched_uniform", "learned", "positional", "contextual", "softmax"}
    assert found["prior"] >= {"laplace", "student_t", "cauchy", "generalized_normal", "uniform"}
    assert found["prior"] >= {"mixture", "scale_mixture"}
    assert found["hyperprior"] == {"half_cauchy", "gamma", "precision_gamma", "uniform_scale"}
    assert found["guide"] >= {"delta", "mean_field", "dirichlet_rows"}
    assert found["driver"] >= {"svi", "ml", "map", "deep_ensemble", "nuts"}


def chosen(kind, name, cls):
    """The parts of a spec with one choice by its name alone, in a place where it is accepted."""
    parts = {"task": "toy_regression"}
    if kind.name == "likelihood":
        return {"task": {"toy_regression": {"likelihood": name}}}
    if kind.name == "hyperprior":
        return parts | {"prior": {"hierarchical": {"hyperprior": name}}}
    if kind.name == "center":
        return parts | {"prior": {"*.rows": {"dirichlet_rows": {"center": name}}, "*": "normal"}}
    if kind.name == "bound":
        return parts | {"driver": {"svi": {"bound": name, "particles": 2}}}
    if kind.name == "schedule":
        return parts | {"driver": {"sgld": {"schedule": name}}}
    if isinstance(cls, type) and issubclass(cls, RowPrior):
        return parts | {"prior": {"*.rows": name, "*": "normal"}}
    return parts | {kind.name: name}


@pytest.mark.parametrize(("kind", "name", "cls"), EVERY, ids=[f"{k.name}-{n}" for k, n, _ in EVERY])
def test_a_resolved_spec_says_every_setting_and_resolves_to_itself(kind, name, cls):
    spec = Spec(**chosen(kind, name, cls))
    text = spec.to_yaml()
    again = Spec(**yamlfile.parse(text))
    assert again.to_yaml() == text
    assert again.to_dict() == spec.to_dict() == yamlfile.parse(text)
    place = spec.to_dict()
    if kind.name == "hyperprior":
        place = place["prior"]["hierarchical"]["hyperprior"]
    elif kind.name == "center":
        place = place["prior"]["*.rows"]["dirichlet_rows"]["center"]
    elif kind.name == "bound":
        place = place["driver"]["svi"]["bound"]
    elif kind.name == "schedule":
        place = place["driver"]["sgld"]["schedule"]
    else:
        place = place["task"]["toy_regression"]["likelihood"] if kind.name == "likelihood" else place[kind.name]
    settings = place["*.rows"][name] if "*.rows" in place else place[name]
    assert set(settings) == set(parameters(cls))


def test_settings_other_than_the_defaults_are_kept_too():
    parts = {
        "task": {"toy_regression": {"train": 7, "likelihood": {"gaussian": {"noise": "learned", "scale": 0.3}}}},
        "model": {"transformer": {"width": 4, "heads": 1, "pool": "first", "causal": True, "patch": None}},
        "prior": {
            "*.rows": {"dirichlet_rows": {"kl_weight": 0.0}},
            "head.*": "learned",
            "*": {"normal": {"scale": 0.1}},
        },
        "guide": {"*.rows": {"dirichlet_rows": {"shared": "layer"}}, "*": {"mean_field": {"init_scale": 0.05}}},
        "driver": {"deep_ensemble": {"size": 2, "member": {"svi": {"epochs": 3, "clip_norm": 1.5}}}},
        "seed": 11,
    }
    spec = Spec(**parts)
    found = spec.to_dict()
    assert Spec(**yamlfile.parse(spec.to_yaml())).to_dict() == found
    assert found["seed"] == 11
    assert list(found["prior"]) == ["*.rows", "head.*", "*"]
    assert found["task"]["toy_regression"]["likelihood"]["gaussian"] == {"noise": "learned", "scale": 0.3}
    assert found["driver"]["deep_ensemble"]["member"]["svi"]["clip_norm"] == 1.5


def test_defaults():
    found = Spec(task="digits").to_dict()
    names = {key: next(iter(found[key])) for key in ("task", "model", "prior", "driver")}
    assert names == {"task": "digits", "model": "transformer", "prior": "normal", "driver": "svi"}
    assert found["seed"] == 0
    assert "guide" not in found  # made for the model: mean field for weights, Dirichlet for rows


def test_objects_stand_where_data_may_stand():
    objects = Spec(
        task=ToyRegression(train=7, likelihood=Gaussian(noise="learned")),
        prior={"head.*": Learned(), "*.rows": PriorRows(), "*": Normal(scale=0.5)},
        guide={"*": MeanField(init_scale=0.1), "*.rows": "dirichlet_rows"},
        driver=DeepEnsemble(member=SVI(epochs=2), size=2),
    )
    data = Spec(
        task={"toy_regression": {"train": 7, "likelihood": {"gaussian": {"noise": "learned"}}}},
        prior={"head.*": "learned", "*.rows": "dirichlet_rows", "*": {"normal": {"scale": 0.5}}},
        guide={"*": {"mean_field": {"init_scale": 0.1}}, "*.rows": "dirichlet_rows"},
        driver={"deep_ensemble": {"member": {"svi": {"epochs": 2}}, "size": 2}},
    )
    assert objects.to_yaml() == data.to_yaml()


def test_a_spec_of_another_seed_is_a_copy(toy):
    spec = Spec(**toy)
    assert spec.model_copy(update={"seed": 3}).to_dict() == Spec(**toy, seed=3).to_dict()
    with pytest.raises(Exception, match="frozen"):
        spec.seed = 3


def test_the_net_starts_from_the_seed_and_leaves_the_global_one_alone(toy):
    data = ToyRegression(train=20, test=10).load()
    before = torch.get_rng_state()
    one, again, other = (Spec(**toy, seed=seed).build_model(data).initial_values() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


class Laplace(Prior):
    """A prior that the package does not have."""

    def __init__(self, *, scale: float = 1.0):
        self.scale = scale

    def distribution(self, site):
        return dist.Laplace(site.loc, torch.full_like(site.value, self.scale)).to_event(site.value.dim())


def wide(name, parameter):
    """A prior as a function."""
    return dist.Normal(torch.zeros_like(parameter), 10.0).to_event(parameter.dim())


@pytest.mark.parametrize("prior", [Laplace(scale=0.3), wide, {"head.*": wide, "*": Laplace()}])
def test_a_prior_of_ones_own(toy, prior, tmp_path):
    run = fit(Spec(**{**toy, "prior": prior}), out=tmp_path / "run")
    assert run.metrics["test"]["rmse"] > 0
    assert "prior" in (tmp_path / "run" / "spec.yaml").read_text()


class Line(nn.Module):
    """A net that the package did not write."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(1, 1)

    def forward(self, x):
        return self.map(x)


@pytest.mark.parametrize("driver", [ML(epochs=2), SVI(epochs=2), DeepEnsemble(size=2, member=ML(epochs=1))])
def test_a_net_of_ones_own(driver, tmp_path):
    net = Line()
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    run = fit(Spec(task=ToyRegression(train=20, test=10), model=net, driver=driver), out=tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())
    x = torch.linspace(-2, 2, 5).unsqueeze(1)
    with pytest.raises(SpecError, match="a net of the class") as error:
        pyroformer.load(tmp_path / "run")
    assert error.value.path == "net"
    again = pyroformer.load(tmp_path / "run", net=Line())
    torch.testing.assert_close(again.posterior.predict(x).mean, run.posterior.predict(x).mean, rtol=0, atol=0)


def test_a_guide_that_has_a_model_already_is_for_drivers_not_for_specs(toy):
    data = ToyRegression(train=20, test=10).load()
    guide = Guide(BayesianModel(Line(), Normal(), data.likelihood), MeanField(), (data.train.x[:2],))
    with pytest.raises(SpecError, match="a guide among concrete_dropout, delta") as error:
        Spec(**{**toy, "guide": guide})
    assert "\n" not in str(error.value)


def test_from_python_too_a_mistake_is_a_spec_error():
    with pytest.raises(SpecError) as error:
        Spec(task=Digits(), prior={"normal": {"scale": "big"}})
    assert (error.value.path, error.value.value) == ("prior.normal.scale", "big")
    with pytest.raises(SpecError, match="a task among"):
        Spec()
    with pytest.raises(SpecError, match="did you mean driver"):
        Spec(task="digits", drivers="ml")
    with pytest.raises(SpecError, match="a driver among"):
        Spec(task="digits", driver=SVI)


def test_a_task_is_a_task():
    assert issubclass(Digits, Task)
    assert pyroformer.Task is Task
