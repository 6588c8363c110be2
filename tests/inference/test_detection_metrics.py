"""Detection and selective prediction against scikit-learn and loops, each beside a planted error."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_curve

from pyroformer.inference import metrics

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)
SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=30)


def scores(n, m, digits=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    negative = torch.randn(n, generator=generator, dtype=torch.float64)
    positive = 0.7 + torch.randn(m, generator=generator, dtype=torch.float64)
    return (
        (negative, positive) if digits is None else (negative.round(decimals=digits), positive.round(decimals=digits))
    )


def joined(negative, positive):
    return np.r_[np.zeros(len(negative)), np.ones(len(positive))], np.r_[negative.numpy(), positive.numpy()]


def fpr_of_curve(negative, positive, tpr):
    """From scikit-learn's curve of every threshold."""
    fprs, tprs, _ = roc_curve(*joined(negative, positive), drop_intermediate=False)
    return fprs[tprs >= tpr - 1e-12].min()


@pytest.mark.parametrize("digits", [None, 1, 0])
def test_detection_equals_scikit_learn_with_and_without_ties(digits):
    negative, positive = scores(120, 80, digits)
    found = float(metrics.aupr(negative, positive))
    assert found == pytest.approx(average_precision_score(*joined(negative, positive)), abs=1e-12)
    assert found != pytest.approx(float(metrics.aupr(positive, negative)), abs=0.01)  # planted: sides exchanged
    for tpr in (0.5, 0.8, 0.95, 1):
        assert float(metrics.fpr_at_tpr(negative, positive, tpr=tpr)) == fpr_of_curve(negative, positive, tpr)


def test_detection_by_hand():
    negative, positive = torch.tensor([0.1, 0.4, 0.6]), torch.tensor([0.5, 0.9])
    # thresholds 0.9: 1 of 1; 0.5: 2 of 3
    assert float(metrics.aupr(negative, positive)) == pytest.approx((1 + 2 / 3) / 2)
    assert float(metrics.fpr_at_tpr(negative, positive)) == pytest.approx(1 / 3)  # all positives are needed: 0.5
    assert float(metrics.fpr_at_tpr(negative, positive, tpr=0.5)) == 0.0
    ties = torch.ones(4)
    assert float(metrics.aupr(ties, ties)) == 0.5  # chance
    assert float(metrics.fpr_at_tpr(ties, ties)) == 1.0


def test_nineteen_of_twenty_are_95_percent():
    positive = torch.arange(20.0)
    negative = torch.tensor([0.5, 1.5])
    assert float(metrics.fpr_at_tpr(negative, positive)) == 0.5  # the threshold is 1, not 0


@PROPERTY
@given(SCORES, SCORES)
def test_detection_depends_on_ranks_only(negative, positive):
    negative, positive = (torch.tensor(values, dtype=torch.float64) for values in (negative, positive))
    for metric in (metrics.aupr, metrics.fpr_at_tpr):
        found = float(metric(negative, positive))
        assert 0 <= found <= 1
        assert found == pytest.approx(float(metric(negative.exp() - 7, positive.exp() - 7)), abs=1e-12)
    assert float(metrics.fpr_at_tpr(negative, positive)) == fpr_of_curve(negative, positive, 0.95)


def test_infinite_scores_are_ranks_too():
    assert float(metrics.aupr(torch.tensor([-torch.inf, 0.0]), torch.tensor([torch.inf]))) == 1.0


@pytest.mark.parametrize("tpr", [0, 1.5, True, "high"])
def test_a_share_out_of_range(tpr):
    with pytest.raises(ValueError, match=r"tpr is .*: expected a number above 0, at most 1"):
        metrics.fpr_at_tpr(torch.zeros(2), torch.ones(2), tpr=tpr)


def predictions(n, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    p = (2 * torch.randn(n, classes, dtype=torch.float64, generator=generator)).softmax(-1)
    return p, torch.randint(classes, (n,), generator=generator)


def risks_by_loops(p, y, confidence):
    order = np.argsort(-confidence.numpy(), kind="stable")
    wrong = (p.argmax(-1) != y).numpy()[order]
    return [wrong[:k].mean() for k in range(1, len(y) + 1)]


def test_risk_by_coverage_equals_a_loop():
    p, y = predictions(50)
    coverage, risk = metrics.risk_coverage(p, y)
    assert coverage.tolist() == pytest.approx([k / 50 for k in range(1, 51)])
    assert risk.tolist() == pytest.approx(risks_by_loops(p, y, p.amax(-1)))
    assert float(metrics.aurc(p, y)) == pytest.approx(np.mean(risks_by_loops(p, y, p.amax(-1))))
    assert float(risk[-1]) == pytest.approx(1 - float(metrics.accuracy(p, y)))
    other = -metrics.entropy(p)
    assert metrics.risk_coverage(p, y, other)[1].tolist() == pytest.approx(risks_by_loops(p, y, other))
    assert metrics.risk_coverage(p, y, -other)[1].tolist() != pytest.approx(risks_by_loops(p, y, other))  # planted


def test_aurc_by_hand():
    top = torch.tensor([0.9, 0.8, 0.7, 0.6])
    p = torch.stack([top, 1 - top], 1)
    assert float(metrics.aurc(p, torch.tensor([0, 0, 0, 1]))) == pytest.approx((0 + 0 + 0 + 1 / 4) / 4)
    assert float(metrics.aurc(p, torch.tensor([1, 0, 0, 0]))) == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_ties_are_averaged_over_their_orders():
    """The curve of tied examples is the mean over random orders, within five standard errors of it."""
    p = torch.tensor([[0.9, 0.1], *[[0.7, 0.3]] * 6, [0.6, 0.4]], dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 0, 0, 0, 0, 1])
    generator = torch.Generator().manual_seed(0)
    sampled = []
    for _ in range(2000):
        order = torch.randperm(8, generator=generator)
        sampled.append(risks_by_loops(p[order], y[order], p[order].amax(-1)))
    mean, error = np.mean(sampled, 0), np.std(sampled, 0) / 2000**0.5
    found = metrics.risk_coverage(p, y)[1].numpy()
    assert (np.abs(found - mean) <= 5 * error + 1e-12).all()
    as_they_come = np.array(risks_by_loops(p, y, p.amax(-1)))  # planted: one order
    assert (np.abs(as_they_come - mean) > 5 * error + 1e-12).any()


@PROPERTY
@given(st.integers(1, 30), st.integers(0, 2**20))
def test_aurc_is_bounded_and_blind_to_order(n, seed):
    p, y = predictions(n, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    found = float(metrics.aurc(p, y))
    assert 0 <= found <= 1
    assert found == pytest.approx(float(metrics.aurc(p[order], y[order])), abs=1e-12)
    same = torch.zeros(n, dtype=torch.float64)  # a confidence that tells nothing has the error rate
    assert float(metrics.aurc(p, y, same)) == pytest.approx(1 - float(metrics.accuracy(p, y)), abs=1e-12)


def test_a_confidence_of_another_shape():
    p, y = predictions(5)
    with pytest.raises(ValueError, match=r"confidence has shape \[4\]: expected \[5\]"):
        metrics.risk_coverage(p, y, torch.zeros(4))
