"""Weights with sample dimensions give what a loop over the samples gives."""

import pytest
import torch

from pyroformer.models import Series, Tokens
from pyroformer.models.calling import call

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def loop(net, weights, x, *lead):
    """The net's outputs, one draw at a time."""
    shapes = {name: p.shape for name, p in net.named_parameters()}
    full = {n: w.expand(*lead, 1, *shapes[n]).reshape(-1, *shapes[n]) for n, w in weights.items()}
    outputs = [call(net, {n: w[s] for n, w in full.items()}, x) for s in range(torch.Size(lead).numel())]
    return torch.stack(outputs).unflatten(0, lead)


def agree(net, weights, x, *lead):
    x = x if isinstance(x, tuple) else (x,)
    found, expected = call(net, weights, x), loop(net, weights, x, *lead)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, **TIGHT)
    if lead[0] > 1:  # planted: the draws in another order
        assert not torch.allclose(found, expected.roll(1, 0), rtol=1e-3)


@pytest.mark.parametrize("pool", ["mean", "first", "last", None])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_every_input_and_pool(inputs, build, batch_of, draws_of, pool, causal):
    net = build(inputs, per_token=pool is None, pool=pool or "mean", causal=causal)
    agree(net, draws_of(net, 3, 1), batch_of(inputs), 3)


@pytest.mark.parametrize("lead", [(2, 3), (1,), (1, 1), (3, 1)])
def test_any_number_of_sample_dimensions(inputs, build, batch_of, draws_of, lead):
    net = build(inputs, depth=1)
    agree(net, draws_of(net, *lead, 1), batch_of(inputs), *lead)


@pytest.mark.parametrize("size", [1, 3])
def test_batches_as_large_as_the_number_of_draws(inputs, build, batch_of, draws_of, size):
    net = build(inputs, depth=1)
    agree(net, draws_of(net, 3, 1), batch_of(inputs, size), 3)


@pytest.mark.parametrize("pool", ["mean", "first", "last", None])
@pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])
def test_padded_batches(build, batch_of, draws_of, pool, causal):
    settings = {"per_token": pool is None, "pool": pool or "mean", "causal": causal}
    mask = torch.arange(5) < torch.tensor([5, 2, 1, 0])[:, None]
    series = build(Series(5, 2), **settings)
    agree(series, draws_of(series, 3, 1), (batch_of(Series(5, 2)), mask), 3)
    tokens = build(Tokens(7, 5, padding=0), **settings)
    agree(tokens, draws_of(tokens, 3, 1), batch_of(Tokens(7, 5)) * mask, 3)


def test_each_weight_may_be_the_only_one_with_draws(inputs, build, batch_of, draws_of):
    net = build(inputs, depth=1)
    for name, values in draws_of(net, 3, 1).items():
        x = (batch_of(inputs),)
        found = call(net, {name: values}, x)
        torch.testing.assert_close(found, loop(net, {name: values}, x, 3), **TIGHT)
        if "key.bias" not in name:  # softmax does not see it
            assert (found - found[:1]).abs().max() > 1e-6, name


def test_one_draw_of_some_weights_goes_with_many_of_the_others(build, batch_of, draws_of):
    net = build(Series(5, 2), depth=1)
    weights = draws_of(net, 3, 1)
    for first in (True, False):
        mixed = {n: w[:1] if ("head" in n) == first else w for n, w in weights.items()}
        agree(net, mixed, batch_of(Series(5, 2)), 3)


def test_draws_without_the_plates_dimension(build, batch_of, draws_of):
    net, x = build(Series(5, 2), depth=1), (batch_of(Series(5, 2)),)
    weights = draws_of(net, 4)
    torch.testing.assert_close(call(net, weights, x), loop(net, {n: w.unsqueeze(1) for n, w in weights.items()}, x, 4))


def test_gradients_equal_a_loop(inputs, build, batch_of, draws_of):
    net, x = build(inputs, depth=1), (batch_of(inputs),)
    weights = {n: w.requires_grad_() for n, w in draws_of(net, 3, 1).items()}
    together = torch.autograd.grad(call(net, weights, x).square().sum(), list(weights.values()))
    apart = torch.autograd.grad(loop(net, weights, x, 3).square().sum(), list(weights.values()))
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, **TIGHT)


def test_unknown_names_are_refused(build, batch_of, draws_of):
    net, x = build(Series(5, 2)), (batch_of(Series(5, 2)),)
    with pytest.raises(KeyError, match=r"head\.wieght is not a parameter of Transformer"):
        call(net, {**draws_of(net), "head.wieght": torch.zeros(3, 8)}, x)
    torch.testing.assert_close(torch.func.functional_call(net, {"head.wieght": torch.zeros(3, 8)}, x), net(*x))  # torch
