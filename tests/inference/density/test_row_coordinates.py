"""Attention rows from unconstrained numbers: Jacobians, round trips, masks, and the edges of float32."""

import math

import pytest
import torch
from torch.distributions import StickBreakingTransform

from pyroformer.inference.density import LogEntries, StickBreaking
from pyroformer.priors import MaskedDirichlet
from pyroformer.priors.carried import logs_of, with_logs

PADDED = torch.tensor(
    [
        [True, True, True, True],
        [True, True, True, False],
        [False, True, False, True],
        [False, False, True, False],
        [False, False, False, False],
    ]
)
MASKS = {"all": None, "padded": PADDED, "causal": torch.ones(5, 4, dtype=torch.bool).tril()}
SHAPE = torch.Size((2, 5, 4))
KINDS = {"rows": StickBreaking, "entries": LogEntries}
every_mask = pytest.mark.parametrize("mask", MASKS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def made(kind, mask):
    return KINDS[kind](SHAPE, MASKS[mask])


def numbers(coordinates, scale=1.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shape = (2, 5, coordinates.size // 10) if coordinates.mask is None else (coordinates.size,)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


@every_kind
@every_mask
def test_only_what_a_mask_allows_takes_numbers(kind, mask):
    coordinates = made(kind, mask)
    valid = torch.ones(SHAPE, dtype=torch.bool) if MASKS[mask] is None else MASKS[mask].expand(SHAPE)
    counts = valid.sum(-1)
    assert coordinates.size == int((counts - 1).clamp(min=0).sum() if kind == "rows" else counts.sum())
    value = coordinates(numbers(coordinates))
    assert value.shape == SHAPE and (value > 0).equal(valid)
    assert (logs_of(value)[~valid] == 0).all()
    if kind == "rows":
        assert torch.allclose(value.sum(-1), (counts > 0).double())
        assert (value[valid & (counts == 1).unsqueeze(-1)] == 1).all()


@every_kind
@every_mask
def test_the_jacobian_is_that_of_the_entries_that_take_numbers(kind, mask):
    coordinates = made(kind, mask)
    z = numbers(coordinates)
    free = coordinates.free.expand(SHAPE)
    by_hand = torch.autograd.functional.jacobian(lambda z: coordinates(z)[free], z).reshape(coordinates.size, -1)
    found = coordinates.log_abs_det_jacobian(z, coordinates(z))
    assert found.shape == SHAPE[:-1]
    assert torch.allclose(found.sum(), by_hand.slogdet().logabsdet, rtol=1e-10)
    assert not torch.allclose(0.99 * found.sum(), by_hand.slogdet().logabsdet, rtol=1e-10)  # planted


@every_kind
@every_mask
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_numbers_come_back(kind, mask, scale):
    """Also where entries are far below the smallest number of their dtype: values carry their logarithms."""
    coordinates = made(kind, mask)
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        z = numbers(coordinates, scale, dtype)
        value = coordinates(z)
        assert value.dtype == dtype and value.isfinite().all()
        assert torch.allclose(coordinates.inv(value), z, rtol=tolerance, atol=tolerance * scale)
        if scale == 100.0 and dtype == torch.float32:
            assert not torch.allclose(coordinates.inv(value.clone()), z, rtol=tolerance)  # planted: without logarithms


@every_kind
@every_mask
def test_draws_of_several_chains_are_those_of_each(kind, mask):
    coordinates = made(kind, mask)
    z = torch.stack([numbers(coordinates), 2 * numbers(coordinates), numbers(coordinates) - 1])
    value = coordinates(z)
    assert value.shape == (3, *SHAPE)
    for one, each in zip(value, z, strict=True):
        assert torch.equal(one, coordinates(each))
    assert torch.allclose(coordinates.inv(value), z)
    mapped = torch.vmap(lambda z: logs_of(coordinates(z)))(z)
    assert torch.allclose(mapped, logs_of(value))


def test_without_a_mask_it_is_the_transform_of_torch():
    coordinates = made("rows", "all")
    z = numbers(coordinates)
    theirs = StickBreakingTransform()
    value, expected = coordinates(z), theirs(z)
    assert torch.allclose(value, expected)
    assert torch.allclose(coordinates.log_abs_det_jacobian(z, value), theirs.log_abs_det_jacobian(z, expected))
    assert torch.allclose(coordinates(torch.zeros_like(z)), torch.full(SHAPE, 0.25).double())


def test_a_mask_that_allows_all_is_none():
    full = StickBreaking(SHAPE, torch.ones(4, dtype=torch.bool))
    assert full.mask is None and full == made("rows", "all")
    assert full != made("rows", "padded") and made("rows", "padded") != made("rows", "causal")
    assert made("rows", "all") != made("entries", "all") and made("rows", "causal") == made("rows", "causal")


def test_the_uniform_row_has_its_density():
    """Three entries of which two take numbers, and a fourth that no mask allows; the density sums to 1."""
    grid = torch.linspace(-25, 25, 301, dtype=torch.float64)
    z = torch.cartesian_prod(grid, grid)
    mask = torch.tensor([True, False, True, True])
    coordinates = StickBreaking(torch.Size((1, 4)), mask)
    value = coordinates(z)
    density = math.lgamma(3) + coordinates.log_abs_det_jacobian(z, value).squeeze(-1)
    uniform = MaskedDirichlet(torch.ones(1, 4).double(), mask)
    assert torch.allclose(uniform.log_prob(value), torch.tensor(math.lgamma(3)).double())
    weights = density.exp() * (grid[1] - grid[0]) ** 2
    assert weights.sum().item() == pytest.approx(1.0, rel=1e-6)
    means = (weights.unsqueeze(-1) * value[:, 0]).sum(0)
    assert torch.allclose(means, torch.tensor([1.0, 0.0, 1.0, 1.0]).double() / 3, rtol=1e-5)
    squares = (weights * value[:, 0, 3].square()).sum()
    assert squares.item() == pytest.approx(2 / 12, rel=1e-5)  # a (a + 1) / n (n + 1)
    skewed = (weights * z[:, 0].exp()).sum()  # planted: as if numbers were measured otherwise
    assert skewed.item() != pytest.approx(1.0, rel=1e-3)


@every_mask
def test_single_precision_is_double_precision_at_the_edges(mask):
    coordinates = made("rows", mask)
    for scale in (1.0, 30.0, 300.0):
        z = numbers(coordinates, scale, torch.float32)
        fine, coarse = coordinates(z.double()), coordinates(z)
        logs = logs_of(fine)
        assert torch.allclose(logs_of(coarse).double(), logs, rtol=1e-5, atol=1e-5)
        assert torch.allclose(coarse.double(), fine, rtol=1e-3, atol=1e-30)
        volumes = [c.log_abs_det_jacobian(z, v).double() for c, v in ((coordinates, coarse), (coordinates, fine))]
        assert torch.allclose(*volumes, rtol=1e-5, atol=1e-5)
        law = MaskedDirichlet(torch.full(SHAPE, 0.3).double(), MASKS[mask])
        law_32 = MaskedDirichlet(torch.full(SHAPE, 0.3), MASKS[mask])
        assert torch.allclose(law_32.log_prob(coarse).double(), law.log_prob(fine), rtol=1e-4, atol=1e-4)
    linear = coarse.clone().clamp(min=torch.finfo(torch.float32).tiny)
    assert not torch.allclose(linear.log().double(), logs, rtol=1e-2)  # planted: logarithms of linear values


@every_kind
def test_gradients_are_finite_at_the_edges(kind):
    for mask in MASKS:
        coordinates = made(kind, mask)
        z = numbers(coordinates, 300.0, torch.float32).requires_grad_()
        value = coordinates(z)
        (logs_of(value).sum() + value.clamp(max=1.0).sum()).backward()
        assert z.grad.isfinite().all()
        zero = torch.zeros_like(z).requires_grad_()
        coordinates.log_abs_det_jacobian(zero, coordinates(zero)).sum().backward()
        by_hand = (numbers(coordinates) * 0).requires_grad_()
        step = 1e-6
        ahead, behind = (
            coordinates.log_abs_det_jacobian(by_hand + s, coordinates(by_hand + s)).sum().item() for s in (step, -step)
        )
        assert zero.grad.sum().item() == pytest.approx((ahead - behind) / (2 * step), rel=1e-4, abs=1e-4)


def test_values_without_logarithms_count_as_the_smallest_number():
    coordinates = StickBreaking(torch.Size((1, 2)), None)
    tiny = torch.finfo(torch.float64).tiny
    found = coordinates.inv(torch.tensor([[0.0, 1.0]]).double())
    assert found.item() == pytest.approx(math.log(tiny), rel=1e-6)
    carried = with_logs(torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[-5000.0, 0.0]]).double())
    assert coordinates.inv(carried).item() == -5000.0
