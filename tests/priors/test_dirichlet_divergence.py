"""Divergences, entropies and densities of Dirichlet rows against torch's in double precision."""

import pytest
import torch
from scipy import special
from torch.distributions import Dirichlet, kl_divergence

from pyroformer.priors import MaskedDirichlet
from pyroformer.priors.carried import logs_of
from pyroformer.priors.dirichlet.divergence import Divergence

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-10}
GENERATOR = torch.Generator().manual_seed(0)


def concentrations(low, high, shape=(300, 50)):
    """Log-uniform, and exact in single precision."""
    spread = torch.rand(shape, generator=GENERATOR.manual_seed(0), dtype=torch.float64)
    return (low * (high / low) ** spread).float().double()


C = concentrations(1e-2, 1e4)
NARROW = concentrations(1e-2, 1e2)
PAIRS = {
    "one number": (C, torch.tensor(1.0).double().expand(C.shape)),
    "small": (C, torch.tensor(0.02).float().double().expand(C.shape)),
    "one a row": (C, torch.linspace(0.1, 30, len(C)).double().unsqueeze(-1).expand(C.shape)),
    "one an entry": (C, concentrations(0.1, 100).flip(0)),
    "near": (NARROW, (1.1 * NARROW).float().double()),
}


def outcome(law, c, other):
    """Divergence and its gradients, by torch's Dirichlet or ours."""
    c, other = c.clone().requires_grad_(), other.clone().requires_grad_()
    kl = kl_divergence(law(c), law(other.expand(c.shape)))
    slopes = list(torch.autograd.grad(kl.sum(), (c, other)))
    if law is plain and c.dtype == torch.float64:  # torch's own trigamma is good to 1e-8
        total, total_other = (x.sum(-1, keepdim=True) for x in (c, other.expand(c.shape)))
        slopes[0] = ((c - other) * trigamma(c) - (total - total_other) * trigamma(total)).detach()
    return [kl.detach(), *slopes]


def trigamma(c):
    return torch.from_numpy(special.polygamma(1, c.detach().numpy()))


def plain(c):
    return Dirichlet(c, validate_args=False)


def error(found, exact):
    """The largest error relative to the largest number of each row."""
    if exact.dim() == 1:
        return ((found.double() - exact).abs() / exact.abs()).max()
    return ((found.double() - exact).abs() / exact.abs().amax(-1, keepdim=True)).max()


@DTYPES
@pytest.mark.parametrize("pair", PAIRS)
def test_divergence_and_its_gradients(pair, dtype):
    exact = outcome(plain, *PAIRS[pair])
    ours = outcome(MaskedDirichlet, *(c.to(dtype) for c in PAIRS[pair]))
    for found, wanted in zip(ours, exact, strict=True):
        assert error(found, wanted) < TOLERANCE[dtype]
        assert error(found * (1 + 2 * TOLERANCE[dtype]), wanted) > TOLERANCE[dtype]  # planted


@pytest.mark.parametrize("pair", PAIRS)
def test_single_precision_is_nearer_than_that_of_torch(pair):
    exact = outcome(plain, *PAIRS[pair])
    ours, theirs = (outcome(law, *(c.float() for c in PAIRS[pair])) for law in (MaskedDirichlet, plain))
    assert error(ours[0], exact[0]) < error(theirs[0], exact[0])


