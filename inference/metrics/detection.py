"""How well a score tells two sets of examples apart."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .checks import real


def auroc(scores_negative: Tensor, scores_positive: Tensor) -> Tensor:
    r"""Area under the ROC curve by ranks: how often a positive outranks a negative, a tie counting half (Mann-Whitney).

    :Args: scores_negative ``[N]`` and scores_positive ``[M]``, on any scale (infinities too), higher for positives.
    :Returns: :math:`\frac1{NM} \sum_{nm} (1[s^+_m > s^-_n] + \frac12 1[s^+_m = s^-_n])`, ``[]``, exact, in [0, 1].
    :Raises: ValueError for a wrong type or shape, NaN, or an empty class.
    :Reference: Hanley and McNeil (1982), Radiology 143, 29-36."""
    negative, positive = _scores(scores_negative, scores_positive)
    negative = negative.sort().values
    twice = torch.searchsorted(negative, positive) + torch.searchsorted(negative, positive, right=True)
    return twice.sum().double() / (2 * len(negative) * len(positive))  # whole numbers: no rounding before this


def aupr(scores_negative: Tensor, scores_positive: Tensor) -> Tensor:
    r"""Area under the precision-recall curve as average precision, without interpolation between thresholds.

    Chance has the share of the positives, :math:`M / (N + M)`, so values of sets of other sizes cannot be compared.

    :Args: scores_negative ``[N]`` and scores_positive ``[M]``, on any scale (infinities too), higher for positives.
    :Returns: :math:`\frac1M \sum_m \mathrm{precision}(s^+_m)`, ``[]``, where the precision at a threshold is the share
        of positives among all scores at or above it.
    :Raises: ValueError for a wrong type or shape, NaN, or an empty class.
    :Reference: Davis and Goadrich (2006), The relationship between precision-recall and ROC curves."""
    negative, positive = _scores(scores_negative, scores_positive)
    above, flagged = _at_or_above(positive, positive), _at_or_above(negative, positive)
    return (above / (above + flagged)).mean()


def fpr_at_tpr(scores_negative: Tensor, scores_positive: Tensor, *, tpr: float = 0.95) -> Tensor:
    r"""The share of negatives that are flagged when at least a share ``tpr`` of the positives is (FPR95).

    :Args: scores_negative ``[N]`` and scores_positive ``[M]``, on any scale (infinities too), higher for positives;
        tpr, above 0 and at most 1, default 0.95.
    :Returns: :math:`\frac1N \sum_n 1[s^-_n \ge t]`, ``[]``, with the largest threshold :math:`t` among the positives
        for which :math:`\frac1M \sum_m 1[s^+_m \ge t] \ge \mathrm{tpr}`.
    :Raises: ValueError for a wrong type or shape, NaN, an empty class, or a ``tpr`` out of range.
    :Reference: Hendrycks, Mazeika and Dietterich (2019), arXiv:1812.04606 (foreign inputs are positives)."""
    negative, positive = _scores(scores_negative, scores_positive)
    if not isinstance(tpr, float | int) or isinstance(tpr, bool) or not 0 < tpr <= 1:
        raise ValueError(f"tpr is {tpr!r}: expected a number above 0, at most 1")
    needed = math.ceil(tpr * len(positive) - 1e-9)  # 0.95 * 20 is 19, whatever the rounding
    threshold = positive.sort(descending=True).values[max(needed, 1) - 1]
    return (negative >= threshold).double().mean()


def _scores(scores_negative: Tensor, scores_positive: Tensor) -> tuple[Tensor, Tensor]:
    return (
        real("scores_negative", scores_negative, "[N]", infinite=True),
        real("scores_positive", scores_positive, "[M]", infinite=True),
    )


def _at_or_above(scores: Tensor, thresholds: Tensor) -> Tensor:
    """How many scores are at or above each threshold."""
    return (len(scores) - torch.searchsorted(scores.sort().values, thresholds)).double()
