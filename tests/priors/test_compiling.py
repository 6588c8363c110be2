"""Compiled kernels give what uncompiled ones give; without a compiler there is one message."""

import os
import shutil
import subprocess
import sys
import threading

import pytest
import torch
from torch.distributions import kl_divergence

from pyroformer.priors import MaskedDirichlet, compiling
from pyroformer.priors.carried import logs_of
from pyroformer.priors.rows import masked_softmax

NEEDS_COMPILER = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")
MASK = torch.arange(12) < 9


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(compiling, "_told", threading.Event())


def outcome(rows, masked, compile, dtype=torch.float32):
    """Everything a step of training asks of rows, with the same draws."""
    mask = MASK if masked else None
    torch.manual_seed(rows)
    scores, weights = torch.randn(2, rows, 12, dtype=dtype), torch.randn(2, rows, 12, dtype=dtype)
    scores.requires_grad_()
    sharpness = torch.tensor([[5.0], [30.0]], dtype=dtype).unsqueeze(-1).requires_grad_()
    q = MaskedDirichlet.around_softmax(scores, mask, sharpness=sharpness, floor=0.01, compile=compile)
    p = MaskedDirichlet(torch.tensor(0.7, dtype=dtype).expand(scores.shape), mask, compile=compile)
    drawn = q.expand(q.batch_shape)
    row = drawn.rsample()
    kl, by_sums, density = kl_divergence(q, p), kl_divergence(drawn, p), q.log_prob(row.detach())
    loss = (row * weights).sum() + (0 if masked else 1e-3 * logs_of(row).sum())
    loss = loss + 0.7 * kl.sum() + 0.3 * by_sums.sum() + 0.1 * density.sum()
    slopes = torch.autograd.grad(loss, (scores, sharpness))
    return [row.detach(), kl.detach(), by_sums.detach(), density.detach(), *slopes]


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("masked", "dtype", "tolerance"),
    [(False, torch.float32, 2e-4), (True, torch.float32, 2e-4), (False, torch.float64, 1e-9)],
    ids=["whole", "masked", "double"],
)
def test_compiled_equals_eager(untold, masked, dtype, tolerance):
    torch._dynamo.reset()
    found = {}
    for rows in (40, 64):
        found[rows] = outcome(rows, masked, True, dtype)
        for ours, theirs in zip(found[rows], outcome(rows, masked, False, dtype), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    assert not compiling._told.is_set()  # it did compile
    assert not torch.allclose(found[40][1], outcome(41, masked, False, dtype)[1][:, :40])  # planted: other scores


def test_what_fails_after_the_first_call_runs_as_it_is_too(untold, monkeypatch):
    def compile_once(function):
        def run(values):
            if values.dtype == torch.float64:
                raise RuntimeError("no such kernel")
            return function(values)

        return run

    monkeypatch.setattr(torch, "compile", compile_once)
    doubled = compiling.Compiled(lambda values: (2 * values,))
    assert doubled(torch.ones(2))[0].sum() == 4
    with pytest.warns(RuntimeWarning, match="running uncompiled, since compiling failed: RuntimeError no such kernel"):
        assert doubled(torch.ones(2, dtype=torch.float64))[0].sum() == 4
    assert doubled(torch.ones(2, dtype=torch.float64))[0].sum() == 4  # and says so once


@NEEDS_COMPILER
def test_another_number_of_rows_compiles_nothing_anew(untold):
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]

    def kernel(values):
        return (values.exp().sum(-1, keepdim=True),)

    run, before = compiling.Compiled(kernel), graphs["unique_graphs"]
    for rows in (30, 40, 50):
        values = torch.randn(rows, 4)
        torch.testing.assert_close(run(values)[0], values.exp().sum(-1, keepdim=True))
    assert graphs["unique_graphs"] == before + 1
    run(torch.randn(30, 5))
    assert graphs["unique_graphs"] == before + 2  # planted: another width


def test_where_compiling_fails_it_is_said_once(monkeypatch, untold):
    def broken(function):
        def run(*arguments):
            raise OSError("no compiler\nat all")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    first, second = compiling.Compiled(lambda x: (x + 1,)), compiling.Compiled(lambda x: (x + 2,))
    one = torch.ones(3)
    with pytest.warns(RuntimeWarning, match="uncompiled, since compiling failed: OSError no compiler") as told:
        assert first(one)[0].equal(one + 1) and first(one)[0].equal(one + 1)
        assert second(one)[0].equal(one + 2)
    assert len(told) == 1


def test_errors_of_the_caller_are_his(untold):
    run = compiling.Compiled(lambda x, y: (x @ y,))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(torch.ones(2, 3), torch.ones(2, 3))
    assert not compiling._told.is_set()


def test_dynamo_is_not_imported_before_it_is_needed():
    code = (
        "import sys, torch; from pyroformer.priors import MaskedDirichlet; MaskedDirichlet(torch.ones(3)).rsample();"
        "sys.exit('torch._dynamo' in sys.modules and 'torch._inductor.codecache' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=os.environ).returncode == 0


@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
def test_around_softmax_is_what_it_says(masked):
    mask = MASK if masked else None
    scores = torch.randn(3, 2, 4, 12, dtype=torch.float64, requires_grad=True)
    sharpness = torch.tensor([[[3.0]], [[40.0]]], dtype=torch.float64, requires_grad=True)
    weights = torch.randn(12, dtype=torch.float64)
    found = MaskedDirichlet.around_softmax(scores, mask, sharpness=sharpness, floor=0.02).concentration
    by_hand = sharpness * masked_softmax(scores, mask) + 0.02
    if masked:
        by_hand = torch.where(mask, by_hand, 1.0)
    torch.testing.assert_close(found, by_hand)
    slopes, wanted = (torch.autograd.grad((c.square() * weights).sum(), (scores, sharpness)) for c in (found, by_hand))
    for ours, theirs in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(ours, theirs)
    one = MaskedDirichlet.around_softmax(scores, mask, sharpness=3.0, floor=0.02).concentration
    torch.testing.assert_close(one[:, 0], found[:, 0])
