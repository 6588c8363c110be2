"""Draws of chains in their order."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from .style import COLORS, OVER, tidy


def trace_lines(ax: Axes, values: Tensor, label: str, *, divergent: Tensor | None = None) -> Axes:
    """One line a chain, draw by draw; chains that agree cover each other and lead nowhere.

    Args:
        ax: Where to draw.
        values: ``[K, S]``.
        label: What they are of.
        divergent: Which transitions diverged, ``[K, S]``: ticks at the foot; default None.
    """
    found = values.double().cpu().numpy()
    draws = found.shape[1]
    width = 0.9 if draws <= 500 else 0.5
    for index, chain in enumerate(found):
        ax.plot(np.arange(1, draws + 1), chain, color=COLORS[index % len(COLORS)], linewidth=width, alpha=0.75)
    tidy(ax, "draw", label)
    ax.set_xlim(1, draws)
    if divergent is not None and bool(divergent.any()):
        places = divergent.any(0).nonzero().flatten().cpu().numpy() + 1
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.06 * (high - low), high)
        ax.vlines(places, low - 0.06 * (high - low), low - 0.015 * (high - low), color=OVER, linewidth=0.8)
    return ax
