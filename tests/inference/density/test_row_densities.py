"""Flat densities of models that draw attention rows: every law, with masks, against Pyro's own sum."""

import pyro
import pytest
import torch
from pyro import poutine
from torch.fx import GraphModule

from pyroformer.inference.density import FlatDensity
from pyroformer.models import BayesianModel, Features, Output, Tokens, Transformer
from pyroformer.priors import (
    DirichletRows,
    FlatCenter,
    GammaRows,
    GumbelSoftmaxRows,
    LogisticNormalRows,
    LogNormalRows,
    MatchedUniformCenter,
    Normal,
    SettingError,
    SoftmaxCenter,
)
from pyroformer.priors.carried import logs_of

FULL = {"center": SoftmaxCenter(), "kl_normalization": "none"}
LAWS = {
    "dirichlet": DirichletRows(concentration=3.0, floor=0.3),
    "dirichlet, flat": DirichletRows(center=FlatCenter(), concentration=1.0, floor=0.0),
    "dirichlet, uniform": DirichletRows(center=MatchedUniformCenter(), concentration=3.0, floor=0.0),
    "logistic normal": LogisticNormalRows(scale=0.8, **FULL),
    "gumbel softmax": GumbelSoftmaxRows(temperature=0.7),
    "gamma": GammaRows(concentration=4.0, floor=0.5, **FULL),
    "log normal": LogNormalRows(**FULL),
}
X = torch.tensor([[1, 2, 3, 4], [5, 1, 2, 0], [2, 0, 0, 0], [3, 4, 0, 0]])
Y = torch.tensor([0, 2, 1, 1])


def with_rows(law, dtype=torch.float64):
    """Sequences of four lengths under a causal mask, in two heads."""
    torch.manual_seed(0)
    net = Transformer(Tokens(6, 4, padding=0), Output(3), width=4, heads=2, depth=1, causal=True)
    return BayesianModel(net, {"*.rows": law, "*": Normal(scale=0.5)}).to(dtype)


def somewhere(density, count=1):
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(count, density.size, generator=generator, dtype=torch.float64)
    return density.start() + 0.3 * noise.to(density.layout.dtype)


def by_pyro(model, density, z):
    """The sum over a trace, and the Jacobian of the rows: the sum of their logarithms."""
    values = density.unflatten(z)
    with torch.no_grad(), poutine.trace() as tracer:
        poutine.condition(model, data=values)(X, Y)
    prior = tracer.trace.log_prob_sum()
    return prior, sum(logs_of(values[name]).sum() for name in model.rows)


