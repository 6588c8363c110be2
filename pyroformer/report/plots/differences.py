"""Differences from a baseline, a line a method."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from .style import COLORS, INK, MUTED, SMALL, tidy


def difference_lines(ax: Axes, values: Mapping[str, tuple[float, float]], label: str, *, names: bool = True) -> Axes:
    """For each method its difference from a baseline and two standard errors to both sides, below each other.

    Args:
        ax: Where to draw.
        values: By method the difference and its standard error, NaN where it is not known.
        label: What the difference is of.
        names: Write the methods' names, default True.

    Differences far beyond those of most methods stand as arrows at the edge. Those of more than 2 standard errors are
    filled: blue below the baseline, orange above it.
    """
    reach = sorted(abs(mean) + 2 * _known(error) for mean, error in values.values())
    edge = 1.15 * max(reach[math.ceil(0.8 * len(reach)) - 1], 1e-6)
    for place, (mean, error) in enumerate(values.values()):
        beyond = abs(mean) > edge
        told = abs(mean) > 2 * error
        color = MUTED if not told else COLORS[0] if mean < 0 else COLORS[1]
        x = math.copysign(0.97 * edge, mean) if beyond else mean
        if not beyond and error > 0:
            ax.plot([x - 2 * error, x + 2 * error], [place, place], color=color, linewidth=1.1, solid_capstyle="butt")
        marker = (">" if mean > 0 else "<") if beyond else "o"
        ax.plot(x, place, marker, color=color, markersize=4, markerfacecolor=color if told else "none")
    tidy(ax, label, "")
    ax.grid(axis="x", color=MUTED, alpha=0.25, linewidth=0.5)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_xlim(-edge, edge)
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.set_yticks(range(len(values)))
    ax.set_yticklabels(list(values) if names else [], fontsize=SMALL, color=INK, parse_math=False)
    return ax


def _known(error: float) -> float:
    return 0.0 if math.isnan(error) else error
