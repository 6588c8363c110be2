"""Draws of Dirichlet rows from concentrations of 1e-3 to 1e6, in both precisions, with and without masked entries."""

import threading

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch.distributions import kl_divergence

from pyroformer.priors import MaskedDirichlet
from pyroformer.priors.carried import logs_of, with_logs

FIVE_SIGMA = 2 * stats.norm.sf(5)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
SCALES = pytest.mark.parametrize("scale", [1e-3, 1e-2, 0.1, 1.0, 10.0, 1e3, 1e6])
MASKS = pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
SHAPE = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64)
MASK = torch.tensor([True, False, True, False, True])


def rows(scale, dtype, masked):
    """Dirichlet rows of three valid entries, the same whether or not masked ones stand between."""
    if not masked:
        return MaskedDirichlet((scale * SHAPE).to(dtype))
    concentration = torch.full((5,), torch.nan, dtype=dtype)
    concentration[MASK] = (scale * SHAPE).to(dtype)
    return MaskedDirichlet(concentration, MASK, validate_args=False)


def drawn_logs(scale, dtype, masked, draws):
    logs = logs_of(rows(scale, dtype, masked).sample((draws,))).double()
    return logs[:, MASK] if masked else logs


def log_beta_cdf(c, rest):
    """The distribution of the logarithm of a Beta variable, also where that is below every float."""

    def cdf(logs):
        far = np.exp(np.minimum(c * logs - np.log(c) - special.betaln(c, rest), 0.0))
        return np.where(logs > -30, special.betainc(c, rest, np.exp(np.maximum(logs, -30))), far)

    return cdf


def p_values(logs, scale):
    """Of every entry. Values near 1 are not told apart by their logarithms: above 1/2 only their number counts."""
    c, generator = (scale * SHAPE).numpy(), np.random.default_rng(0)
    found = []
    for j in range(3):
        cdf = log_beta_cdf(c[j], c.sum() - c[j])
        values, half = logs[:, j].numpy(), np.log(0.5)
        quantiles = np.where(values < half, cdf(values), generator.uniform(cdf(half), 1, len(values)))
        found.append(stats.kstest(quantiles, "uniform").pvalue)
    return found


@DTYPES
@SCALES
@MASKS
def test_marginals_are_beta(scale, dtype, masked):
    logs = drawn_logs(scale, dtype, masked, 4000)
    assert min(p_values(logs, scale)) > FIVE_SIGMA
    assert min(p_values(logs, 2 * scale)) < FIVE_SIGMA  # planted: twice the concentration


def test_linear_values_lose_what_the_logarithms_keep():
    draws = MaskedDirichlet((1e-2 * SHAPE).float()).sample((4000,))
    linear = draws.clone()
    assert min(p_values(logs_of(draws).double(), 1e-2)) > FIVE_SIGMA
    assert min(p_values(logs_of(linear).double(), 1e-2)) < FIVE_SIGMA  # planted: logarithms of the values themselves


@DTYPES
@SCALES
@MASKS
def test_moments(scale, dtype, masked, standard_errors):
    logs = drawn_logs(scale, dtype, masked, 20_000)
    c = scale * SHAPE
    mean = torch.digamma(c) - torch.digamma(c.sum())
    covariance = torch.polygamma(1, c).diag() - torch.polygamma(1, c.sum())
    products = (logs - mean)[:, :, None] * (logs - mean)[:, None, :]
    assert standard_errors(logs, mean) < 5
    assert standard_errors(products, covariance) < 5
    assert standard_errors(products, 1.2 * covariance) > 5  # planted
    total = c.sum()
    linear = logs.exp()
    second = (c[:, None] * c + c.diag()) / (total * (total + 1))
    centred = (linear - c / total)[:, :, None] * (linear - c / total)[:, None, :]
    assert standard_errors(linear, c / total) < 5
    assert standard_errors(centred, second - c[:, None] * c / total**2) < 5


@DTYPES
@MASKS
@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-10, 1e-6, 1e-3, 1.0, 1e6, 1e10, 1e20])
def test_everything_stays_finite(scale, dtype, masked):
    spread = torch.tensor([1e-3, 1.0, 1.0, 1e3, 1.0], dtype=dtype)
    leaf = (scale * spread).clamp(min=torch.finfo(dtype).tiny).expand(400, 5).clone().requires_grad_()
    other = leaf.detach().flip(-1).clone().requires_grad_()
    q, p = (MaskedDirichlet(c, MASK if masked else None) for c in (leaf, other))
    row = q.rsample()
    logs = logs_of(row)
    parts = [row.square(), logs / leaf.shape[-1], q.log_prob(row), q.entropy(), kl_divergence(q, p)]
    assert all(torch.isfinite(part).all() for part in parts)
    torch.testing.assert_close(row.sum(-1), torch.ones(400, dtype=dtype))
    for part in parts:
        found = torch.autograd.grad(part.sum(), (leaf, other), retain_graph=True, allow_unused=True)
        assert all(slope is None or torch.isfinite(slope).all() for slope in found)


