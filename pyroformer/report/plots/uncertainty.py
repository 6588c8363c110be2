"""What predictions are unsure of, set by set."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from .style import BAR, COLORS, SMALL, tidy

PART_COLORS = {"data": BAR, "rows": COLORS[1], "weights": COLORS[2]}
"""Of the parts of the uncertainty, from the left to the right of a bar."""


def uncertainty_bars(ax: Axes, parts: Mapping[str, Mapping[str, float]], label: str = "entropy (nats)") -> Axes:
    """Stacked bars of the parts of the mean predictive uncertainty: of the data, of the rows, of the weights.

    Args:
        ax: Where to draw.
        parts: By set, the mean of ``data``, ``rows`` and ``weights``.
        label: Of the horizontal axis.
    """
    places = np.arange(len(parts))[::-1]
    left = np.zeros(len(parts))
    for name, color in PART_COLORS.items():
        values = np.array([found[name] for found in parts.values()])
        ax.barh(places, values, 0.62, left=left, color=color, label=name)
        left += values
    tidy(ax, label, "")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=ax.spines["left"].get_edgecolor(), linewidth=0.6)
    ax.set_yticks(places, list(parts), fontsize=SMALL)
    for text in ax.get_yticklabels():
        text.set_parse_math(False)  # names of sets are a user's
    ax.set_xlim(0, float(left.max()) * 1.02 or 1.0)
    return ax
