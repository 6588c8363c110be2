"""Whether confidence is as large as accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import classified
from .ties import shared_by_ties


@dataclass(frozen=True, eq=False)
class Reliability:
    """Top-label confidence against accuracy by bin; both are NaN where a bin is empty."""

    count: Tensor  # [bins], int64
    confidence: Tensor  # [bins], mean within the bin
    accuracy: Tensor  # [bins]
    edges: Tensor  # [bins + 1], from 0 to 1

    @property
    def error(self) -> Tensor:
        """The mean distance of accuracy and confidence, each bin weighted by its count."""
        gaps = (self.accuracy - self.confidence).abs()
        return (self.count * gaps).nansum() / self.count.sum()  # NaN: an empty bin


def reliability(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> Reliability:
    r"""The reliability diagram of the top label, over equal-width, right-closed bins (lo, hi] of its probability.

    :Args: probabilities ``[N, C]`` and labels ``[N]``, as in :func:`accuracy`; bins, 1 or more (15: the paper's).
    :Returns: edges e; size, mean :math:`m_n = \max_c p_{nc}`, accuracy of :math:`B_b = \{n : e_{b-1} < m_n \le e_b\}`.
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Guo et al. (2017), arXiv:1706.04599, section 2."""
    p, y = classified(probabilities, labels)
    _check(bins)
    top, predicted = p.detach().max(-1)
    return _binned(top, predicted == y, bins, probabilities.dtype)


def calibration_error(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    r"""Expected calibration error (ECE) of the top label, over equal-width, right-closed bins (lo, hi].

    :Args: probabilities ``[N, C]`` and labels ``[N]``, as in :func:`accuracy`; bins, 1 or more (15: the paper's).
    :Returns: :math:`\sum_b \frac{|B_b|}{N} |\mathrm{acc}(B_b) - \mathrm{conf}(B_b)|`, ``[]``, in [0, 1].
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Guo et al. (2017), arXiv:1706.04599, equation 3."""
    return reliability(probabilities, labels, bins=bins).error


def adaptive_calibration_error(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    r"""Calibration error of the top label over bins that hold as many examples each (AdaECE).

    Examples of the same confidence share their accuracy, so that their order does not count.

    :Args: probabilities ``[N, C]`` and labels ``[N]``, as in :func:`accuracy`; bins, 1 or more, default 15.
    :Returns: :math:`\sum_b \frac{|B_b|}{N} |\mathrm{acc}(B_b) - \mathrm{conf}(B_b)|`, ``[]``, in [0, 1], where the
        sorted confidences are cut into bins whose sizes differ by at most 1; of N below ``bins``, each is its own bin.
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Nguyen and O'Connor (2015), arXiv:1508.05154; Mukhoti et al. (2020), arXiv:2002.09437."""
    p, y = classified(probabilities, labels)
    _check(bins)
    top, predicted = p.detach().clamp(max=1).max(-1)
    order = top.argsort()
    gaps = shared_by_ties(top[order], (predicted == y).double()[order]) - top[order]
    return torch.stack([part.sum().abs() for part in gaps.tensor_split(min(bins, len(y)))]).sum() / len(y)


def classwise_calibration_error(probabilities: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    r"""Calibration error of the probability of each class, over equal-width bins (lo, hi], averaged over classes.

    Unlike ECE it looks at every probability, not at the largest alone; most of them are near 0, so it is smaller.

    :Args: probabilities ``[N, C]`` and labels ``[N]``, as in :func:`accuracy`; bins, 1 or more, default 15.
    :Returns: :math:`\frac1C \sum_c \sum_b \frac{|B_{cb}|}{N} |\mathrm{freq}_c(B_{cb}) - \bar p_c(B_{cb})|`, ``[]``.
    :Raises: ValueError for a wrong type, shape or value, NaN, or no examples.
    :Reference: Kull et al. (2019), arXiv:1910.12656; Nixon et al. (2019), arXiv:1904.01685."""
    p, y = classified(probabilities, labels)
    _check(bins)
    by_class = [_binned(p[:, c].detach(), y == c, bins, probabilities.dtype).error for c in range(p.shape[1])]
    return torch.stack(by_class).mean()


def _binned(confidence: Tensor, hit: Tensor, bins: int, dtype: torch.dtype) -> Reliability:
    """Confidence and hits of ``[N]`` examples by equal-width, right-closed bins."""
    edges = torch.arange(bins + 1, dtype=torch.float64, device=confidence.device) / bins
    # A float32 0.2 lies above the float64 0.2: only edges rounded as the probabilities were put it on its edge.
    confidence = confidence.clamp(max=1)
    index = torch.bucketize(confidence, edges[1:-1].to(dtype).double())
    count, total, hits = (torch.bincount(index, w, bins) for w in (None, confidence, hit.double()))
    return Reliability(count, total / count, hits / count, edges)


def _check(bins: int) -> None:
    if not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins is {bins!r}: expected a whole number, 1 or more")