@DTYPES
def test_faint_rows_have_a_single_entry(dtype):
    draws = MaskedDirichlet(torch.full((400, 8), 1e-5, dtype=dtype)).sample()
    assert draws.amax(-1).min() > 0.99  # and are not uniform, as where all gamma variables come out 0
    assert draws.argmax(-1).unique().numel() == 8


def weighted_square(row):
    return (row.square() * torch.arange(1, row.shape[-1] + 1, dtype=row.dtype)).sum(-1)


def weighted_entropy(row):
    return (row * logs_of(row) * torch.arange(1, row.shape[-1] + 1, dtype=row.dtype)).sum(-1)


def exact(function, c):
    total, weights = c.sum(), torch.arange(1, len(c) + 1, dtype=c.dtype)
    if function is weighted_square:
        return (weights * c * (c + 1)).sum() / (total * (total + 1))
    return (weights * c / total * (torch.digamma(c + 1) - torch.digamma(total + 1))).sum()


@DTYPES
@pytest.mark.parametrize("function", [weighted_square, weighted_entropy])
@pytest.mark.parametrize("c", [[0.02, 0.3, 1.5, 8.0], [0.05, 0.05, 0.1, 0.2, 0.6], [40.0, 3.0, 0.5, 200.0]], ids=str)
def test_gradients_of_expectations(function, c, dtype, standard_errors):
    c = torch.tensor(c, dtype=torch.float64, requires_grad=True)
    value = exact(function, c)
    (slope,) = torch.autograd.grad(value, c)
    leaf = c.detach().to(dtype).expand(60_000, -1).clone().requires_grad_()
    values = function(MaskedDirichlet(leaf).rsample())
    (slopes,) = torch.autograd.grad(values.sum(), leaf)
    assert standard_errors(values.detach().double(), value.detach()) < 5
    assert standard_errors(slopes.double(), slope) < 5
    assert standard_errors(1.2 * slopes.double(), slope) > 5  # planted


def test_density_of_draws_agrees_with_the_divergence(standard_errors):
    logits = 2 * torch.randn(32, generator=torch.Generator().manual_seed(3))
    q = MaskedDirichlet(10 * logits.softmax(-1) + 1e-2)
    p = MaskedDirichlet(torch.ones(32))
    draws = q.expand((20_000,)).sample()

    def ratio(value):
        return (q.log_prob(value) - p.log_prob(value)).double()

    kl = kl_divergence(q, p).double()
    assert standard_errors(ratio(draws), kl) < 5
    assert standard_errors(ratio(draws.clone()), kl) > 5  # planted: the density of the linear values


def test_density_and_draws_have_gradients_through_the_logarithms():
    leaf = torch.tensor([0.02, 1.0, 3.0], dtype=torch.float64, requires_grad=True)
    logs = torch.tensor([-50.0, -0.7, -0.7], dtype=torch.float64, requires_grad=True)
    value = with_logs(logs.exp(), logs)
    by_hand = torch.lgamma(leaf.sum()) - torch.lgamma(leaf).sum() + ((leaf - 1) * logs).sum()
    ours = MaskedDirichlet(leaf).log_prob(value)
    torch.testing.assert_close(ours, by_hand)
    for found, wanted in zip(
        torch.autograd.grad(ours, (leaf, logs)), torch.autograd.grad(by_hand, (leaf, logs)), strict=True
    ):
        torch.testing.assert_close(found, wanted)


@DTYPES
def test_draws_follow_the_seed(dtype):
    law = MaskedDirichlet(torch.rand(300, 20, dtype=dtype) + 0.01)
    first, second = (torch.manual_seed(seed) and law.sample() for seed in (5, 5))
    assert torch.equal(first, second) and torch.equal(logs_of(first), logs_of(second))
    assert not torch.equal(first, law.sample())  # planted: the stream goes on


def test_rows_are_cut_into_pieces_without_a_seam(standard_errors):
    """More rows than one piece holds, of which each has a concentration of its own."""
    leaf = torch.linspace(0.1, 30, 9000).unsqueeze(-1).expand(-1, 7).clone().requires_grad_()
    other = torch.linspace(2, 4, 9000).unsqueeze(-1).expand(-1, 7)
    q, p = MaskedDirichlet(leaf), MaskedDirichlet(other)
    kl = kl_divergence(q, p)
    short = [kl_divergence(MaskedDirichlet(leaf[i]), MaskedDirichlet(other[i])) for i in (0, 4321, 8999)]
    torch.testing.assert_close(kl[[0, 4321, 8999]], torch.stack(short))
    draws = logs_of(q.sample()).double()
    mean = torch.digamma(leaf.detach().double()) - torch.digamma(7 * leaf.detach().double())
    scale = (torch.polygamma(1, leaf.detach().double()) - torch.polygamma(1, 7 * leaf.detach().double())).sqrt()
    assert standard_errors((draws - mean) / scale, 0.0) < 5
    assert standard_errors((draws.roll(1000, 0) - mean) / scale, 0.0) > 5  # planted: rows that changed places


