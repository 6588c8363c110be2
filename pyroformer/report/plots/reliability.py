"""Accuracy by confidence."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from ...inference import metrics
from .style import BAR, GRID, INK, MUTED, OVER, SMALL, UNDER, tidy


def flat_labelled(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions ``[N, C]`` or ``[N, T, C]`` and labels as ``[M, C]`` and ``[M]``, without those labelled below 0."""
    seen = labels.flatten() >= 0
    return probabilities.flatten(0, -2)[seen], labels.flatten()[seen]


def reliability_diagram(
    ax: Axes, probabilities: Tensor, labels: Tensor, *, bins: int = 15, color: str = BAR, histogram: bool = True
) -> Axes:
    r"""Accuracy by confidence of the top label; what lies between the two is shaded.

    .. math:: \mathrm{ECE} = \sum_b \tfrac{|B_b|}{N} |\mathrm{acc}(B_b) - \mathrm{conf}(B_b)|

    Args:
        ax: Where to draw.
        probabilities: ``[N, C]``, or ``[N, T, C]`` per token.
        labels: ``[N]`` or ``[N, T]``; those below 0 are left out.
        bins: Of equal width, default 15.
        color: Of the bars.
        histogram: Draw the share of examples in each bin, in a strip above; default True.

    Raises:
        ValueError: No example is labelled, or the predictions are no probabilities.

    Reference:
        Guo et al. (2017), arXiv:1706.04599, Fig. 1.
    """
    p, y = flat_labelled(probabilities, labels)
    by_bin = metrics.reliability(p, y, bins=bins)
    used = (by_bin.count > 0).cpu().numpy()
    count, confidence, accuracy = (t.cpu().numpy()[used] for t in (by_bin.count, by_bin.confidence, by_bin.accuracy))
    centers = (np.arange(bins)[used] + 0.5) / bins
    width = 0.9 / bins
    ax.bar(centers, accuracy, width, color=color, label="accuracy")
    for over, shade in ((confidence > accuracy, OVER), (confidence < accuracy, UNDER)):
        ax.bar(centers[over], (confidence - accuracy)[over], width, bottom=accuracy[over], color=shade, alpha=0.45)
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    ece = float(metrics.calibration_error(p, y, bins=bins))
    above = 1.21 if histogram else 1.03
    ax.text(0, above, f"ECE {100 * ece:.1f} %", transform=ax.transAxes, va="bottom", fontsize=SMALL + 1, color=INK)
    tidy(ax, "confidence", "accuracy")
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    if histogram:
        strip = ax.inset_axes((0, 1.03, 1, 0.16))
        strip.bar(centers, count / count.sum(), width, color=MUTED)
        strip.set(xlim=(0, 1), xticks=[], yticks=[])
        strip.spines[["top", "left", "right"]].set_visible(False)
        strip.spines["bottom"].set_color(GRID)
        strip.patch.set_visible(False)
    return ax
