"""Laws of rows: densities, draws and moments, with masks and at the edges of float32."""

import math

import pyro
import pytest
import torch
from scipy import stats

from pyroformer.priors import (
    MaskedDirichlet,
    MaskedGamma,
    MaskedGumbelSoftmax,
    MaskedLogisticNormal,
    MaskedLogNormal,
    MaskedWeibull,
)
from pyroformer.priors.carried import logs_of, with_logs

FIVE_SIGMA = 2 * stats.norm.sf(5)
MASK = torch.tensor(
    [
        [True, True, True, True, True],
        [True, True, False, False, False],
        [False, True, False, True, True],
        [False, False, False, False, True],
    ]
)
NUMBERS = torch.randn(MASK.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SECOND = torch.tensor([[0.6], [1.3], [0.9], [2.0]], dtype=torch.float64)
LAWS = {
    "gamma": lambda numbers, second, mask=None: MaskedGamma(numbers.exp(), second, mask),
    "weibull": lambda numbers, second, mask=None: MaskedWeibull(numbers, second, mask),
    "log_normal": lambda numbers, second, mask=None: MaskedLogNormal(numbers, second, mask),
    "logistic_normal": lambda numbers, second, mask=None: MaskedLogisticNormal(numbers, second, mask),
    "gumbel_softmax": lambda numbers, second, mask=None: MaskedGumbelSoftmax(numbers, second, mask),
}
POSITIVE = ("gamma", "weibull", "log_normal")
every_law = pytest.mark.parametrize("name", LAWS)


def alr_normal(row, loc, scale):
    """The logistic-normal density by that of the log-ratios to the last entry, which are jointly normal."""
    n = len(row) - 1
    covariance = scale**2 * (torch.eye(n).double() + 1).numpy()
    ratios = (row[:-1] / row[-1]).log().numpy()
    return stats.multivariate_normal.logpdf(ratios, (loc[:-1] - loc[-1]).numpy(), covariance) - row.log().sum().item()


def concrete(row, loc, temperature):
    """Maddison et al., 2017, the density of the Concrete distribution."""
    alpha, n = (temperature * loc).exp(), len(row)
    ratio = (alpha * row ** (-temperature - 1)).log().sum() - n * (alpha * row**-temperature).sum().log()
    return math.lgamma(n) + (n - 1) * math.log(temperature) + ratio.item()


DENSITIES = {
    "gamma": lambda s, numbers, second: stats.gamma.logpdf(s, numbers.exp(), scale=1 / second).sum(),
    "weibull": lambda s, numbers, second: stats.weibull_min.logpdf(
        s, second, scale=numbers.exp() / math.gamma(1 + 1 / second)
    ).sum(),
    "log_normal": lambda s, numbers, second: stats.lognorm.logpdf(s, second, scale=numbers.exp()).sum(),
    "logistic_normal": alr_normal,
    "gumbel_softmax": concrete,
}


@every_law
def test_densities_are_those_of_others(name):
    law = LAWS[name](NUMBERS, SECOND)
    value = law.sample()
    found = law.log_prob(value)
    for i in range(len(value)):
        expected = float(DENSITIES[name](value[i], NUMBERS[i], SECOND[i].item()))
        assert found[i].item() == pytest.approx(expected, rel=1e-9)
        planted = float(DENSITIES[name](value[i], NUMBERS[i], 1.1 * SECOND[i].item()))
        assert found[i].item() != pytest.approx(planted, rel=1e-3)


@pytest.mark.parametrize("name", ["logistic_normal", "gumbel_softmax"])
def test_densities_on_the_simplex_sum_to_one(name):
    """By the values of a Dirichlet, which has the same measure."""
    law, proposal = LAWS[name](NUMBERS[0, :3], SECOND[1]), MaskedDirichlet(torch.tensor([1.0, 1.0, 1.0]).double())
    rows = proposal.sample((40000,))
    weights = (law.log_prob(rows) - proposal.log_prob(rows)).exp()
    error = weights.std() / len(weights) ** 0.5
    assert (weights.mean() - 1).abs() < 5 * error
    assert (1.1 * weights.mean() - 1).abs() > 5 * error  # planted


def marginals(name, value, numbers, second):
    """What is distributed by a known law of one dimension, and that law."""
    if name == "gamma":
        return value[:, 0], stats.gamma(math.exp(numbers[0]), scale=1 / second)
    if name == "weibull":
        return value[:, 0], stats.weibull_min(second, scale=math.exp(numbers[0]) / math.gamma(1 + 1 / second))
    if name == "log_normal":
        return value[:, 0], stats.lognorm(second, scale=math.exp(numbers[0]))
    ratios, difference = (value[:, 0] / value[:, 1]).log(), (numbers[0] - numbers[1]).item()
    if name == "logistic_normal":
        return ratios, stats.norm(difference, 2**0.5 * second)
    return ratios, stats.logistic(difference, 1 / second)  # the difference of two Gumbel variables


@every_law
@pytest.mark.parametrize("mask", [None, MASK[:2]], ids=["whole", "masked"])
def test_draws_have_the_law(name, mask):
    row = 1
    second = SECOND[row].item()
    value = LAWS[name](NUMBERS[:2], SECOND[:2], mask).sample((4000,))[:, row]
    draws, law = marginals(name, value, NUMBERS[row], second)
    assert stats.kstest(draws.numpy(), law.cdf).pvalue > FIVE_SIGMA
    draws, law = marginals(name, value, NUMBERS[row] + torch.tensor([0.5, 0, 0, 0, 0]), second)
    assert stats.kstest(draws.numpy(), law.cdf).pvalue < FIVE_SIGMA  # planted


@every_law
def test_masked_rows_are_the_shorter_rows(name):
    leaf = NUMBERS.clone().requires_grad_()
    law = LAWS[name](torch.where(MASK, leaf, torch.nan), SECOND, MASK)
    whole = LAWS[name](NUMBERS, SECOND)
    value = law.sample()
    assert not value[~MASK].any() and (value[MASK] > 0).all()
    density = law.log_prob(torch.where(MASK, value, torch.nan))
    (slope,) = torch.autograd.grad(density.sum(), leaf)
    assert slope.isfinite().all() and not slope[~MASK].any()
    for i, valid in enumerate(MASK):
        short = LAWS[name](NUMBERS[i, valid], SECOND[i])
        torch.testing.assert_close(density[i], short.log_prob(value[i, valid]))
        torch.testing.assert_close(law.plug_in[i, valid], short.plug_in)
        if name in POSITIVE:
            torch.testing.assert_close(law.entropy()[i], short.entropy())
            torch.testing.assert_close(law.mean[i, valid], short.mean)
    filled = torch.where(MASK, value, 1e-3)
    assert not torch.allclose(density[1:], whole.log_prob(filled)[1:], rtol=1e-2)  # planted: masked entries that count


@every_law
def test_a_row_without_valid_entries_is_nothing(name):
    none = torch.zeros(5, dtype=torch.bool)
    leaf = NUMBERS.clone().requires_grad_()
    law = LAWS[name](leaf, SECOND, none)
    value = law.rsample((3,))
    numbers = [value, law.log_prob(value), law.plug_in, *([law.entropy()] if name in POSITIVE else [])]
    assert all(not number.any() for number in numbers)
    (slope,) = torch.autograd.grad(sum(number.sum() for number in numbers), leaf)
    assert not slope.any()


@every_law
def test_moments_and_entropies(name, standard_errors):
    law = LAWS[name](NUMBERS, SECOND, MASK)
    value = law.sample((20000,))
    if name not in POSITIVE:
        with pytest.raises(NotImplementedError):
            law.entropy()
        return
    # tails are heavy at some of these scales: logarithms of rows are compared, and means where k and s are moderate
    assert standard_errors(-law.log_prob(value), law.entropy()) < 5
    assert standard_errors(-law.log_prob(value), law.entropy() + 0.2) > 5  # planted
    assert standard_errors(value[:, 2, MASK[2]], law.mean[2, MASK[2]]) < 5
    assert standard_errors(value[:, 2, MASK[2]], 1.2 * law.mean[2, MASK[2]]) > 5  # planted


@every_law
def test_the_plug_in_value_is_the_softmax_of_its_logarithms(name):
    law = LAWS[name](NUMBERS, SECOND)
    logs = logs_of(law.plug_in)
    if name in POSITIVE:
        torch.testing.assert_close(logs, law.mean.log())
    else:
        torch.testing.assert_close(logs, NUMBERS.log_softmax(-1))
    torch.testing.assert_close(logs.exp(), law.plug_in)


@every_law
def test_draws_carry_their_logarithms_and_their_gradient(name):
    leaf = (NUMBERS - 800).requires_grad_() if name in ("weibull", "log_normal") else NUMBERS.clone().requires_grad_()
    law = LAWS[name](leaf, SECOND, MASK)
    value = law.rsample()
    logs = logs_of(value)
    assert logs.isfinite().all()
    if name in ("weibull", "log_normal"):
        assert not value.any() and law.log_prob(value).isfinite().all()  # all below the smallest number
    (slope,) = torch.autograd.grad(logs[MASK].square().sum(), leaf)
    assert slope[MASK].any() and slope.isfinite().all() and not slope[~MASK].any()


@every_law
def test_expanding_repeats_the_law_and_not_the_draws(name):
    one = LAWS[name](NUMBERS, SECOND, MASK)
    many = one.expand((6, 3, len(MASK)))
    assert many.batch_shape == (6, 3, len(MASK)) and many.event_shape == one.event_shape
    value = many.rsample((2,))
    assert value.shape == (2, 6, 3, *MASK.shape) and not value.masked_select(~MASK).any()
    torch.testing.assert_close(many.log_prob(value), one.log_prob(value))
    assert (value[:, 0, 0, 0] != value[:, 1, 0, 0]).all()


@every_law
def test_it_is_a_site_like_any_other(name):
    def model():
        with pyro.plate("data", 6, dim=-1):
            return pyro.sample("rows", LAWS[name](NUMBERS, SECOND, MASK).expand((6, 4)).to_event(1))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["rows"]["log_prob"].shape == (6,)


EXTREME = torch.tensor([[0.0, -80.0, -40.0, -1.0], [0.0, 0.0, 0.0, -80.0]])


def extreme(name, phi, sharp, mask):
    """The law of an extreme row, more or less sharp."""
    if name == "gamma":  # a prior: concentrations down to its floor
        return MaskedGamma(sharp * phi.exp() + 1e-2, sharp, mask)
    if name == "log_normal":
        return MaskedLogNormal(phi - (1 / sharp).square() / 2, 1 / sharp, mask)
    return LAWS[name](phi, 1 / sharp if name == "logistic_normal" else sharp, mask)


@pytest.mark.parametrize("sharpness", [1e-2, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("mask", [None, torch.tensor([True, True, False, True])], ids=["whole", "masked"])
@every_law
def test_float32_stays_finite(name, mask, sharpness):
    torch.manual_seed(0)
    phi = EXTREME.log_softmax(-1).requires_grad_()
    sharp = torch.tensor([[sharpness]], requires_grad=True)
    law = extreme(name, phi, sharp, mask)
    value = law.rsample((50,))
    logs = logs_of(value)
    rows = torch.softmax(logs if mask is None else logs.masked_fill(~mask, -3e38), -1)
    density = law.log_prob(value)
    weights = torch.randn(rows.shape)
    slopes = torch.autograd.grad((rows * weights).sum() + density.sum(), (phi, sharp))
    assert all(each.isfinite().all() for each in (value, logs, rows, density, law.plug_in, *slopes))


@pytest.mark.parametrize("sharpness", [1e-2, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("mask", [None, torch.tensor([True, True, False, True])], ids=["whole", "masked"])
@every_law
def test_float32_tells_the_density_that_double_precision_tells_of_the_same_numbers(name, mask, sharpness):
    """And its slopes; the largest terms of the density of gamma entries cancel, some ten million to a few hundred."""
    torch.manual_seed(0)
    law = extreme(name, EXTREME.log_softmax(-1), torch.tensor([[sharpness]]), mask)
    value = law.sample((50,))

    def numbers(dtype, factor=1.0):
        parameters = [(factor * getattr(law, each)).to(dtype).requires_grad_() for each in law.parameters]
        density = type(law)(*parameters, mask).log_prob(with_logs(value.to(dtype), logs_of(value).to(dtype)))
        slopes = torch.autograd.grad(density.sum(), parameters)
        return [each.detach().double() for each in (density, *slopes)]

    def error(found):
        pairs = zip(found, numbers(torch.float64), strict=True)
        return max(float((own - exact).abs().max() / exact.abs().max()) for own, exact in pairs)

    assert error(numbers(torch.float32)) < (2e-3 if name == "gamma" else 4e-4)
    assert error(numbers(torch.float32, 1.01)) > 4e-4  # planted: other parameters


def test_a_value_that_lost_its_logarithms_counts_as_the_smallest_number():
    law = MaskedLogNormal(torch.zeros(3), torch.ones(()))
    tiny = torch.finfo(torch.float32).tiny
    lost, kept = torch.zeros(3), with_logs(torch.zeros(3), torch.full((3,), -200.0))
    torch.testing.assert_close(law.log_prob(lost), law.log_prob(torch.full((3,), tiny)))
    assert law.log_prob(kept) < law.log_prob(lost)
