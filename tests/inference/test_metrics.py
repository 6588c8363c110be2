"""Every metric against an oracle or numbers by hand, each beside a planted error that the same check catches."""

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn.metrics import accuracy_score, log_loss, roc_auc_score, root_mean_squared_error

from pyroformer.inference import metrics

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)


def close(value, expected, tolerance=1e-10):
    """Equal to an oracle, shapes included."""
    value, expected = np.asarray(value), np.asarray(expected)
    return value.shape == expected.shape and np.allclose(value, expected, rtol=tolerance, atol=tolerance)


def miscalibrated(n, classes, dtype=torch.float64, seed=0, sharpness=2.0):
    """Probabilities [N, C], and labels that have nothing to do with them."""
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(n, classes, dtype=torch.float64, generator=generator)
    return logits.softmax(-1).to(dtype), torch.randint(classes, (n,), generator=generator)


def two_classes(confidences, dtype=torch.float64):
    """Rows whose top label is class 0, with the given probabilities."""
    top = torch.tensor(confidences, dtype=dtype)
    return torch.stack([top, 1 - top], -1)


def mixture(samples=7, n=5, outputs=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    loc = 3 * torch.randn(samples, n, outputs, dtype=torch.float64, generator=generator)
    scale = 0.5 + torch.rand(samples, n, outputs, dtype=torch.float64, generator=generator)
    return loc, scale, torch.randn(n, outputs, dtype=torch.float64, generator=generator)


# Accuracy, likelihood, Brier score


def test_class_scores_equal_scikit_learn():
    p, y = miscalibrated(300, 5)
    assert close(metrics.accuracy(p, y), accuracy_score(y, p.argmax(-1)))
    assert close(metrics.negative_log_likelihood(p, y), log_loss(y, p.numpy(), labels=range(5)))
    squares = (p.numpy() - np.eye(5)[y.numpy()]) ** 2
    assert close(metrics.brier(p, y), squares.sum(1).mean())
    assert not close(metrics.brier(p, y), squares.mean(), 1e-2)  # planted: averaged over classes


def test_class_scores_by_hand():
    p, y = torch.tensor([[0.5, 0.5], [0.25, 0.75], [1.0, 0.0]]), torch.tensor([0, 0, 0])
    assert close(metrics.accuracy(p, y), 2 / 3)  # the first class of a tie is the prediction
    assert close(metrics.negative_log_likelihood(p, y), math.log(8) / 3)
    assert close(metrics.brier(p, y), (0.5 + 1.125 + 0) / 3)
    assert close(metrics.brier(p[2:], torch.tensor([1])), 2.0)  # the largest there is


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_impossible_label_costs_the_smallest_float(dtype):
    cost = metrics.negative_log_likelihood(torch.tensor([[1.0, 0.0]], dtype=dtype), torch.tensor([1]))
    assert cost.dtype == torch.float64 and close(cost, -math.log(torch.finfo(dtype).tiny))


def test_averaging_logits_is_not_averaging_probabilities():
    logits = 4 * torch.randn(20, 200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = miscalibrated(200, 3)[1]
    oracle = log_loss(y, logits.softmax(-1).mean(0).numpy(), labels=range(3))
    assert close(metrics.negative_log_likelihood(logits.softmax(-1).mean(0), y), oracle)
    assert not close(metrics.negative_log_likelihood(logits.mean(0).softmax(-1), y), oracle, 1e-2)  # planted


# Calibration


def test_calibration_error_equals_torchmetrics():
    with warnings.catch_warnings():  # what another library warns of, on import or in use, is not tested here
        warnings.simplefilter("ignore")
        from torchmetrics.classification import MulticlassCalibrationError as Oracle

        p, y = miscalibrated(500, 4, torch.float32, sharpness=5.0)  # most of them in the last bin
        oracle = Oracle(num_classes=4, n_bins=15, norm="l1")(p, y)
    assert close(metrics.calibration_error(p, y), oracle, 1e-5)
    by_bin = metrics.reliability(p, y)
    unweighted = (by_bin.accuracy - by_bin.confidence).abs().nanmean()
    assert not close(unweighted, oracle, 1e-2)  # planted: every bin counts the same


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("bins", "expected"), [(1, 0.1), (2, 0.1), (10, 0.3)])
def test_calibration_error_by_hand(bins, expected, dtype):
    # (0.5, 1]: accuracy 2/3, confidence 2.3/3. With ten bins each is alone: (0.1 + 0.6 + 0.2) / 3.
    p, y = two_classes([0.9, 0.6, 0.8], dtype), torch.tensor([0, 1, 0])
    assert close(metrics.calibration_error(p, y, bins=bins), expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [2, 5, 10, 15, 20])
def test_a_confidence_on_an_edge_belongs_to_the_bin_below(bins, dtype):
    on_edge = [k for k in range(1, bins + 1) if 2 * k >= bins]  # confidences k / bins; class 0 stays on top
    by_bin = metrics.reliability(
        two_classes([k / bins for k in on_edge], dtype), torch.zeros(len(on_edge)).long(), bins=bins
    )
    assert by_bin.count.tolist() == [int(k in on_edge) for k in range(1, bins + 1)]
    assert close(by_bin.edges, np.linspace(0, 1, bins + 1), 1e-12)


def test_left_closed_bins_would_differ():
    p, y = two_classes([0.8, 0.85, 1.0]), torch.tensor([0, 1, 0])  # 0.8 and 0.85 share [0.8, 0.9), not (0.8, 0.9]
    right_closed, left_closed = (0.2 + 0.85 + 0.0) / 3, (abs(0.5 - 0.825) * 2 + 0.0) / 3
    assert close(metrics.calibration_error(p, y, bins=10), right_closed)
    assert not close(metrics.calibration_error(p, y, bins=10), left_closed, 1e-2)


def test_reliability_leaves_empty_bins_out():
    by_bin = metrics.reliability(two_classes([1.0, 1.0, 0.7]), torch.tensor([0, 1, 0]), bins=4)
    assert by_bin.count.tolist() == [0, 0, 1, 2] and by_bin.count.dtype == torch.int64
    assert by_bin.confidence[:2].isnan().all() and close(by_bin.confidence[2:], [0.7, 1.0])
    assert by_bin.accuracy[:2].isnan().all() and close(by_bin.accuracy[2:], [1.0, 0.5])


# Entropy


def test_entropy_equals_scipy():
    p = miscalibrated(60, 6)[0].reshape(3, 20, 6)
    oracle = stats.entropy(p.numpy(), axis=-1)
    assert close(metrics.entropy(p), oracle) and close(metrics.entropy(p.movedim(-1, 0), dim=0), oracle)
    assert close(metrics.predictive_entropy(p[0]), oracle[0])
    assert not close(metrics.entropy(p), stats.entropy(p.numpy(), axis=-1, base=2), 1e-2)  # planted: bits
    assert metrics.entropy(torch.tensor([[0.0, 1.0], [0.5, 0.5]])).tolist() == [0.0, math.log(2)]


def test_mutual_information_is_the_mean_divergence_from_the_mean():
    p = miscalibrated(8 * 30, 4)[0].reshape(8, 30, 4)  # [S, N, C]
    mean = p.mean(0)
    oracle = stats.entropy(p.numpy(), mean.expand_as(p).numpy(), axis=-1).mean(0)
    assert close(metrics.mutual_information(mean, metrics.entropy(p).mean(0)), oracle)
    planted = metrics.entropy(p.log().mean(0).softmax(-1)) - metrics.entropy(p).mean(0)  # logits averaged
    assert not close(planted, oracle, 1e-2)


def test_mutual_information_by_hand():
    half = torch.tensor([[0.5, 0.5]])  # the mean of two samples, each certain of another class
    assert close(metrics.mutual_information(half, torch.zeros(1)), [math.log(2)])
    p = miscalibrated(50, 3, torch.float32)[0]
    assert metrics.mutual_information(p, metrics.entropy(p) + 1e-7).tolist() == [0.0] * 50  # rounding, cut off


def test_labels_drawn_from_the_probabilities_cost_their_entropy():
    p = miscalibrated(20_000, 4)[0]
    generator = torch.Generator().manual_seed(3)

    def errors(q):  # of the mean likelihood from the mean entropy, in Monte Carlo standard errors
        y = torch.multinomial(q, 1, generator=generator).squeeze(-1)
        excess = -p.gather(-1, y[:, None]).squeeze(-1).log() - metrics.entropy(p)
        mean, error = metrics.mean_and_standard_error(excess)
        assert close(mean, metrics.negative_log_likelihood(p, y) - metrics.predictive_entropy(p).mean())
        return abs(mean / error)

    assert errors(p) < 4
    assert errors(p.sqrt() / p.sqrt().sum(-1, keepdim=True)) > 10  # planted: an overconfident classifier


# AUROC


def roc(negative, positive):
    return roc_auc_score(np.r_[np.zeros(len(negative)), np.ones(len(positive))], np.r_[negative, positive])


@pytest.mark.parametrize("offset", [0.0, -300.0, 1e6])
def test_auroc_equals_scikit_learn_on_any_scale(offset):
    rng = np.random.default_rng(0)
    negative, positive = offset + rng.normal(size=150), offset + 0.7 + rng.normal(size=90)
    assert close(metrics.auroc(torch.tensor(negative), torch.tensor(positive)), roc(negative, positive))


def test_auroc_counts_half_a_tie():
    rng = np.random.default_rng(1)
    negative, positive = rng.integers(0, 5, 200).astype(float), rng.integers(1, 6, 120).astype(float)
    value = metrics.auroc(torch.tensor(negative), torch.tensor(positive))
    assert close(value, roc(negative, positive))
    assert not close((positive[:, None] > negative).mean(), value, 1e-2)  # planted: ties lose
    assert not close((positive[:, None] >= negative).mean(), value, 1e-2)  # planted: ties win


def test_auroc_does_not_saturate():
    negative, positive = torch.tensor([40.0, 50.0, -math.inf]), torch.tensor([45.0, 60.0, math.inf])
    assert close(metrics.auroc(negative, positive), 8 / 9)
    assert not close(metrics.auroc(negative.sigmoid(), positive.sigmoid()), 8 / 9, 1e-2)  # planted: all 1 in float32


# Regression


def test_rmse_equals_scikit_learn():
    loc, _, y = mixture()
    y = y * torch.tensor([1.0, 10.0])  # outputs of unlike spread
    oracle = math.sqrt(((loc[0] - y) ** 2).mean())
    assert close(metrics.rmse(loc[0], y), oracle)
    assert close(metrics.rmse(loc[0, :, 0], y[:, 0]), root_mean_squared_error(y[:, 0], loc[0, :, 0]))
    assert not close(root_mean_squared_error(y, loc[0]), oracle, 1e-2)  # planted: roots averaged over outputs
    assert close(metrics.rmse(torch.tensor([0.0, 0.0]), torch.tensor([3.0, 4.0])), math.sqrt(12.5))


def test_mixture_log_density_equals_scipy():
    loc, scale, y = mixture()
    density = stats.norm.pdf(y.numpy(), loc.numpy(), scale.numpy())  # [S, N, D]
    oracle = np.log(density.prod(-1).mean(0))
    assert close(metrics.mixture_log_density(y, loc, scale), oracle)
    assert not close(np.log(density.prod(-1)).mean(0), oracle, 1e-2)  # planted: the mean of logs
    assert not close(np.log(density.mean(0)).sum(-1), oracle, 1e-2)  # planted: outputs independent of one another
    one = scale[:, :1, :1]
    assert close(metrics.mixture_log_density(y, loc, one), metrics.mixture_log_density(y, loc, one.expand_as(loc)))
    assert metrics.mixture_log_density(y + 1e4, loc, scale).isfinite().all()  # where every density is 0 in float64


@pytest.mark.parametrize("level", [1e-30, 1e-12, 0.025, 0.5, 0.9, 1 - 1e-12])
def test_mixture_quantile_equals_scipy(level):
    loc, scale, _ = mixture()

    def oracle(n, d):
        at = stats.norm(loc[:, n, d].numpy(), scale[:, n, d].numpy())
        excess = (lambda x: at.cdf(x).mean() - level) if level < 0.5 else (lambda x: 1 - level - at.sf(x).mean())
        return optimize.brentq(excess, -30, 30, xtol=1e-13)

    expected = np.array([[oracle(n, d) for d in range(2)] for n in range(5)])
    assert close(metrics.mixture_quantile(level, loc, scale), expected, 1e-6)
    component = torch.from_numpy(stats.norm.ppf(level, loc, scale))
    assert not close(component.mean(0), expected, 1e-2)  # planted: the mean of the components' quantiles


def test_mixture_quantile_of_one_component_and_of_far_ones():
    loc, scale, _ = mixture(samples=1)
    assert close(metrics.mixture_quantile(0.3, loc, scale), stats.norm.ppf(0.3, loc[0], scale[0]))
    far = torch.tensor([-1e8, 1e8]).double().reshape(2, 1, 1)
    assert close(metrics.mixture_quantile(0.25, far, torch.tensor(1.0)), [[-1e8]], 1e-12)
    value = metrics.mixture_quantile(0.3, far, torch.tensor(1e-12))  # finer than float64 is at 1e8: must end
    assert close(value, [[-1e8]], 1e-12)


def test_intervals_of_the_mixture_cover_as_often_as_they_say():
    loc, scale, _ = mixture(samples=5, n=4000, outputs=1, seed=4)
    generator = torch.Generator().manual_seed(5)
    which = torch.randint(5, (1, 4000, 1), generator=generator)
    noise = torch.randn(4000, 1, dtype=torch.float64, generator=generator)
    y = loc.gather(0, which)[0] + scale.gather(0, which)[0] * noise
    error = math.sqrt(0.9 * 0.1 / 4000)
    lower, upper = (metrics.mixture_quantile(level, loc, scale) for level in (0.05, 0.95))
    assert abs(metrics.interval_coverage(y, lower, upper) - 0.9) < 4 * error
    mean, half = loc.mean(0), 1.645 * scale.square().mean(0).sqrt()
    planted = metrics.interval_coverage(y, mean - half, mean + half)  # the samples' spread left out
    assert abs(planted - 0.9) > 10 * error


def test_interval_coverage_by_hand():
    y, bounds = torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.full((4,), math.inf)
    assert close(metrics.interval_coverage(y, torch.full((4,), 1.0), torch.full((4,), 2.0)), 0.5)  # closed at both ends
    assert close(metrics.interval_coverage(y, -bounds, bounds), 1.0)
    assert close(metrics.interval_coverage(y[:, None], y[:, None] + 1, bounds[:, None]), 0.0)


def test_mean_and_standard_error_equal_scipy():
    values = [0.1, 0.5, 0.2, 0.9]
    mean, error = metrics.mean_and_standard_error(values)
    assert close(mean, np.mean(values)) and close(error, stats.sem(values))
    assert not close(error, stats.sem(values, ddof=0), 1e-2)  # planted: n for n - 1
    assert metrics.mean_and_standard_error([0.25])[0] == 0.25 and metrics.mean_and_standard_error([0.25])[1].isnan()


# Properties


def scores():
    """Few distinct values, so that ties are common, among arbitrary ones."""
    value = st.one_of(st.integers(-3, 3).map(float), st.floats(allow_nan=False, width=32))
    return st.lists(value, min_size=1, max_size=12).map(lambda x: torch.tensor(x, dtype=torch.float64))


@st.composite
def predictions(draw):
    n, classes = draw(st.integers(1, 12)), draw(st.integers(2, 5))
    weight = st.one_of(st.just(0.0), st.floats(0, 1))
    rows = torch.tensor(draw(st.lists(weight, min_size=n * classes, max_size=n * classes))).double().reshape(n, classes)
    rows = rows + (rows.sum(-1, keepdim=True) == 0)  # weights that are all 0 are uniform
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    return rows / rows.sum(-1, keepdim=True), torch.tensor(labels)


@PROPERTY
@given(scores(), scores())
def test_auroc_is_antisymmetric_and_depends_on_ranks_only(negative, positive):
    value = metrics.auroc(negative, positive)
    assert 0 <= value <= 1
    assert close(value + metrics.auroc(positive, negative), 1.0, 1e-14)
    assert close(metrics.auroc(-positive, -negative), value, 1e-14)
    ranks = torch.cat([negative, positive]).unique(return_inverse=True)[1].double()
    assert metrics.auroc(ranks[: len(negative)], ranks[len(negative) :]) == value


@PROPERTY
@given(predictions(), st.integers(1, 20), st.randoms(use_true_random=False))
def test_class_metrics_are_bounded_and_blind_to_order(prediction, bins, random):
    p, y = prediction
    order = random.sample(range(len(y)), len(y))
    error = metrics.calibration_error(p, y, bins=bins)
    assert 0 <= error <= 1
    assert close(metrics.calibration_error(p[order], y[order], bins=bins), error, 1e-12)
    assert metrics.reliability(p, y, bins=bins).count.sum() == len(y)
    assert 0 <= metrics.brier(p, y) <= 2 + 1e-12
    for metric in (metrics.accuracy, metrics.brier, metrics.negative_log_likelihood):
        assert close(metric(p[order], y[order]), metric(p, y), 1e-12)


@PROPERTY
@given(predictions())
def test_entropy_and_mutual_information_are_bounded(prediction):
    p = prediction[0]
    entropy, most = metrics.predictive_entropy(p), math.log(p.shape[-1])
    assert (entropy >= 0).all() and (entropy <= most + 1e-12).all()
    information = metrics.mutual_information(p.mean(0, keepdim=True), entropy.mean(0, keepdim=True))  # rows as samples
    assert 0 <= information <= min(most, math.log(len(p))) + 1e-12


# Refusals

P, Y = torch.tensor([[0.5, 0.5], [0.2, 0.8]]), torch.tensor([0, 1])
LOC, SCALE, ONE = torch.zeros(3, 2, 1), torch.ones(3, 2, 1), torch.zeros(2)
NAN = torch.tensor([math.nan, 0.0])


@pytest.mark.parametrize(
    "metric",
    [metrics.accuracy, metrics.negative_log_likelihood, metrics.brier, metrics.calibration_error, metrics.reliability],
)
@pytest.mark.parametrize(
    ("p", "y", "message"),
    [
        (P * 1.01, Y, r"sum of probabilities .* holds 1\.01: expected 1 within 0\.001"),
        (torch.tensor([[1.5, -0.5]]), Y[:1], r"probabilities of shape \[1, 2\] holds -0\.5: expected .* 0 or more"),
        (torch.tensor([[math.nan, 1.0]]), Y[:1], r"probabilities .* holds nan: expected finite"),
        (P[0], Y, r"probabilities has shape \[2\]: expected \[N, C\]"),
        (P[:0], Y[:0], r"probabilities has shape \[0, 2\]: expected \[N, C\], not empty"),
        (P.long(), Y, r"probabilities is torch.int64: expected a floating-point tensor"),
        (P.tolist(), Y, r"probabilities is \[\[0.5, 0.5\], .*: expected a floating-point tensor"),
        (P, Y + 1, r"labels of shape \[2\] holds 2: expected 0 to 1"),
        (P, Y - 1, r"labels of shape \[2\] holds -1: expected 0 to 1"),
        (P, Y.double(), r"labels is torch.float64 .*: expected int64 or int32"),
        (P, Y.bool(), r"labels is torch.bool .*: expected int64 or int32"),
        (P, Y[:1], r"labels is torch.int64 of shape \[1\]: expected int64 or int32 of shape \[2\]"),
        (P, [0, 1], r"labels is \[0, 1\]: expected int64"),
    ],
)
def test_class_metrics_say_what_they_would_accept(metric, p, y, message):
    with pytest.raises(ValueError, match=message):
        metric(p, y)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.calibration_error(P, Y, bins=0), "bins is 0: expected a whole number, 1 or more"),
        (lambda: metrics.reliability(P, Y, bins=2.5), "bins is 2.5: expected a whole number"),
        (lambda: metrics.entropy(P, dim=2), r"dim is 2: expected an axis of probabilities, .* \[2, 2\]"),
        (lambda: metrics.entropy(P[:, :1]), "sum of probabilities"),
        (lambda: metrics.predictive_entropy(P[None]), r"probabilities has shape \[1, 2, 2\]: expected \[N, C\]"),
        (lambda: metrics.mutual_information(2 * P, ONE), "sum of mean_probabilities"),
        (lambda: metrics.mutual_information(P, ONE[:1]), r"expected_entropy has shape \[1\]: expected \[2\]"),
        (lambda: metrics.mutual_information(P, ONE - 0.1), r"expected_entropy .* holds -0\.1: expected 0 to"),
        (lambda: metrics.mutual_information(P, ONE + 0.6), r"expected_entropy .* holds 0\.6: expected 0 to"),
        (lambda: metrics.auroc(NAN, ONE), "scores_negative .* holds nan: expected numbers"),
        (lambda: metrics.auroc(ONE, ONE[:0]), r"scores_positive has shape \[0\]: expected \[M\], not empty"),
        (lambda: metrics.auroc(ONE, P), r"scores_positive has shape \[2, 2\]: expected \[M\]"),
        (lambda: metrics.rmse(ONE, ONE[:, None]), r"y has shape \[2, 1\]: expected \[2\]"),
        (lambda: metrics.rmse(ONE, NAN), "y of shape .* holds nan"),
        (lambda: metrics.mixture_log_density(ONE, LOC, SCALE), r"y has shape \[2\]: expected \[2, 1\]"),
        (lambda: metrics.mixture_log_density(LOC[0], LOC[0], SCALE), r"loc has shape \[2, 1\]: expected \[S, N, D\]"),
        (lambda: metrics.mixture_log_density(LOC[0], LOC, 0 * SCALE), "scale .* holds 0: expected .* above 0"),
        (lambda: metrics.mixture_quantile(0.5, LOC, torch.ones(4)), r"scale has shape \[4\]: expected to broadcast"),
        (lambda: metrics.mixture_quantile(1.0, LOC, SCALE), "level is 1.0: expected a float strictly between"),
        (lambda: metrics.interval_coverage(ONE, ONE + 1, ONE), "lower .* holds 1: expected at most upper"),
        (lambda: metrics.interval_coverage(ONE, ONE, NAN), "upper .* holds nan"),
        (lambda: metrics.interval_coverage(ONE, ONE[:1], ONE), r"lower has shape \[1\]: expected \[2\]"),
        (lambda: metrics.mean_and_standard_error([]), r"values has shape \[0\]: expected \[n\], not empty"),
        (lambda: metrics.mean_and_standard_error([1.0, None]), r"values is \[1.0, None\]: expected a sequence"),
        (lambda: metrics.mean_and_standard_error(NAN), "values .* holds nan"),
        (lambda: metrics.mean_and_standard_error(P), r"values has shape \[2, 2\]: expected \[n\]"),
    ],
)
def test_other_metrics_say_what_they_would_accept(call, message):
    with pytest.raises(ValueError, match=message):
        call()
