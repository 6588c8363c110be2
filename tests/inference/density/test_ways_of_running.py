"""One density, written down, run, batched and compiled: the same numbers; and what is said where that cannot be."""

import os
import shutil
import threading

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyroformer.inference.density import FlatDensity
from pyroformer.inference.density import flat_density as flat_density_file
from pyroformer.inference.density.cleaning import cleaned
from pyroformer.inference.density.tracing import NotTraceable, traced
from pyroformer.models import BayesianModel, Image, Output, Transformer
from pyroformer.priors import DirichletRows, Normal, SettingError, compiling

NEEDS_COMPILER = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")


def small(dtype=torch.float64, prior=None):
    torch.manual_seed(0)
    net = Transformer(Image(4, 4), Output(3), width=4, heads=2, depth=1)
    x, y = torch.rand(5, 4, 4), torch.tensor([0, 2, 1, 1, 0])
    return BayesianModel(net, prior or Normal(scale=0.3)).to(dtype), (x.to(dtype), y)


def regression(x, y):
    weight = pyro.sample("weight", dist.Normal(torch.zeros(3).to(x), 1.0).to_event(1))
    scale = pyro.sample("scale", dist.Gamma(torch.tensor(2.0).to(x), 1.0))
    with pyro.plate("data", len(x)):
        pyro.sample("y", dist.Normal(x @ weight, scale), obs=y)


