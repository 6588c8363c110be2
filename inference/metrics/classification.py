"""Scores of class probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import classified


def accuracy(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Fraction of examples whose most probable class (the first one of a tie) is the label.

    :Args: probabilities ``[N, C]``, rows summing to 1 within 1e-3; labels ``[N]``, int64 or int32, 0 to C - 1.
    :Returns: :math:`\frac1N \sum_n 1[\arg\max_c p_{nc} = y_n]`, ``[]``, in [0, 1].
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Hastie, Tibshirani and Friedman (2009), The Elements of Statistical Learning, section 2.4 (0-1 loss)."""
    p, y = classified(probabilities, labels)
    return (p.argmax(-1) == y).double().mean()


def negative_log_likelihood(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Mean negative log probability of the labels, clamped at the smallest positive (normal) float of the dtype given.

    :Args: probabilities ``[N, C]``, rows summing to 1 within 1e-3; labels ``[N]``, int64 or int32, 0 to C - 1.
    :Returns: :math:`-\frac1N \sum_n \log \max(p_{n y_n}, \epsilon)`, ``[]``; epsilon is 1.2e-38 (87.3 nats) in float32.
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Gneiting and Raftery (2007), Strictly proper scoring rules, section 3 (logarithmic score)."""
    p, y = classified(probabilities, labels)
    return -p.gather(-1, y[:, None]).clamp(min=torch.finfo(probabilities.dtype).tiny).log().mean()


def brier(probabilities: Tensor, labels: Tensor) -> Tensor:
    r"""Multiclass Brier score: the squared error summed over classes (not halved, not averaged), mean over examples.

    :Args: probabilities ``[N, C]``, rows summing to 1 within 1e-3; labels ``[N]``, int64 or int32, 0 to C - 1.
    :Returns: :math:`\frac1N \sum_n \sum_c (p_{nc} - 1[y_n = c])^2`, ``[]``, in [0, 2].
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Brier (1950), Verification of forecasts expressed in terms of probability, equation 2."""
    p, y = classified(probabilities, labels)
    return (p - torch.nn.functional.one_hot(y, p.shape[-1])).square().sum(-1).mean()
