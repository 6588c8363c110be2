"""The shape of a tail against draws of known shape, scipy's distribution, and the formulas written out."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import genpareto

from pyroformer.inference.pareto import generalized_pareto, log_quantile, smoothed, tail_length


def draws(k, size, seed=0, scale=2.0):
    return np.sort(genpareto.rvs(k, scale=scale, size=size, random_state=seed))


def unshrunk(k, size):
    return (k * (size + 10) - 5) / size


@pytest.mark.parametrize("k", [-0.3, 0.0, 0.3, 0.7, 1.2, 3.0])
def test_the_shape_of_draws_of_known_shape(k):
    """The error of the most likely shape is (1 + k) / sqrt(n), about; of the scale sqrt(2 (1 + k) / n) of it."""
    size = 4000
    found, log_sigma = generalized_pareto(torch.tensor(draws(k, size)).log())
    error = (1 + max(k, 0)) / math.sqrt(size)
    assert abs(unshrunk(found, size) - k) < 5 * error
    assert abs(unshrunk(found, size) - (k + 0.2 * (1 + max(k, 0)))) > 5 * error  # planted: another shape
    assert abs(log_sigma - math.log(2)) < 5 * math.sqrt(2 * (1 + max(k, 0)) / size)
    assert abs(unshrunk(-found, size) - k) > 5 * error or k == 0  # planted: the sign that the first authors use


@pytest.mark.parametrize("k", [-0.3, 0.3, 1.2])
@pytest.mark.parametrize("size", [10, 60, 400])
def test_the_estimate_is_that_of_the_formulas(k, size):
    x = draws(k, size, seed=1)
    count = 30 + int(size**0.5)
    ks, logs, bs = [], [], []
    for j in range(1, count + 1):
        b = 1 / x[-1] + (1 - math.sqrt(count / (j - 0.5))) / (3 * x[int(size / 4 + 0.5) - 1])
        shape = np.log1p(-b * x).mean()
        bs.append(b)
        ks.append(shape)
        logs.append(size * (math.log(-b / shape) - shape - 1))
    weights = np.exp(np.array(logs) - max(logs))
    b = (weights / weights.sum() * np.array(bs)).sum()
    shape = np.log1p(-b * x).mean()
    found, log_sigma = generalized_pareto(torch.tensor(x).log())
    assert found == pytest.approx((size * shape + 5) / (size + 10), rel=1e-9)
    assert found != pytest.approx(shape, rel=1e-3)  # planted: without the weight on 1/2
    assert log_sigma == pytest.approx(math.log(-shape / b), rel=1e-9)
    times = generalized_pareto(torch.tensor(x).log() + 3)  # another unit
    assert times == pytest.approx((found, log_sigma + 3), rel=1e-9)


@pytest.mark.parametrize("k", [-0.4, 0.0, 1e-10, 0.6, 2.0])
def test_quantiles_are_those_of_scipy(k):
    levels = (torch.arange(9, dtype=torch.float64) + 0.5) / 9
    expected = genpareto.ppf(levels.numpy(), k, scale=2.0)
    np.testing.assert_allclose(log_quantile(levels, k, math.log(2.0)).exp().numpy(), expected, rtol=1e-8)


def test_smoothing_by_hand():
    r = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = smoothed(r)
    order, size = r.argsort(), 20
    assert tail_length(100) == size and tail_length(400) == 60 and tail_length(21) == 5
    ordered = r[order].exp()
    cut = float(ordered[-size - 1])
    k, log_sigma = generalized_pareto((ordered[-size:] - cut).log())
    assert found.k_hat == pytest.approx(k, rel=1e-9)
    levels = (np.arange(size) + 0.5) / size
    tail = np.minimum(cut + genpareto.ppf(levels, k, scale=math.exp(log_sigma)), float(ordered[-1]))
    by_hand = torch.cat([ordered[:-size], torch.tensor(tail)])
    torch.testing.assert_close(found.log_weights[order].exp(), by_hand / by_hand.sum())
    raw = ordered / ordered.sum()
    assert not torch.allclose(found.log_weights[order].exp(), raw, rtol=1e-3)  # planted: the weights as they were
    assert found.effective_sample_size == pytest.approx(float(by_hand.sum() ** 2 / by_hand.square().sum()))
    torch.testing.assert_close(smoothed(r + 700).log_weights, found.log_weights)


def test_the_threshold_grows_with_the_draws():
    for count, expected in ((50, 1 - 1 / math.log10(50)), (100, 0.5), (1000, 2 / 3), (10_000, 0.7)):
        assert smoothed(torch.randn(count)).threshold == pytest.approx(expected)


@pytest.mark.parametrize("spread", [100.0, 1000.0])
def test_weights_that_no_float_holds_have_a_very_heavy_tail(spread):
    r = spread * torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = smoothed(r)
    assert spread / 10 < found.k_hat < spread and not found.usable
    assert found.log_weights.exp().sum() == pytest.approx(1)
    assert found.effective_sample_size == pytest.approx(1, abs=0.01)


def test_equal_weights_have_no_tail():
    found = smoothed(torch.full((50,), -3.0))
    assert found.k_hat == -math.inf and found.usable
    assert found.effective_sample_size == pytest.approx(50)
    tied = torch.zeros(100)
    tied[-3:] = 1.0
    assert math.isfinite(smoothed(tied).k_hat)


def test_what_is_refused():
    with pytest.raises(ValueError, match="S at least 21"):
        smoothed(torch.zeros(20))
    for wrong in (math.nan, math.inf):
        with pytest.raises(ValueError, match="NaN or infinity"):
            smoothed(torch.tensor([wrong] + [0.0] * 30))
    with pytest.raises(ValueError, match="no weight above 0"):
        smoothed(torch.full((30,), -math.inf))
    assert smoothed(torch.tensor([-math.inf] * 10 + [0.0] * 30)).log_weights[0] == -math.inf
