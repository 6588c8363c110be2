"""How draws depend on those before them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from ...inference.diagnostics import autocorrelation
from .style import COLORS, INK, MUTED, SMALL, tidy

MOST_LAGS = 100


def autocorrelation_lines(ax: Axes, values: Mapping[str, Tensor], *, legend: bool = True) -> Axes:
    """The correlation of draws with those some steps before, averaged over chains: the faster it falls the better.

    Args:
        ax: Where to draw.
        values: Functions of draws by name, ``[K, S]``.
        legend: Name them inside the axes, default True.

    The band holds 95 % of what independent draws would show.
    """
    names: list[str] = []
    shown = 2
    for index, (name, found) in enumerate(values.items()):
        chains, draws = found.shape
        known = autocorrelation(found).numpy()[: min(MOST_LAGS, draws // 2) + 1]
        if np.isnan(known).any():
            continue
        reach = 1.96 / np.sqrt(chains * draws)
        if not names:
            ax.axhspan(-reach, reach, color=MUTED, alpha=0.15, linewidth=0)
        ax.plot(np.arange(len(known)), known, color=COLORS[index % len(COLORS)], linewidth=1.3)
        names.append(name)
        small = np.abs(known) < 2 * reach
        # a little further than where the slowest one comes to nothing
        shown = max(shown, len(known) - 1 if not small.any() else min(len(known) - 1, 2 * int(small.argmax()) + 5))
    tidy(ax, "lag (draws)", "correlation")
    ax.axhline(0, color=INK, linewidth=0.6)
    ax.set(xlim=(0, shown), ylim=(min(-0.15, ax.get_ylim()[0]), 1.02))
    if legend and names:
        lines = [line for line in ax.lines if line.get_linewidth() == 1.3]
        texts = ax.legend(lines, ["-"] * len(names), frameon=False, fontsize=SMALL, loc="upper right", borderpad=0)
        for text, name in zip(texts.get_texts(), names, strict=True):
            text.set(parse_math=False, text=name)
    return ax
