"""Differences from a baseline, a line a method."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from .style import COLORS, INK, MUTED, SMALL, tidy


def difference_lines(ax: Axes, values: Mapping[str, tuple[float, float]], label: str, *, names: bool = True) -> Axes:
    """For each method its difference from a baseline and the interval around it, below each other.

    Args:
        ax: Where to draw.
        values: By method the difference and how far its interval reaches to both sides, NaN where it is not known.
        label: What the difference is of.
        names: Write the methods' names, default True.

    Differences far beyond those of most methods stand as arrows at the edge. Those whose interval leaves out 0
    are filled: blue below the baseline, orange above it.
    """
    reach = sorted(abs(mean) + _known(half) for mean, half in values.values())
    edge = 1.15 * max(reach[math.ceil(0.8 * len(reach)) - 1], 1e-6)
    for place, (mean, half) in enumerate(values.values()):
        beyond = abs(mean) > edge
        told = abs(mean) > half
        color = MUTED if not told else COLORS[0] if mean < 0 else COLORS[1]
        x = math.copysign(0.97 * edge, mean) if beyond else mean
        if not beyond and half > 0:
            ax.plot([x - half, x + half], [place, place], color=color, linewidth=1.1, solid_capstyle="butt")
        marker = (">" if mean > 0 else "<") if beyond else "o"
        ax.plot(x, place, marker, color=color, markersize=4, markerfacecolor=color if told else "none")
    tidy(ax, label, "")
    ax.grid(axis="x", color=MUTED, alpha=0.25, linewidth=0.5)
    ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_xlim(-edge, edge)
    ax.locator_params(axis="x", nbins=5)  # panels are narrow
    ax.set_ylim(len(values) - 0.4, -0.6)
    ax.set_yticks(range(len(values)))
    ax.set_yticklabels(list(values) if names else [], fontsize=SMALL, color=INK, parse_math=False)
    return ax


def _known(half: float) -> float:
    return 0.0 if math.isnan(half) else half