@pytest.mark.parametrize("law", LAWS)
def test_density_and_gradient(law):
    model = with_rows(LAWS[law])
    density = FlatDensity(model, (X, Y), trace=False)
    assert density.layout.rows == model.rows
    z = somewhere(density)[0]
    value, gradient = density.log_prob_and_grad(z)
    joint, volume = by_pyro(model, density, z)
    assert torch.allclose(value, joint + volume, rtol=1e-9)
    assert not torch.allclose(value, joint, rtol=1e-4)  # planted: without the Jacobian
    direction = torch.randn(density.size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    ahead, behind = (density.log_prob_and_grad(z + s * direction)[0] for s in (1e-5, -1e-5))
    assert gradient.dot(direction).item() == pytest.approx(((ahead - behind) / 2e-5).item(), rel=1e-5)


@pytest.mark.parametrize("law", ["dirichlet", "gamma"])
def test_written_down_and_batched_it_is_the_same(law):
    model = with_rows(LAWS[law])
    run, density = (FlatDensity(model, (X, Y), trace=trace) for trace in (False, True))
    assert density.graph is not None
    zs = somewhere(density, 2)
    values, gradients = density.log_prob_and_grad(zs)
    for z, value, gradient in zip(zs, values, gradients, strict=True):
        expected, slope = run.log_prob_and_grad(z)
        assert torch.allclose(value, expected, rtol=1e-9)
        assert torch.allclose(gradient, slope, rtol=1e-7, atol=1e-8)
    assert not torch.allclose(values[0], values[1])
    assert isinstance(density._batched[2], GraphModule)  # not one by one


@pytest.mark.parametrize("law", ["dirichlet", "gamma"])
def test_single_precision_is_double_precision(law):
    fine = FlatDensity(with_rows(LAWS[law], torch.float64), (X, Y), trace=False)
    coarse = FlatDensity(with_rows(LAWS[law], torch.float32), (X, Y))
    assert coarse.graph is not None
    z = somewhere(fine, 2).float()
    expected, found = fine.log_prob_and_grad(z.double()), coarse.log_prob_and_grad(z)
    assert found[0].dtype == found[1].dtype == torch.float32
    assert torch.allclose(found[0].double(), expected[0], rtol=1e-5)
    assert torch.allclose(found[1].double(), expected[1], rtol=1e-3, atol=1e-3)
    assert isinstance(coarse._batched[2], GraphModule)
    again = coarse.flatten(coarse.unflatten(z))
    assert torch.allclose(again, z, rtol=1e-3, atol=1e-3)


def test_only_what_can_be_seen_takes_numbers():
    """Sequences of 4, 3, 1 and 2 tokens, each of which sees itself and those before it, in 2 heads."""
    density = FlatDensity(with_rows(LAWS["dirichlet"]), (X, Y), trace=False)
    per_head = sum(seen - 1 for length in (4, 3, 1, 2) for seen in range(1, length + 1))
    assert [density.layout.unconstrained[name] for name in density.layout.rows] == [(2 * per_head,)]
    entries = FlatDensity(with_rows(LAWS["gamma"]), (X, Y), trace=False)
    per_head = sum(seen for length in (4, 3, 1, 2) for seen in range(1, length + 1))
    assert [entries.layout.unconstrained[name] for name in entries.layout.rows] == [(2 * per_head,)]
    torch.manual_seed(0)
    net = Transformer(Features(1, copies=3), Output(3), width=4, heads=2, depth=1)
    free = BayesianModel(net, {"*.rows": LAWS["dirichlet"], "*": Normal()})
    layout = FlatDensity(free, (torch.zeros(5, 1), torch.zeros(5).long()), trace=False).layout
    assert layout.unconstrained["blocks.0.attention.rows"] == (5, 2, 3, 2)


def test_it_starts_with_rows_of_the_prior_around_the_weights_of_the_net():
    model = with_rows(DirichletRows(concentration=1e6, floor=1e-3))
    layout = FlatDensity(model, (X, Y), trace=False).layout
    values = layout.unflatten(layout.start())
    for name, value in model.initial_values().items():
        assert torch.equal(values[name], value)
    bare = model.without_rows()
    with poutine.condition(data={name: values[name] for name in model.rows}), torch.no_grad():
        drawn = poutine.condition(model, data=model.initial_values())(X)
    computed = poutine.condition(bare, data=model.initial_values())(X)
    assert torch.allclose(drawn, computed, atol=2e-2)  # rows this sharp are softmax attention
    other = layout.with_rows(model.initial_values(), seed=1)
    assert not torch.equal(other[model.rows[0]], values[model.rows[0]])
    assert torch.equal(layout.with_rows(other)[model.rows[0]], other[model.rows[0]])
    elsewhere = {name: value + 1.0 for name, value in model.initial_values().items()}
    moved = layout.with_rows(elsewhere)[model.rows[0]]
    assert (moved - values[model.rows[0]]).abs().max() > 0.1  # planted: rows around other weights


@pytest.mark.parametrize(
    "law",
    [DirichletRows(kl_weight=0.1), DirichletRows(kl_weight=0.0), LogisticNormalRows(center=SoftmaxCenter())],
    ids=["light", "masked", "entries"],
)
def test_rows_that_do_not_count_in_full_are_refused(law):
    with pytest.raises(SettingError, match="rows that count in full, kl_weight: 1 and kl_normalization: none"):
        FlatDensity(with_rows(law), (X, Y))


def test_a_mask_that_is_drawn_is_refused():
    law, masks = LAWS["dirichlet"], iter([torch.ones(3, dtype=torch.bool), torch.tensor([True, True, False])] * 2)

    def moving():
        mask = next(masks)
        rows = law.around(torch.zeros(2, 3), torch.Size((2, 3)), mask).to_event(1)
        pyro.sample("rows", rows, infer={"law": law, "mask": mask})

    with pytest.raises(SettingError, match="model = 'rows': expected supports that are the same in every run"):
        FlatDensity(moving)
