"""Slopes of gamma draws against 40-digit references, at every quantile of concentrations from 1e-3 to 1e6."""

import json
from pathlib import Path

import pytest
import torch
from scipy import special

from pyroformer.priors.dirichlet import gamma_functions
from pyroformer.priors.dirichlet.slopes import functions_of_draws, logs_of_draws

# Concentration, ln x, d ln x / dc; written by benchmarks/fit_gamma_series.py --references.
TABLE = torch.tensor(json.loads((Path(__file__).parent / "gamma_slopes.json").read_text()), dtype=torch.float64)
C, LOG_X, SLOPE = TABLE.T
WORST = {torch.float32: 2e-4, torch.float64: 1e-6}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def found(dtype):
    return functions_of_draws(C.to(dtype), (LOG_X - (C + 2 / 3).log()).to(dtype))


def errors(slopes):
    return (slopes.double() / SLOPE - 1).abs()


@DTYPES
def test_slopes(dtype):
    logs, slopes, *_ = found(dtype)
    torch.testing.assert_close(logs.double(), LOG_X, rtol=2e-6, atol=2e-6)
    assert errors(slopes).max() < WORST[dtype]
    assert errors(slopes * (1 + 2 * WORST[dtype])).max() > WORST[dtype]  # planted: a factor


@DTYPES
def test_slopes_are_nearer_than_those_of_torch(dtype):
    inside = (C <= 1000) & (LOG_X > -80)  # below, torch's draws are 0
    x = LOG_X.exp().to(dtype)[inside]
    theirs = torch._standard_gamma_grad(C.to(dtype)[inside], x) / x
    worst = (theirs.double() / SLOPE[inside] - 1).abs().max()
    assert errors(found(dtype).slopes)[inside].max() < worst


@DTYPES
def test_functions_that_come_with_slopes(dtype):
    c, ours = C.numpy(), found(dtype)
    digamma = torch.from_numpy(special.digamma(c))
    exact = (
        (ours.kappas, gamma_functions.kappa(C)),
        (ours.digammas, digamma),
        (ours.trigammas, torch.from_numpy(special.polygamma(1, c))),
    )
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    for function, wanted in exact:
        torch.testing.assert_close(function.double(), wanted, rtol=tolerance, atol=tolerance)
    assert not torch.allclose(ours.digammas.double(), digamma + 1 / C, rtol=tolerance, atol=tolerance)  # planted: of a


@DTYPES
def test_logarithms_are_the_same_without_slopes(dtype):
    relative = (LOG_X - (C + 2 / 3).log()).to(dtype)
    assert torch.equal(logs_of_draws(C.to(dtype), relative), functions_of_draws(C.to(dtype), relative).logs)


def test_the_table_has_large_and_small_slopes():
    assert len(TABLE) == 130 and C.min() == 1e-3 and C.max() == 1e6
    assert SLOPE.min() < 2e-6 and SLOPE.max() > 1e6


@pytest.mark.parametrize("c", [1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6])
def test_functions_of_single_precision(c):
    one, other = torch.tensor([c, c]), torch.tensor([0.7 * c, 3.0])
    found = gamma_functions.compare(one, other, other - one)
    exact = gamma_functions.compare(one.double(), other.double(), (other - one).double())
    for ours, theirs in zip(found, exact, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gamma_functions.kappa(one).double(), gamma_functions.kappa(one.double()), rtol=1e-5, atol=1e-5
    )


def test_functions_of_double_precision():
    c = torch.tensor([1e-6, 0.5, 999.0, 1001.0, 1e6], dtype=torch.float64)
    direct = c * torch.digamma(c) - torch.lgamma(c) - c
    torch.testing.assert_close(gamma_functions.kappa(c), direct, rtol=1e-9, atol=1e-11 * c[-1].item() ** 0.5)
    step = 1e-4 * c
    slope = (torch.digamma(c + step) - torch.digamma(c - step)) / (2 * step)
    torch.testing.assert_close(gamma_functions.compare(c, c, 0 * c)[2], slope, rtol=1e-6, atol=0)
