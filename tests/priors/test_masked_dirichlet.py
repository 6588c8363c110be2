"""A row with masked entries is, in every closed form, the Dirichlet of its valid entries alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence

from pyroformer.priors import MaskedDirichlet

MASK = torch.tensor(
    [
        [True, True, True, True, True],
        [True, True, False, False, False],
        [False, True, False, True, True],
        [False, False, False, False, True],
    ]
)
TOLERANCE = {torch.float32: {"rtol": 2e-5, "atol": 2e-5}, torch.float64: {"rtol": 1e-11, "atol": 1e-11}}
# Torch's own gradient of digamma is good to 1e-8; test_dirichlet_divergence.py has exact ones.
BY_TRIGAMMA = {torch.float32: TOLERANCE[torch.float32], torch.float64: {"rtol": 2e-8, "atol": 1e-11}}


def concentrations(seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(MASK.shape, generator=generator, dtype=torch.float64).exp() * 2).to(dtype)


def rows_of(concentration):
    """A value of every row, which is a point of the simplex over its valid entries."""
    return MaskedDirichlet(concentration, MASK).sample()


@pytest.fixture(params=[torch.float32, torch.float64], ids=str)
def dtype(request):
    return request.param


CLOSED_FORMS = {
    "log_prob": lambda p, q, rows: p.log_prob(rows),
    "entropy": lambda p, q, rows: p.entropy(),
    "kl": lambda p, q, rows: kl_divergence(p, q),
    "mean": lambda p, q, rows: p.mean,
    "variance": lambda p, q, rows: p.variance,
    "gradient of log_prob": lambda p, q, rows: gradient(p, p.log_prob(rows)),
    "gradient of entropy": lambda p, q, rows: gradient(p, p.entropy()),
    "gradient of kl": lambda p, q, rows: gradient(p, kl_divergence(p, q)),
    "gradient of kl in q": lambda p, q, rows: gradient(q, kl_divergence(p, q)),
}


def gradient(distribution, values):
    leaf = distribution.leaf
    return torch.autograd.grad(values.sum() + 0 * leaf.sum(), leaf)[0]


def made(concentration, mask=None):
    leaf = concentration.clone().requires_grad_()
    distribution = Dirichlet(leaf, validate_args=False) if mask is None else MaskedDirichlet(leaf, mask)
    distribution.leaf = leaf
    return distribution


@pytest.mark.parametrize("form", CLOSED_FORMS)
def test_closed_forms_are_those_of_the_shorter_row(form, dtype):
    a, b = concentrations(1, dtype), concentrations(2, dtype)
    rows = rows_of(a)
    found = CLOSED_FORMS[form](made(a, MASK), made(b, MASK), rows)
    padded = CLOSED_FORMS[form](made(a), made(b), torch.where(MASK, rows, 1e-3))
    tolerance = (BY_TRIGAMMA if form in ("gradient of entropy", "gradient of kl") else TOLERANCE)[dtype]
    for i, valid in enumerate(MASK):
        short = CLOSED_FORMS[form](made(a[i, valid]), made(b[i, valid]), rows[i, valid])
        if found.dim() == 2:  # one number an entry
            assert not found[i, ~valid].any()
            torch.testing.assert_close(found[i, valid], short, **tolerance)
        else:
            torch.testing.assert_close(found[i], short, **tolerance)
    torch.testing.assert_close(found[0], padded[0], **tolerance)
    assert not torch.allclose(found[1], padded[1], rtol=1e-2)  # planted: masked entries that count


@pytest.mark.parametrize("mask", [None, torch.ones(5, dtype=torch.bool)])
def test_without_masked_entries_it_is_the_dirichlet(mask, dtype):
    a = concentrations(1, dtype)
    found, oracle = MaskedDirichlet(a, mask), Dirichlet(a)
    rows = oracle.sample((7,))
    for ours, theirs in [
        (found.log_prob(rows), oracle.log_prob(rows)),
        (found.entropy(), oracle.entropy()),
        (found.mean, oracle.mean),
        (found.variance, oracle.variance),
    ]:
        torch.testing.assert_close(ours, theirs, **TOLERANCE[dtype])


def test_a_row_without_valid_entries_is_nothing(dtype):
    leaf, other = torch.full((2, 3), 0.4, dtype=dtype), torch.full((2, 3), 7.0, dtype=dtype)
    leaf.requires_grad_()
    none = torch.zeros(3, dtype=torch.bool)
    empty, prior = MaskedDirichlet(leaf, none), MaskedDirichlet(other, none)
    row = empty.rsample((4,))
    numbers = [row, empty.log_prob(row), empty.entropy(), kl_divergence(empty, prior), empty.mean, empty.variance]
    assert all(not number.any() for number in numbers)
    (slope,) = torch.autograd.grad(sum(number.sum() for number in numbers), leaf)
    assert not slope.any()


def test_what_stands_in_masked_entries_does_not_matter(dtype):
    a = concentrations(1, dtype)
    clean = MaskedDirichlet(a, MASK)
    leaf = torch.where(MASK, a, torch.nan).requires_grad_()
    dirty = MaskedDirichlet(leaf, MASK)
    rows = rows_of(a)
    torch.testing.assert_close(dirty.log_prob(rows), clean.log_prob(rows))
    torch.testing.assert_close(dirty.log_prob(torch.where(MASK, rows, torch.nan)), clean.log_prob(rows))
    total = dirty.rsample().square().sum() + dirty.log_prob(rows).sum() + dirty.entropy().sum()
    assert torch.isfinite(torch.autograd.grad(total, leaf)[0]).all()


def test_concentrations_are_checked_where_they_count():
    with pytest.raises(ValueError, match="concentration"):
        MaskedDirichlet(torch.tensor([1.0, -1.0]), torch.tensor([True, True]), validate_args=True)
    MaskedDirichlet(torch.tensor([1.0, -1.0]), torch.tensor([True, False]), validate_args=True)


def test_expanding_repeats_the_law_and_not_the_draws(dtype):
    a = concentrations(1, dtype)
    one = MaskedDirichlet(a, MASK)
    many = one.expand((6, 3, len(a)))
    assert many.batch_shape == (6, 3, len(a)) and many.event_shape == one.event_shape
    rows = many.rsample((2,))
    assert rows.shape == (2, 6, 3, *a.shape) and rows.dtype == dtype
    assert not rows.masked_select(~MASK).any()
    torch.testing.assert_close(many.log_prob(rows), one.log_prob(rows))
    torch.testing.assert_close(many.entropy()[4, 1], one.entropy())
    assert (rows[:, 0, 0, 0] != rows[:, 1, 0, 0]).all()


def test_masks_broadcast_over_the_rows():
    a = concentrations(1, torch.float64)
    shared = MaskedDirichlet(a, MASK[2])
    for i in range(len(a)):
        torch.testing.assert_close(shared.entropy()[i], Dirichlet(a[i, MASK[2]]).entropy())


def test_it_is_a_site_like_any_other():
    a = concentrations(1, torch.float64)

    def model():
        with pyro.plate("data", 6, dim=-1):
            return pyro.sample("rows", MaskedDirichlet(a, MASK).expand((6, 4)).to_event(1))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["rows"]["log_prob"].shape == (6,)
    p, q = (MaskedDirichlet(concentrations(s, torch.float64), MASK).to_event(1) for s in (1, 2))
    torch.testing.assert_close(kl_divergence(p, q), kl_divergence(p.base_dist, q.base_dist).sum())
    assert isinstance(p, dist.Independent)


@pytest.mark.parametrize("total", [1e-2, 1.0, 1e6])
def test_extreme_concentrations_stay_finite(total, dtype):
    leaf = (total * concentrations(1, dtype).softmax(-1)).requires_grad_()
    rows = MaskedDirichlet(leaf, MASK)
    draw = rows.rsample((50,))
    torch.testing.assert_close(draw.sum(-1), torch.ones(50, len(MASK), dtype=dtype))
    loss = (draw.square().sum() + rows.log_prob(draw.detach()).sum() + rows.entropy().sum()) / 50
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, leaf)[0]).all()