@DTYPES
def test_priors_that_repeat_are_not_spread_out_wrongly(dtype):
    c = C[:60].to(dtype).view(3, 4, 5, 50)
    for shape in [(), (1,), (50,), (5, 1), (4, 1, 1), (3, 1, 1, 50), (4, 5, 1), (3, 4, 5, 50)]:
        other = (torch.rand(shape, generator=GENERATOR.manual_seed(1), dtype=torch.float64) + 0.5).to(dtype)
        found, wanted = outcome(MaskedDirichlet, c, other), outcome(plain, c.double(), other.double())
        for ours, theirs in zip(found, wanted, strict=True):
            assert ours.shape == theirs.shape
            torch.testing.assert_close(ours.double(), theirs, rtol=50 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


@DTYPES
def test_entropy_and_density(dtype):
    c = concentrations(0.05, 1e3).to(dtype)
    rows = MaskedDirichlet(c).sample()
    logs = logs_of(rows).double()
    wide, ours = c.double(), MaskedDirichlet(c)
    exact = (torch.lgamma(wide.sum(-1)) - torch.lgamma(wide).sum(-1)) + ((wide - 1) * logs).sum(-1)
    terms = wide.abs().mul(logs.abs()).sum(-1)  # what the density is the small difference of
    assert ((ours.log_prob(rows).double() - exact).abs() / terms).max() < TOLERANCE[dtype] / 100
    entropy = Dirichlet(wide, validate_args=False).entropy()
    torch.testing.assert_close(ours.entropy().double(), entropy, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_divergence_by_monte_carlo(standard_errors):
    q, p = MaskedDirichlet(torch.tensor([0.3, 2.0, 7.0])), MaskedDirichlet(torch.tensor([1.0, 0.5, 4.0]))
    rows = q.sample((20_000,))
    ratio = (q.log_prob(rows) - p.log_prob(rows)).double()
    assert standard_errors(ratio, kl_divergence(q, p).double()) < 5
    assert standard_errors(-q.log_prob(rows).double(), q.entropy().double()) < 5
    assert standard_errors(ratio, kl_divergence(p, q).double()) > 5  # planted: the other direction


@DTYPES
def test_gradients_are_differences(dtype):
    """Against central differences in double precision, with masked entries."""
    mask = torch.tensor([[True, True, False, True], [False, True, True, False]])
    c, other = (torch.rand(2, 4, generator=GENERATOR.manual_seed(s), dtype=torch.float64) + 0.5 for s in (1, 2))
    for law in (
        lambda c, o: kl_divergence(MaskedDirichlet(c, mask), MaskedDirichlet(o, mask)).sum(),
        lambda c, o: MaskedDirichlet(c, mask).entropy().sum() + 0 * o.sum(),
    ):
        leaves = [t.to(dtype).requires_grad_() for t in (c, other)]
        slopes = torch.autograd.grad(law(*leaves), leaves)
        for which in (0, 1):
            for index in [(0, 0), (0, 2), (1, 1), (1, 2)]:
                moved = [[t.clone() for t in (c, other)] for _ in range(2)]
                moved[0][which][index] += 1e-5
                moved[1][which][index] -= 1e-5
                difference = (law(*moved[0]) - law(*moved[1])) / 2e-5
                assert abs(slopes[which][index].item() - difference.item()) < 1e-4


SYMMETRIC = {"one number": torch.tensor(1.0), "small": torch.tensor(0.02), "one a row": torch.linspace(0.1, 30, 300)}


def after_a_draw(c, other, mask=None):
    """Divergence, entropy and their gradients from concentrations that were drawn from."""
    leaf = c.clone().requires_grad_()
    q = MaskedDirichlet(1 * leaf, mask)
    q.rsample()
    values = kl_divergence(q, MaskedDirichlet(other.expand(c.shape), mask)), q.entropy()
    slopes = [torch.autograd.grad(value.sum(), leaf, retain_graph=True)[0] for value in values]
    return [value.detach() for value in values], slopes


@pytest.fixture
def no_entries(monkeypatch):
    """Divergences must not be found entry by entry."""
    monkeypatch.setattr(Divergence, "forward", staticmethod(lambda *arguments: pytest.fail("entry by entry")))


@DTYPES
@pytest.mark.parametrize("name", SYMMETRIC)
def test_divergence_from_equal_concentrations_after_a_draw(name, dtype, no_entries):
    other = SYMMETRIC[name].to(dtype).unsqueeze(-1)
    values, slopes = after_a_draw(C.to(dtype), other)
    c, other = C.clone().requires_grad_(), other.double().expand(C.shape)
    kl, entropy = kl_divergence(plain(c), plain(other)).detach(), plain(c).entropy().detach()
    slope = (C - other) * trigamma(C) - (C - other).sum(-1, keepdim=True) * trigamma(C.sum(-1, keepdim=True))
    of_entropy = -((C - 1) * trigamma(C) - (C - 1).sum(-1, keepdim=True) * trigamma(C.sum(-1, keepdim=True)))
    for found, wanted in zip((*values, *slopes), (kl, entropy, slope, of_entropy), strict=True):
        assert error(found, wanted) < TOLERANCE[dtype]
        assert error(found * (1 + 2 * TOLERANCE[dtype]), wanted) > TOLERANCE[dtype]  # planted


@DTYPES
def test_masked_divergence_after_a_draw(dtype, no_entries):
    mask = torch.arange(50) < torch.tensor([50, 20, 1, 0]).unsqueeze(-1).repeat_interleave(2, 0)
    c = C[:8].to(dtype)
    values, slopes = after_a_draw(c, torch.tensor([0.5], dtype=dtype), mask)
    for i, count in enumerate([50, 50, 20, 20, 1, 1]):
        short = after_a_draw(c[i : i + 1, :count], torch.tensor([0.5], dtype=dtype))
        for found, wanted in zip((*values, *slopes), (*short[0], *short[1]), strict=True):
            kept = found[i] if found.dim() == 1 else found[i, :count]
            torch.testing.assert_close(kept, wanted[0], rtol=10 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])
    assert not values[0][-2:].any() and all(not slope[~mask].any() for slope in slopes)


@DTYPES
def test_near_symmetric_rows_after_a_draw(dtype, no_entries):
    """The sums cancel, to roundings of their size."""
    for level in (0.1, 1.0, 30.0, 1000.0):
        c = (level * (1 + 0.1 * concentrations(0.5, 1.0))).to(dtype)
        other = torch.tensor([level], dtype=dtype)
        (kl, _), (slope, _) = after_a_draw(c, other)
        exact, in_c, _ = outcome(plain, c.double(), other.double())
        size = 8 * torch.finfo(dtype).eps * 50 * (1 + level * abs(torch.tensor(level).log()))
        assert (kl.double() - exact).abs().max() < size
        assert (kl.double() + 2 * size - exact).abs().max() > size  # planted
        torch.testing.assert_close(slope.double(), in_c, rtol=1e-3, atol=4 * torch.finfo(dtype).eps)


def test_what_a_draw_left_is_not_used_for_other_concentrations():
    other = MaskedDirichlet(torch.ones(()).expand(4))
    leaf = torch.tensor([0.5, 1.0, 2.0, 4.0], requires_grad=True)
    law = MaskedDirichlet(leaf.view(4))
    law.rsample()
    before = kl_divergence(law, other)
    with torch.no_grad():
        leaf.mul_(2)
    torch.testing.assert_close(kl_divergence(law, other), kl_divergence(MaskedDirichlet(leaf), other))
    assert not torch.allclose(before, kl_divergence(law, other))  # planted: it has changed
    law = MaskedDirichlet(leaf)  # the graph of a draw of a leaf may be gone
    law.rsample().square().sum().backward()
    kl_divergence(law, other).backward()


def test_second_derivatives_are_refused():
    leaf = torch.ones(3, requires_grad=True)
    law = MaskedDirichlet(leaf)
    row = law.rsample()
    for value in (row.square().sum(), logs_of(row).sum(), law.entropy(), law.log_prob(row.detach())):
        (slope,) = torch.autograd.grad(value, leaf, create_graph=True)
        with pytest.raises(NotImplementedError, match="first derivatives only"):
            torch.autograd.grad(slope.square().sum(), leaf)


def test_vmap_equals_a_batch():
    c, other = C[:6, :5].reshape(2, 3, 5), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64).unsqueeze(-1)
    mask = torch.tensor([True, True, False, True, True])

    def forms(c):
        q, p = MaskedDirichlet(c, mask), MaskedDirichlet(other.expand(c.shape), mask)
        return kl_divergence(q, p), q.entropy(), q.log_prob(torch.full_like(c, 0.25))

    for ours, whole in zip(torch.func.vmap(forms)(c), forms(c), strict=True):
        torch.testing.assert_close(ours, whole)
    slopes = torch.func.vmap(torch.func.grad(lambda c: forms(c)[0].sum()))(c)
    leaf = c.clone().requires_grad_()
    torch.testing.assert_close(slopes, torch.autograd.grad(forms(leaf)[0].sum(), leaf)[0])


def test_draws_under_vmap(standard_errors):
    c = torch.tensor([[0.5, 1.0, 3.0], [4.0, 0.2, 0.1]], dtype=torch.float64).unsqueeze(1).expand(2, 20_000, 3)
    rows = torch.func.vmap(lambda c: MaskedDirichlet(c).rsample(), randomness="different")(c)
    for found, own in zip(rows, c[:, 0], strict=True):
        assert standard_errors(found, own / own.sum()) < 5
    assert standard_errors(rows[0], c[1, 0] / c[1, 0].sum()) > 5  # planted
    with pytest.raises(RuntimeError, match="different"):
        torch.func.vmap(lambda c: MaskedDirichlet(c).rsample())(c)
