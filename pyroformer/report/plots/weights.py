"""What trained weights are like."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from scipy import stats
from torch import Tensor

from .style import COLORS, INK, MUTED, SMALL, tidy

POINTS = 60
FAMILIES = ("normal", "laplace", "student_t")
NAMES = {"normal": "normal", "laplace": "Laplace", "student_t": "Student-t"}


def quantiles_against(
    ax: Axes, values: Tensor, scales: Mapping[str, tuple[float, float]], *, legend: bool = True
) -> Axes:
    """Quantiles of weights against those of fitted families: on the diagonal where the family is right.

    Args:
        ax: Where to draw.
        values: Deviations from the centre, any shape.
        scales: Of ``normal``, ``laplace`` and ``student_t``: the fitted scale, and the degrees of freedom (of the
            last; ignored else).
        legend: Name the families inside the axes, default True.

    Raises:
        ValueError: There are no values.
    """
    found = np.sort(values.flatten().double().cpu().numpy())
    if not len(found):
        raise ValueError("values: expected at least one")
    unit = np.sqrt(np.mean(found**2)) or 1.0
    # evenly spaced in the quantiles of a logistic distribution: as many points in the tails as in the middle
    edge = np.log(2 * len(found) - 1)
    levels = 1 / (1 + np.exp(-np.linspace(-edge, edge, POINTS)))
    seen = np.quantile(found, levels, method="hazen") / unit
    reach = np.abs(seen).max()
    ax.plot([-2 * reach, 2 * reach], [-2 * reach, 2 * reach], color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    for color, family in zip(COLORS, FAMILIES, strict=False):
        scale, df = scales[family]
        law = {"normal": stats.norm(), "laplace": stats.laplace(), "student_t": stats.t(df)}[family]
        ax.plot(
            law.ppf(levels) * scale / unit, seen, ".-", color=color, markersize=3, linewidth=0.8, label=NAMES[family]
        )
    tidy(ax, "quantiles of the family (sd)", "quantiles of weights (sd)")
    ax.set(xlim=(-1.6 * reach, 1.6 * reach), ylim=(-1.1 * reach, 1.1 * reach))
    if legend:
        ax.legend(frameon=False, fontsize=SMALL, loc="upper left", handlelength=1.2, borderpad=0)
    return ax


def correlations_against(ax: Axes, found: Mapping[str, tuple[float, float, float]]) -> Axes:
    """Mean absolute correlations, each with the central range of its permuted null as a bar.

    Args:
        ax: Where to draw.
        found: By name of a line: the statistic, and the mean and the standard deviation under permutation; the bar is
            that mean plus and minus two standard deviations.
    """
    places = np.arange(len(found))[::-1]
    statistic, mean, spread = (np.array(part, dtype=float) for part in zip(*found.values(), strict=True))
    ax.barh(places, 4 * spread, 0.55, left=mean - 2 * spread, color=MUTED, alpha=0.5)
    ax.plot(mean, places, "|", color=MUTED, markersize=9)
    ax.plot(statistic, places, "o", color=COLORS[1], markersize=4.5)
    tidy(ax, "mean absolute correlation", "")
    ax.grid(axis="y", visible=False)
    ax.set_yticks(places, list(found), fontsize=SMALL)
    ax.set_xlim(left=0)
    ax.margins(y=0.08)
    return ax