def data(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    return x.to(dtype), x.sum(-1).to(dtype)


def same(one, other, tolerance=1e-9):
    return all(
        torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("case", ["transformer", "regression"])
def test_chains_at_once_are_chains_one_by_one(case, dtype):
    model, args = small(dtype) if case == "transformer" else (regression, data(dtype))
    density = FlatDensity(model, args)
    z = density.start() + 0.2 * torch.randn(3, density.size, dtype=torch.float64).to(dtype)
    found = density.log_prob_and_grad(z)
    each = [density.log_prob_and_grad(row) for row in z]
    singly = tuple(torch.stack(parts) for parts in zip(*each, strict=True))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    assert found[0].shape == (3,) and found[1].shape == z.shape
    assert same(found, singly, tolerance)
    assert same(density.log_prob_and_grad(z[:1]), tuple(part[:1] for part in singly), tolerance)
    assert not same(found, tuple(part.flip(0) for part in singly), tolerance)  # planted: chains exchanged
    run = FlatDensity(model, args, trace=False)
    assert run.graph is None and same(run.log_prob_and_grad(z), singly, tolerance)


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(compiling, "_told", threading.Event())


@NEEDS_COMPILER
def test_compiled_is_eager(untold):
    torch._dynamo.reset()
    eager, compiled = (FlatDensity(regression, data(), compile=each) for each in (False, True))
    z = eager.start() + 0.2 * torch.randn(2, eager.size, dtype=torch.float64)
    assert same(compiled.log_prob_and_grad(z[0]), eager.log_prob_and_grad(z[0]))
    assert same(compiled.log_prob_and_grad(z), eager.log_prob_and_grad(z))
    assert not compiling._told.is_set()  # it did compile
    assert not same(compiled.log_prob_and_grad(z[1]), eager.log_prob_and_grad(z[0]))  # planted: another place


def test_without_a_compiler_it_is_said_once(untold, monkeypatch):
    def broken(*_, **__):
        raise OSError("no compiler")

    monkeypatch.setattr("torch._inductor.compile", broken)
    eager, compiled = (FlatDensity(regression, data(), compile=each) for each in (False, True))
    z = eager.start()
    with pytest.warns(RuntimeWarning, match="running uncompiled, since compiling failed: OSError") as told:
        assert same(compiled.log_prob_and_grad(z), eager.log_prob_and_grad(z))
        assert same(compiled.log_prob_and_grad(z.expand(2, -1)), eager.log_prob_and_grad(z.expand(2, -1)))
    assert len(told) == 1


def branching():
    x = pyro.sample("x", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    if x[0] > 0:
        pyro.factor("right", -(x[1] ** 2))


def through_numpy():
    x = pyro.sample("x", dist.Normal(torch.zeros(2).double(), 1.0).to_event(1))
    pyro.factor("seen", torch.as_tensor(x.detach().numpy().sum()) * 3.0)


@pytest.mark.parametrize("model", [branching, through_numpy])
def test_a_model_that_looks_at_values_runs_anew(model):
    with pytest.warns(RuntimeWarning, match="the model runs anew for every gradient, .* depends on values") as told:
        density = FlatDensity(model)
    assert len(told) == 1 and density.graph is None
    z = torch.tensor([[1.0, 2.0], [-1.0, 2.0]], dtype=torch.float64)
    value, gradient = density.log_prob_and_grad(z)
    if model is branching:
        plain = -0.5 * z.square().sum(-1) - torch.log(torch.tensor(2 * torch.pi))
        assert torch.allclose(value, plain - torch.tensor([4.0, 0.0]))
        assert torch.allclose(gradient, torch.tensor([[-1.0, -6.0], [1.0, -2.0]]).double())


def test_chains_that_cannot_be_batched_go_one_after_another(monkeypatch):
    """As told once for each number of chains, with the same numbers."""

    def none(graph):
        raise NotTraceable("there is no rule for it")

    density = FlatDensity(regression, data())
    z = density.start() + 0.2 * torch.randn(3, density.size, dtype=torch.float64)
    expected = FlatDensity(regression, data()).log_prob_and_grad(z)
    monkeypatch.setattr(flat_density_file, "batchable", none)
    with pytest.warns(RuntimeWarning, match="one after another, since they could not be batched: there is no") as told:
        found = [density.log_prob_and_grad(z) for _ in range(2)]
    assert len(told) == 1
    assert all(same(each, expected) for each in found)


def test_one_tensor_in_two_places_is_two_arguments():
    """`make_fx` alone merges them: the graph then gives a function of the first."""
    from torch.fx.experimental.proxy_tensor import make_fx

    z, one, other = torch.zeros(2), torch.tensor([3.0, 5.0]), torch.tensor([1.0, 1.0])
    assert torch.equal(traced(torch.sub, z, z)(one, other), one - other)
    assert not torch.equal(make_fx(torch.sub)(z, z)(one, other), one - other)  # planted: the trap


def test_cleaning_keeps_the_function():
    def wasteful(x, y):
        table = torch.arange(6.0).view(2, 3).exp()
        twice = (x.view(3, 2).view(6).view(2, 3) * table + x.view(2, 3) * table).t().t().clone()
        return (twice.detach() @ (y + 0 * torch.zeros_like(y)).view(3, 1)).sum(), twice.t() + 1 + (x * 1.0).sum()

    x, y = torch.randn(6), torch.randn(3)
    graph = traced(wasteful, x, y)
    before = len(graph.graph.nodes)
    cleaned(graph, x, y)
    assert len(graph.graph.nodes) < 0.65 * before
    for x, y in torch.randn(5, 9).split([6, 3], -1), torch.randn(5, 9).split([6, 3], -1):
        for a, b in zip(x, y, strict=True):
            assert all(torch.equal(*pair) for pair in zip(graph(a, b), wasteful(a, b), strict=True))
            assert not torch.equal(graph(a + 1, b)[1], wasteful(a, b)[1])  # planted: another argument


def test_operations_in_place_are_left_alone():
    def adding(x):
        total = torch.zeros(2)
        total.add_(x)
        return total * 2

    graph = cleaned(traced(adding, torch.ones(2)), torch.ones(2))
    for x in torch.randn(3, 2):
        assert torch.equal(graph(x), 2 * x)


def test_random_operations_are_no_function():
    with pytest.raises(NotTraceable, match="random numbers, by aten"):
        traced(lambda x: x + torch.randn(2), torch.ones(2))


def discrete():
    pyro.sample("k", dist.Bernoulli(0.5))
    pyro.sample("x", dist.Normal(0.0, 1.0))


def subsampled():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    with pyro.plate("data", 10, subsample_size=5):
        pyro.sample("y", dist.Normal(loc, 1.0), obs=torch.zeros(5))


def moving():
    width = pyro.sample("width", dist.Gamma(2.0, 1.0))
    pyro.sample("x", dist.Uniform(torch.zeros(()), width))


def growing():
    count = int(torch.randint(1, 100, ()))
    pyro.sample("x", dist.Normal(torch.zeros(count), 1.0).to_event(1))


def noisy():
    loc = pyro.sample("loc", dist.Normal(0.0, 1.0))
    pyro.sample("y", dist.Normal(loc + torch.randn(()), 1.0), obs=torch.zeros(()))


def nothing():
    pyro.sample("y", dist.Normal(0.0, 1.0), obs=torch.zeros(()))


REFUSED = {
    "discrete": (discrete, (), {}, "model = 'k': expected continuous sites"),
    "subsampled": (subsampled, (), {}, "model = 'data': expected plates without subsampling: this one draws 5 of 10"),
    "moving": (moving, (), {}, "model = 'x': expected supports that are the same in every run"),
    "growing": (growing, (), {}, "model = 'x': expected the same sites with the same shapes in every run"),
    "noisy": (noisy, (), {}, "model = 'function': expected a density: two evaluations at one place differ"),
    "nothing": (nothing, (), {}, "model = 'nothing': expected at least one latent site"),
    "minibatch": (*small(), {"num_data": 50}, "model = 'obs': expected plates without subsampling: data holds 5 of 50"),
    "no observations": (small()[0], small()[1][:1], {}, "model = 'obs': expected observations"),
    "light rows": (
        *small(prior={"*.rows": DirichletRows(kl_weight=0.5), "*": Normal()}),
        {},
        "model = 'blocks.0.attention.rows': expected rows that count in full, kl_weight: 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_any_work(case):
    model, args, kwargs, message = REFUSED[case]
    with pytest.raises(SettingError) as refused:
        FlatDensity(model, args, kwargs)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature = 0.0: expected a number above 0"),
        ({"compile": True, "trace": False}, "compile = True: expected false where trace is false"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(SettingError) as refused:
        FlatDensity(regression, data(), **settings)
    assert message in str(refused.value)


def test_values_of_another_shape_are_refused():
    density = FlatDensity(regression, data())
    with pytest.raises(SettingError, match=r"values.weight = \(2,\): expected a value of shape \(3,\), or K of them"):
        density.flatten({"weight": torch.zeros(2), "scale": torch.ones(())})
    with pytest.raises(SettingError, match=r"values.scale = None: expected a value of shape \(\)"):
        density.flatten({"weight": torch.zeros(3)})


def test_checks_of_distributions_are_off_inside_and_on_after():
    model, args = small()
    for prior in model.distributions().values():
        assert prior.base_dist._validate_args
    density = FlatDensity(model, args)
    value, _ = density.log_prob_and_grad(torch.full((density.size,), torch.nan).double())
    assert value.isnan()  # with checks on this would be an error
    assert all(prior.base_dist._validate_args for prior in model.distributions().values())
    assert pyro.distributions.is_validation_enabled()
