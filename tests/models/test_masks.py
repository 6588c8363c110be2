"""Padding and causality: what an example may not see has no say in its output."""

import pytest
import torch

from pyroformer.models import Series, Tokens

LENGTHS = [5, 3, 1, 4]
VALID = torch.arange(5) < torch.tensor(LENGTHS)[:, None]
POOLS = pytest.mark.parametrize("pool", ["mean", "first", "last", None])
CAUSAL = pytest.mark.parametrize("causal", [False, True], ids=["full", "causal"])


def settings(pool, causal):
    return {"per_token": pool is None, "pool": pool or "mean", "causal": causal}


def valid(outputs, per_token):
    """The outputs that mean something, one tensor an example."""
    return [out[:n] if per_token else out for out, n in zip(outputs, LENGTHS, strict=True)]


@POOLS
@CAUSAL
def test_padded_tokens_equal_the_shorter_sequences(build, batch_of, pool, causal):
    net, x = build(Tokens(7, 5, padding=0), **settings(pool, causal)), batch_of(Tokens(7, 5))
    for padded, row, n in zip(valid(net(x * VALID), pool is None), x, LENGTHS, strict=True):
        torch.testing.assert_close(padded, net(row[None, :n])[0])
    blind = build(Tokens(7, 5), **settings(pool, causal))  # planted: it takes padding for a token
    if not (causal and pool in (None, "first")):
        last = valid(blind(x * VALID), pool is None)[1]
        assert not torch.allclose(last, blind(x[1:2, :3])[0], rtol=1e-3)


@POOLS
@CAUSAL
@pytest.mark.parametrize("filling", [0.0, 1e6, torch.nan, torch.inf])
def test_whatever_stands_in_the_padding_of_a_series(build, batch_of, pool, causal, filling):
    net, x = build(Series(5, 2), **settings(pool, causal)), batch_of(Series(5, 2))
    filled = torch.where(VALID.unsqueeze(-1), x, filling)
    for padded, row, n in zip(valid(net(filled, VALID), pool is None), x, LENGTHS, strict=True):
        torch.testing.assert_close(padded, net(row[None, :n])[0])


def test_a_mask_overrides_the_padding_token(build, batch_of):
    net, x = build(Tokens(7, 5, padding=0)), batch_of(Tokens(7, 5))
    torch.testing.assert_close(net(x, VALID), net(x * VALID))
    assert not torch.allclose(net(x, VALID), net(x), rtol=1e-3)  # planted


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_holes_in_a_mask_are_skipped(build, batch_of, pool):
    net, x = build(Series(5, 2), pool=pool), batch_of(Series(5, 2))
    holes = torch.tensor([True, False, True, True, False]).expand(4, 5)
    changed = torch.where(holes.unsqueeze(-1), x, x + 7)
    torch.testing.assert_close(net(changed, holes), net(x, holes))
    assert not torch.allclose(net(changed), net(x), rtol=1e-3)  # planted


@pytest.mark.parametrize("pool", ["mean", "first", "last", None])
def test_an_example_of_padding_alone_is_finite(build, batch_of, pool):
    net, x = build(Series(5, 2), **settings(pool, False)), batch_of(Series(5, 2))
    mask = VALID & (torch.arange(4) != 2).unsqueeze(-1)
    outputs = net(x, mask)
    slopes = torch.autograd.grad(outputs.square().sum(), list(net.parameters()))
    assert torch.isfinite(outputs).all() and all(torch.isfinite(slope).all() for slope in slopes)


@pytest.mark.parametrize("changed", [1, 2, 4])
def test_later_tokens_do_not_change_earlier_outputs(build, batch_of, changed):
    x = batch_of(Tokens(7, 5))
    other = x.clone()
    other[:, changed] = x[:, changed] % 6 + 1
    causal = build(Tokens(7, 5), per_token=True, causal=True)
    torch.testing.assert_close(causal(x)[:, :changed], causal(other)[:, :changed], rtol=0, atol=0)
    assert (causal(x)[:, changed:] - causal(other)[:, changed:]).abs().amin((0, 2)).min() > 1e-6
    full = build(Tokens(7, 5), per_token=True)  # planted: no causal mask
    assert (full(x)[:, :changed] - full(other)[:, :changed]).abs().amin((0, 2)).min() > 1e-6
    first = build(Tokens(7, 5), pool="first", causal=True)
    torch.testing.assert_close(first(x), first(other), rtol=0, atol=0)


def test_a_causal_net_reads_prefixes_as_it_reads_whole_sequences(build, batch_of):
    net, x = build(Series(5, 2), per_token=True, causal=True), batch_of(Series(5, 2))
    for n in range(1, 5):
        torch.testing.assert_close(net(x[:, :n]), net(x)[:, :n])
