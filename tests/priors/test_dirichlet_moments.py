"""Moments of the logarithms of Dirichlet rows: against SciPy, the shorter row and Monte Carlo, in both precisions."""

import pytest
import torch
from scipy import special

from pyroformer.priors import MaskedDirichlet

MASK = torch.tensor([[True, True, True, True], [True, False, True, False], [False, False, False, False]])


def exact(c):
    """In double precision, with the tetragamma."""
    c = c.double()
    total = c.sum(-1, keepdim=True)
    psi, psi_of_row = (torch.from_numpy(special.digamma(v.numpy())) for v in (c, total))
    return psi - psi_of_row, *(torch.from_numpy(special.polygamma(n, c.numpy())) for n in (1, 2))


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 3e-6), (torch.float64, 1e-11)])
def test_they_are_those_of_scipy_from_tiny_to_huge_concentrations(dtype, error):
    generator = torch.Generator().manual_seed(0)
    c = (10 ** (12 * torch.rand(400, 5, generator=generator, dtype=torch.float64) - 6)).to(dtype)
    means, own = MaskedDirichlet(c).log_moments()
    expected, trigamma, _ = exact(c)
    # a mean near 0 is of an entry that is nearly the whole row, whose sum is rounded
    assert ((means - expected).abs() < error * (1 + expected.abs())).all()
    assert ((own.double() / trigamma - 1).abs() < error).all()
    assert not ((own.double() / (1.001 * trigamma) - 1).abs() < error).any()  # planted


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-5), (torch.float64, 1e-11)])
def test_gradients_are_the_covariance_and_the_tetragamma(dtype, error):
    generator = torch.Generator().manual_seed(0)
    c = (10 ** (9 * torch.rand(200, 4, generator=generator, dtype=torch.float64) - 4)).to(dtype).requires_grad_()
    on_means, on_own = torch.randn(2, *c.shape, generator=generator, dtype=torch.float64).to(dtype)
    means, own = MaskedDirichlet(c).log_moments()
    (found,) = torch.autograd.grad((on_means * means).sum() + (on_own * own).sum(), c)
    _, trigamma, tetragamma = exact(c.detach())
    of_row = torch.from_numpy(special.polygamma(1, c.detach().double().sum(-1, keepdim=True).numpy()))
    parts = on_means * trigamma, on_means.sum(-1, keepdim=True) * of_row, on_own * tetragamma
    size = sum(part.abs() for part in parts)
    assert ((found - (parts[0] - parts[1] + parts[2])).abs() < error * size).all()
    assert not ((found - (parts[0] + parts[2])).abs() < error * size).all()  # planted: rows that need not sum to one


def test_masked_rows_have_those_of_the_shorter_row():
    c = torch.rand(3, 4, generator=torch.Generator().manual_seed(0)).double() + 0.1
    leaf = torch.where(MASK, c, torch.nan).requires_grad_()
    means, own = MaskedDirichlet(leaf, MASK).log_moments()
    (slope,) = torch.autograd.grad(means.sum() + own.sum(), leaf)
    for values in (means, own, slope):
        assert not values[~MASK].any() and values.isfinite().all()
    short = c[1, MASK[1]].requires_grad_()
    both = MaskedDirichlet(short).log_moments()
    torch.testing.assert_close(means[1, MASK[1]], both[0])
    torch.testing.assert_close(own[1, MASK[1]], both[1])
    torch.testing.assert_close(slope[1, MASK[1]], torch.autograd.grad(both[0].sum() + both[1].sum(), short)[0])
    assert not torch.allclose(MaskedDirichlet(c).log_moments()[0][1, MASK[1]], both[0])  # planted: no mask


def test_draws_have_them(standard_errors):
    c = torch.tensor([0.7, 2.0, 5.0]).double()
    logs = MaskedDirichlet(c).sample((20000,)).log()
    means, own = MaskedDirichlet(c).log_moments()
    assert standard_errors(logs, means) < 5
    covariance = own.diag() - torch.special.polygamma(1, c.sum())
    away = logs - means
    assert standard_errors(away.unsqueeze(-1) * away.unsqueeze(-2), covariance) < 5
    assert standard_errors(away.unsqueeze(-1) * away.unsqueeze(-2), own.diag()) > 5  # planted: independent entries


def test_concentrations_below_the_smallest_count_as_that():
    tiny, least = (torch.tensor([value, 1.0]).requires_grad_() for value in (1e-30, 1e-6))
    for one, other in zip(MaskedDirichlet(tiny).log_moments(), MaskedDirichlet(least).log_moments(), strict=True):
        assert torch.equal(one, other) and one.isfinite().all()
    slopes = [torch.autograd.grad(MaskedDirichlet(c).log_moments()[1].sum(), c)[0] for c in (tiny, least)]
    assert torch.equal(*slopes) and slopes[0].isfinite().all()


def test_vmap_equals_a_batch():
    c = torch.rand(4, 3, 5, generator=torch.Generator().manual_seed(0)).double() + 0.1
    mask = torch.tensor([True, True, False, True, True])

    def total(c):
        means, own = MaskedDirichlet(c, mask).log_moments()
        return (means.square() + own).sum()

    slopes = torch.func.vmap(torch.func.grad(total))(c)
    leaf = c.clone().requires_grad_()
    torch.testing.assert_close(slopes, torch.autograd.grad(total(leaf), leaf)[0])
    torch.testing.assert_close(torch.func.vmap(total)(c).sum(), total(c))
