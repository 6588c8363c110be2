"""Entropy and its parts."""

from __future__ import annotations

import torch
from torch import Tensor

from .checks import TOLERANCE, real, refuse, simplex


def entropy(probabilities: Tensor, dim: int = -1) -> Tensor:
    r"""Shannon entropy in nats, with 0 log 0 = 0.

    :Args: probabilities ``[..., C, ...]``, summing to 1 over ``dim``; dim, the axis of the classes (default the last).
    :Returns: :math:`-\sum_c p_c \log p_c`, the shape of probabilities without ``dim``, in [0, log C].
    :Raises: ValueError for a wrong type or value, an axis that is not there, NaN, or an empty tensor.
    :Reference: Cover and Thomas (2006), Elements of Information Theory, equation 2.1."""
    return torch.special.entr(simplex("probabilities", probabilities, "[...]", dim)).sum(dim).clamp(min=0)


def predictive_entropy(probabilities: Tensor) -> Tensor:
    r"""Entropy of the mean prediction: the total uncertainty about each label, in nats.

    :Args: probabilities ``[N, C]``, already averaged over samples, rows summing to 1 within 1e-3.
    :Returns: :math:`H[\frac1S \sum_s p_{sn}]`, ``[N]``, in [0, log C].
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Depeweg et al. (2018), arXiv:1710.07283."""
    return entropy(simplex("probabilities", probabilities, "[N, C]"))


def mutual_information(mean_probabilities: Tensor, expected_entropy: Tensor) -> Tensor:
    r"""Mutual information of label and model, in nats: the total uncertainty less the noise expected by the samples.

    :Args: mean_probabilities ``[N, C]``, rows summing to 1; expected_entropy ``[N]``, averaged over the same samples.
    :Returns: :math:`H[\frac1S \sum_s p_{sn}] - \frac1S \sum_s H[p_{sn}]`, ``[N]``, clamped at 0 (rounding, to -1e-3).
    :Raises: ValueError for a wrong type, shape or value, NaN, no examples, or an expected entropy above H[mean].
    :Reference: Houlsby et al. (2011), arXiv:1112.5745, equation 2."""
    total = entropy(simplex("mean_probabilities", mean_probabilities, "[N, C]"))
    expected = real("expected_entropy", expected_entropy, total.shape)  # over the same samples, at most total (Jensen)
    refuse("expected_entropy", expected, (expected < -TOLERANCE) | (expected > total + TOLERANCE), "0 to H[mean]")
    return (total - expected).clamp(min=0)
