"""Draws of rows with masked entries: moments, marginals and pathwise gradients."""

import pytest
import torch
from scipy import stats
from torch.distributions import Dirichlet

from pyroformer.priors import MaskedDirichlet

FIVE_SIGMA = 2 * stats.norm.sf(5)
MASK = torch.tensor([True, False, True, True, False])
CONCENTRATION = torch.tensor([0.6, 2.0, 1.5, 4.0, 9.0])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


@DTYPES
def test_draws_are_rows_over_the_valid_entries(dtype):
    rows = MaskedDirichlet(CONCENTRATION.to(dtype), MASK).sample((1000,))
    assert rows.dtype == dtype and (rows >= 0).all() and not rows[:, ~MASK].any()
    torch.testing.assert_close(rows.sum(-1), torch.ones(1000, dtype=dtype))


def second_moments(c):
    """E[a_i a_j] of a Dirichlet: unlike the marginals they see correlations."""
    return (c[:, None] * c + c.diag()) / (c.sum() * (c.sum() + 1))


@DTYPES
def test_moments(dtype, standard_errors):
    rows = MaskedDirichlet(CONCENTRATION.to(dtype), MASK)
    draws = rows.sample((20_000,)).double()[:, MASK]
    c = CONCENTRATION[MASK].double()
    mean, second = c / c.sum(), second_moments(c)
    products = draws[:, :, None] * draws[:, None, :]
    assert standard_errors(draws, mean) < 5
    assert standard_errors(products, second) < 5
    torch.testing.assert_close(rows.mean[MASK].double(), mean)
    torch.testing.assert_close(rows.variance[MASK].double(), second.diag() - mean.square())
    padded = Dirichlet(CONCENTRATION.double())  # planted: masked entries that take their share
    assert standard_errors(draws, padded.mean[MASK]) > 5
    assert standard_errors(products, second_moments(1.2 * c)) > 5  # planted: a sharpness 20 % off


@DTYPES
@pytest.mark.parametrize("entry", [0, 2, 3])
def test_marginals_are_beta(dtype, entry):
    draws = MaskedDirichlet(CONCENTRATION.to(dtype), MASK).sample((5000,))[:, entry].double().numpy()
    c, total = CONCENTRATION[entry].item(), CONCENTRATION[MASK].sum().item()

    def p_value(total):
        return stats.kstest(draws, stats.beta(c, total - c).cdf).pvalue

    assert p_value(total) > FIVE_SIGMA
    assert p_value(total + 2) < FIVE_SIGMA  # planted: dummies of masked entries in the sum


@DTYPES
def test_padding_leaves_rows_of_small_concentration_alone(dtype, standard_errors):
    short = torch.full((3,), 0.01, dtype=dtype)
    padded = MaskedDirichlet(torch.full((8,), 0.01, dtype=dtype), torch.arange(8) < 3).sample((20_000,))[:, :3]
    expected = Dirichlet(short.double()).variance
    # E[a^2]: rows that underflow together come out uniform, and far too small in the square
    assert standard_errors(padded.double().square(), expected + 1 / 9) < 5
    collapsed = torch.where(torch.rand(20_000, 1) < 0.08, 1 / 3, padded.double())  # planted: as in float32
    assert standard_errors(collapsed.square(), expected + 1 / 9) > 5


def pathwise_gradients(function, concentration, mask, draws):
    """The gradient of ``function`` of one draw, for each of many draws ``[N, T]``."""
    leaves = concentration.expand(draws, -1).clone().requires_grad_()
    values = function(MaskedDirichlet(leaves, mask).rsample())
    return torch.autograd.grad(values.sum(), leaves)[0].double()


def linear(rows):
    return rows @ torch.tensor([1.0, 50.0, -2.0, 3.0, 50.0], dtype=rows.dtype)


def quadratic(rows):
    return linear(rows).square()


def exact_gradient(function, concentration, mask):
    """By autograd through the closed forms of the moments of the valid entries."""
    leaf = concentration.double().clone().requires_grad_()
    c = leaf[mask]
    total, f = c.sum(), torch.tensor([1.0, 50.0, -2.0, 3.0, 50.0], dtype=torch.float64)[mask]
    value = f @ c / total if function is linear else f @ second_moments(c) @ f
    return torch.autograd.grad(value, leaf)[0]


@DTYPES
@pytest.mark.parametrize("function", [linear, quadratic])
def test_gradients_of_expectations(function, dtype, standard_errors):
    found = pathwise_gradients(function, CONCENTRATION.to(dtype), MASK, 20_000)
    exact = exact_gradient(function, CONCENTRATION, MASK)
    assert not found[:, ~MASK].any()
    assert standard_errors(found[:, MASK], exact[MASK]) < 5
    unmasked = exact_gradient(function, CONCENTRATION, torch.ones(5, dtype=torch.bool))
    assert standard_errors(found[:, MASK], unmasked[MASK]) > 5  # planted: no mask
    assert standard_errors(1.1 * found[:, MASK], exact[MASK]) > 5  # planted: a factor


def test_a_single_valid_entry_is_one_and_has_no_gradient():
    only = torch.tensor([False, True, False])
    for value in (0.01, 1.0, 30.0, 1e5):
        leaf = torch.full((100, 3), value, requires_grad=True)
        rows = MaskedDirichlet(leaf, only).rsample()
        torch.testing.assert_close(rows, only.float().expand(100, 3))
        (slope,) = torch.autograd.grad((rows * torch.randn(3)).sum(), leaf)
        torch.testing.assert_close(slope, torch.zeros(100, 3), atol=1e-4, rtol=0)
