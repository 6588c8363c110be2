"""Distances from a reference by hand, each beside a planted error."""

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from pyroformer.inference import metrics

P = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
R = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.2, 0.2, 0.6]])


def test_agreement_by_hand():
    assert float(metrics.agreement(P, R)) == pytest.approx(2 / 3)  # all but the second
    assert float(metrics.agreement(P, P)) == 1
    assert float(metrics.agreement(P, R.flip(-1))) == pytest.approx(0)  # planted: the classes in another order


def test_the_first_of_a_tie_counts_as_in_accuracy():
    tied, first, second = torch.tensor([[0.4, 0.4, 0.2]]), torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]])
    assert float(metrics.agreement(tied, tied)) == 1
    assert float(metrics.agreement(tied, first)) == float(metrics.agreement(first, tied)) == 1
    assert float(metrics.agreement(tied, second)) == float(metrics.agreement(second, tied)) == 0
    labels = R.argmax(-1)
    assert float(metrics.agreement(P, R)) == float(metrics.accuracy(P, labels))


def test_total_variation_by_hand():
    by_hand = ((0.1 + 0.1 + 0) + (0.4 + 0.2 + 0.2) + (0.1 + 0.1 + 0.2)) / 2 / 3
    assert float(metrics.total_variation(P, R)) == pytest.approx(by_hand)
    assert float(metrics.total_variation(P, R)) != pytest.approx(2 * by_hand)  # planted: without the half
    assert float(metrics.total_variation(P, P)) == 0
    apart = torch.eye(2)
    assert float(metrics.total_variation(apart, apart.flip(0))) == 1


def test_total_variation_is_the_largest_difference_of_an_event():
    events = torch.tensor([[i >> c & 1 for c in range(3)] for i in range(8)], dtype=torch.float64)
    largest = ((P - R).double() @ events.T).max(-1).values.mean()
    assert float(metrics.total_variation(P, R)) == pytest.approx(float(largest))
    assert float(metrics.total_variation(P, R)) == float(metrics.total_variation(R, P))


def test_wasserstein_by_hand():
    mean, sd = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [2.0]])
    other_mean, other_sd = torch.tensor([[3.0], [3.0]]), torch.tensor([[5.0], [2.0]])
    found = float(metrics.normal_wasserstein(mean, sd, other_mean, other_sd))
    assert found == pytest.approx((5 / 5 + 0) / 2)  # 3, 4, 5
    assert float(metrics.normal_wasserstein(other_mean, other_sd, mean, sd)) == pytest.approx(5 / 2)
    assert found != pytest.approx((3 / 5 + 0) / 2)  # planted: the means alone
    assert float(metrics.normal_wasserstein(mean, sd, mean, sd)) == 0


def test_wasserstein_is_that_of_sorted_draws():
    """In one dimension the optimal transport joins quantiles: here those of the two normals."""
    levels = (torch.arange(20_000).double() + 0.5) / 20_000
    z = torch.special.ndtri(levels)
    first, second = 0.3 + 0.5 * z, -0.2 + 1.5 * z
    by_quantiles = (first - second).square().mean().sqrt() / 1.5
    found = metrics.normal_wasserstein(*(torch.tensor([v]) for v in (0.3, 0.5, -0.2, 1.5)))
    assert float(found) == pytest.approx(float(by_quantiles), rel=1e-3)
    order_one = wasserstein_distance(first.numpy(), second.numpy()) / 1.5
    assert float(found) != pytest.approx(order_one, rel=0.05)  # planted: the distance of order 1


def test_what_is_refused():
    for function in (metrics.agreement, metrics.total_variation):
        with pytest.raises(ValueError, match=r"reference has shape \[2, 3\]: expected \[3, 3\]"):
            function(P, R[:2])
        with pytest.raises(ValueError, match="sum of reference over classes"):
            function(P, 2 * R)
        with pytest.raises(ValueError, match="not empty"):
            function(P[:0], R[:0])
    one = torch.ones(2)
    with pytest.raises(ValueError, match=r"reference_sd of shape \[2\] holds 0: expected standard deviations above 0"):
        metrics.normal_wasserstein(one, one, one, 0 * one)
    with pytest.raises(ValueError, match=r"sd has shape \[1\]"):
        metrics.normal_wasserstein(one, one[:1], one, one)
    with pytest.raises(ValueError, match="finite"):
        metrics.normal_wasserstein(math.nan * one, one, one, one)
