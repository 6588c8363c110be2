"""Regression on one input."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from .style import COLORS, INK, MUTED, tidy


def regression_band(
    ax: Axes,
    x: Tensor,
    mean: Tensor,
    lower: Tensor,
    upper: Tensor,
    y: Tensor | None = None,
    *,
    apart: Tensor | None = None,
    color: str = COLORS[0],
) -> Axes:
    """The predictive mean and interval of a regression on one input.

    Args:
        ax: Where to draw.
        x: ``[N, 1]`` or ``[N]``, in any order.
        mean, lower, upper: ``[N, 1]`` or ``[N]``.
        y: Observations at ``x``, or None.
        apart: ``[N]``, which observations are drawn hollow, as those of a shifted set; default none.
        color: Of the mean and the band.
    """
    order = x.flatten().argsort()
    at, middle, low, high = (t.flatten()[order].cpu().numpy() for t in (x, mean, lower, upper))
    ax.fill_between(at, low, high, color=color, alpha=0.25, linewidth=0)
    ax.plot(at, middle, color=color, linewidth=1.6)
    if y is not None:
        observed = y.flatten()[order].cpu().numpy()
        hollow = np.zeros(len(at), bool) if apart is None else apart.flatten()[order].cpu().numpy()
        ax.plot(at[~hollow], observed[~hollow], ".", color=INK, markersize=2.5, alpha=0.7)
        ax.plot(
            at[hollow], observed[hollow], "o", color=MUTED, markerfacecolor="none", markersize=2.8, markeredgewidth=0.6
        )
    return tidy(ax, "x", "y")