def test_threads_draw_at_once(standard_errors):
    c = (torch.tensor([0.3, 2.0, 5.0])).expand(20_000, 3)
    found = [None] * 2

    def work(index):
        found[index] = MaskedDirichlet(c).sample()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not torch.equal(*found)
    for draws in found:
        assert standard_errors(draws.double(), c[0].double() / c[0].sum()) < 5


def test_several_threads_of_torch_draw_the_same_law(standard_errors):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        c = torch.tensor([0.3, 2.0, 5.0]).expand(60_000, 3)
        draws = MaskedDirichlet(c).sample().double()
    finally:
        torch.set_num_threads(threads)
    assert standard_errors(draws, c[0].double() / c[0].sum()) < 5


@MASKS
@DTYPES
def test_the_gradient_of_a_sum_of_logs_counts_every_entry(dtype, masked):
    """E sum ln a = sum psi(c) - n psi(S), whose slope in c_j is psi1(c_j) - n psi1(S)."""
    c = torch.tensor([1.0, 0.5, 2.0, 1.0], dtype=dtype).expand(20_000, 4).clone().requires_grad_()
    mask = torch.tensor([True, True, True, not masked])
    logs_of(MaskedDirichlet(c, mask if masked else None).rsample())[:, :3].sum(-1).sum().backward()
    if not masked:  # all entries at once, by one number a row
        c.grad = None
        logs_of(MaskedDirichlet(c).rsample()).sum(-1).sum().backward()
    count = 3 if masked else 4
    slopes = c.grad[:, :count].double()
    kept = c.detach()[0, :count].double()
    exact = torch.polygamma(1, kept) - count * torch.polygamma(1, kept.sum())
    error = slopes.std(0) / len(slopes) ** 0.5
    assert ((slopes.mean(0) - exact).abs() < 5 * error).all()
    once = torch.polygamma(1, kept) - torch.polygamma(1, kept.sum())  # planted: the sum counted once
    assert ((slopes.mean(0) - once).abs() > 5 * error).all()


def test_concentrations_may_lie_in_memory_in_any_order():
    torch.manual_seed(0)
    turned = MaskedDirichlet((torch.rand(5, 300) + 0.1).T).sample()
    assert turned.shape == (300, 5) and torch.allclose(turned.sum(-1), torch.ones(300))
    torch.manual_seed(0)
    plain = MaskedDirichlet((torch.rand(5, 300) + 0.1).T.contiguous()).sample()
    assert torch.equal(turned, plain)


@DTYPES
def test_draws_do_not_depend_on_whether_gradients_are_asked_for(dtype):
    leaf = (torch.rand(300, 20, dtype=dtype) + 0.01).requires_grad_()
    draws = []
    for draw in (MaskedDirichlet(leaf).rsample, MaskedDirichlet(leaf).sample):
        torch.manual_seed(1)
        draws.append(draw())
    assert draws[0].requires_grad and not draws[1].requires_grad
    assert torch.equal(*draws) and torch.equal(*map(logs_of, draws))


def test_gradients_under_vmap():
    """Of leaves outside, which tensors inside do not tell, and of `torch.func.grad` inside."""
    leaf = torch.tensor([[0.5, 1.0, 3.0], [4.0, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)

    def value(c):
        return (MaskedDirichlet(c).rsample() * weights).sum()

    torch.manual_seed(0)
    (outside,) = torch.autograd.grad(torch.func.vmap(value, randomness="different")(leaf).sum(), leaf)
    torch.manual_seed(0)
    inside = torch.func.vmap(torch.func.grad(value), randomness="different")(leaf.detach())
    torch.manual_seed(0)
    (plain,) = torch.autograd.grad((MaskedDirichlet(leaf).rsample() * weights).sum(), leaf)
    assert plain.any()
    torch.testing.assert_close(outside, plain)
    torch.testing.assert_close(inside, plain)


@pytest.mark.parametrize("rows", [4, 9000], ids=["one piece", "pieces"])
def test_what_is_kept_for_the_gradient_is_no_larger_than_it_looks(rows):
    """Not views of the tables that they were computed in."""
    leaf = torch.ones(rows, 20, requires_grad=True)
    row = MaskedDirichlet(leaf).rsample()
    for kept in (row, logs_of(row), *row.grad_fn.saved_tensors):
        assert kept is None or kept.untyped_storage().nbytes() == kept.nbytes
