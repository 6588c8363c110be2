"""Adaptive and classwise calibration errors against loops, each beside a planted error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from pyroformer.inference import metrics

PROPERTY = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def predictions(n, classes, seed=0, sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    p = (sharpness * torch.randn(n, classes, dtype=torch.float64, generator=generator)).softmax(-1)
    guess = torch.randint(classes, (n,), generator=generator)
    return p, torch.where(
        torch.rand(n, generator=generator) < 0.6, p.argmax(-1), guess
    )  # some too sure, some not enough


def adaptive_by_loops(p, y, bins):
    """Equal-mass bins of the sorted top probability; no ties here."""
    p, y = p.numpy(), y.numpy()
    order = np.argsort(p.max(1))
    found = 0.0
    for part in np.array_split(order, bins):
        gap = np.mean(p[part].argmax(1) == y[part]) - np.mean(p[part].max(1))
        found += len(part) / len(y) * abs(gap)
    return found


def classwise_by_loops(p, y, bins, right_closed=True):
    p, y = p.numpy(), y.numpy()
    errors = []
    for c in range(p.shape[1]):
        error = 0.0
        for b in range(bins):
            low, high = b / bins, (b + 1) / bins
            inside = (p[:, c] > low) & (p[:, c] <= high) if right_closed else (p[:, c] >= low) & (p[:, c] < high)
            if inside.any():
                error += inside.mean() * abs(np.mean(y[inside] == c) - p[inside, c].mean())
        errors.append(error)
    return np.mean(errors)


@pytest.mark.parametrize(("n", "bins"), [(200, 15), (203, 15), (30, 7), (64, 1)])
def test_adaptive_error_equals_a_loop_over_bins_of_equal_mass(n, bins):
    p, y = predictions(n, 4)
    found = float(metrics.adaptive_calibration_error(p, y, bins=bins))
    assert found == pytest.approx(adaptive_by_loops(p, y, bins), abs=1e-12)
    if bins > 1:  # planted: bins of equal width, which differ where gaps of both signs share a bin
        assert found != pytest.approx(float(metrics.calibration_error(p, y, bins=bins)), abs=1e-6)


def test_adaptive_error_by_hand():
    top = torch.tensor([0.6, 0.7, 0.8, 0.9])
    p, y = torch.stack([top, 1 - top], 1), torch.tensor([1, 0, 0, 0])
    # two bins: {0.6 wrong, 0.7 right} and {0.8, 0.9 right}: |0.5 - 0.65| / 2 + |1 - 0.85| / 2
    assert float(metrics.adaptive_calibration_error(p, y, bins=2)) == pytest.approx(0.15, abs=1e-6)
    # more bins than examples: each on its own
    assert float(metrics.adaptive_calibration_error(p, y)) == pytest.approx((0.6 + 0.3 + 0.2 + 0.1) / 4, abs=1e-6)


def test_tied_confidences_share_their_accuracy():
    p = torch.tensor([0.5, 0.5], dtype=torch.float64).expand(8, 2)
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])  # in this order, bins of four would be all right and all wrong
    assert float(metrics.adaptive_calibration_error(p, y, bins=2)) == pytest.approx(0.0)
    assert adaptive_by_loops(p, y, 2) == pytest.approx(0.5)  # planted: ties in the order they come in


@pytest.mark.parametrize("bins", [5, 15])
def test_classwise_error_equals_a_loop(bins):
    p, y = predictions(300, 5)
    found = float(metrics.classwise_calibration_error(p, y, bins=bins))
    assert found == pytest.approx(classwise_by_loops(p, y, bins), abs=1e-12)
    assert found != pytest.approx(float(metrics.calibration_error(p, y, bins=bins)), abs=1e-4)  # planted: top label


def test_classwise_bins_are_closed_on_the_right():
    p = torch.tensor([[0.2, 0.8], [0.4, 0.6], [0.6, 0.4]], dtype=torch.float64)
    y = torch.tensor([0, 0, 1])
    found = float(metrics.classwise_calibration_error(p, y, bins=5))
    assert found == pytest.approx(classwise_by_loops(p, y, 5), abs=1e-12)
    p, y = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25]], dtype=torch.float64), torch.tensor([0, 1])
    found = float(metrics.classwise_calibration_error(p, y, bins=2))
    assert found == pytest.approx(classwise_by_loops(p, y, 2), abs=1e-12)
    assert found != pytest.approx(classwise_by_loops(p, y, 2, right_closed=False), abs=1e-3)


@pytest.mark.parametrize("metric", [metrics.adaptive_calibration_error, metrics.classwise_calibration_error])
def test_labels_drawn_from_the_probabilities_are_calibrated(metric):
    """Within five Monte Carlo standard errors of nothing; labels of a sharper model are far outside."""
    n, bins = 20_000, 10
    p, _ = predictions(n, 3, sharpness=1.0)
    generator = torch.Generator().manual_seed(1)
    y = torch.multinomial(p, 1, generator=generator).squeeze(1)
    # a bin of n / 10 hits misses its mean by at most 0.5 / sqrt(n / 10) on average, times E|N(0, 1)|
    bound = 5 * 0.5 * (bins / n) ** 0.5 * 2 * norm.pdf(0)
    assert float(metric(p, y, bins=bins)) < bound
    sharper = (2 * p.log()).softmax(-1)
    assert float(metric(sharper, y, bins=bins)) > bound


@PROPERTY
@given(st.integers(1, 40), st.integers(2, 5), st.integers(1, 20), st.integers(0, 2**20))
def test_errors_are_bounded_and_blind_to_order(n, classes, bins, seed):
    p, y = predictions(n, classes, seed)
    p = (p * 8).round() / 8 + 1e-3  # many ties
    p = p / p.sum(-1, keepdim=True)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for metric in (metrics.adaptive_calibration_error, metrics.classwise_calibration_error):
        found = float(metric(p, y, bins=bins))
        assert 0 <= found <= 1
        assert found == pytest.approx(float(metric(p[order], y[order], bins=bins)), abs=1e-12)


@pytest.mark.parametrize("metric", [metrics.adaptive_calibration_error, metrics.classwise_calibration_error])
def test_what_is_not_accepted(metric):
    p, y = predictions(5, 3)
    with pytest.raises(ValueError, match="bins is 0: expected a whole number, 1 or more"):
        metric(p, y, bins=0)
    with pytest.raises(ValueError, match="labels of shape"):
        metric(p, y + 3)
    with pytest.raises(ValueError, match="sum of probabilities over classes"):
        metric(2 * p, y)
