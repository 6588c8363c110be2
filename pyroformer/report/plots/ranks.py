"""Ranks of draws among those of all chains."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from ...inference.diagnostics.ranks import average_ranks
from .style import COLORS, MUTED, tidy

BINS = 20
FEWEST = 25
"""Draws of a chain that a bin should hold."""


def rank_lines(ax: Axes, values: Tensor) -> Axes:
    """How often each chain has which ranks among the draws of all: flat lines where chains agree.

    A chain with another mean slopes, one with another scale is curved. The band holds nine of ten bins of independent
    draws; chains whose draws depend on each other leave it somewhat more often.

    Args:
        ax: Where to draw.
        values: ``[K, S]``.

    Reference:
        Vehtari et al., 2021, "Rank-normalization, folding, and localization", Sec. 5 (rank plots).
    """
    chains, draws = values.shape
    ranks = average_ranks(values.double().cpu().reshape(-1, 1)).reshape(chains, draws).numpy()
    bins = max(4, min(BINS, draws // FEWEST))
    edges = np.linspace(0, chains * draws, bins + 1)
    reach = 1.645 * np.sqrt((bins - 1) / draws * (1 - 1 / chains))  # ranks are drawn without replacement
    ax.axhspan(1 - reach, 1 + reach, color=MUTED, alpha=0.15, linewidth=0)
    for index, chain in enumerate(ranks):
        share = np.histogram(chain - 0.5, edges)[0] * bins / draws
        color = COLORS[index % len(COLORS)]
        ax.stairs(share, edges / (chains * draws), baseline=None, color=color, linewidth=1.1, alpha=0.85)
    tidy(ax, "rank among all draws", "density")
    ax.set(xlim=(0, 1), ylim=(0, None), xticks=(0, 0.5, 1), xticklabels=("lowest", "middle", "highest"))
    for text, side in zip(ax.get_xticklabels(), ("left", "center", "right"), strict=True):
        text.set(ha=side)
    return ax
