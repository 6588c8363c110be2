"""Attention over draws, layer by layer and head by head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from torch import Tensor

from .style import COLORS, GRID, MUTED, SMALL, tidy

MAP_COLORS = {"mean": COLORS[0], "sd": COLORS[1]}


def attention_map(ax: Axes, values: Tensor, *, kind: str = "mean", title: str = "") -> Axes:
    """One matrix of attention by query (down) and key, from nothing to its largest entry, which is told above.

    Args:
        ax: Where to draw.
        values: ``[Q, K]``, the mean or the standard deviation over draws.
        kind: ``mean`` (default) or ``sd``, which choose the colour.
        title: What stands above, before the largest entry.
    """
    full = to_rgb(MAP_COLORS[kind])
    colors = LinearSegmentedColormap.from_list(kind, [(*full, 0.0), (*full, 1.0)])  # nothing is the page's own colour
    found = values.double().cpu().numpy()
    most = float(found.max())
    ax.imshow(found, cmap=colors, vmin=0, vmax=most or 1.0, aspect="auto", interpolation="none")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_color(GRID)
    ax.set_title(f"{title} {most:.2g}".strip(), fontsize=SMALL - 1, color=MUTED, pad=2, parse_math=False)
    return ax


def head_bars(ax: Axes, values: Mapping[str, Sequence[float]], label: str) -> Axes:
    """A quantity of attention rows by layer and head, as bars.

    Args:
        ax: Where to draw.
        values: By layer, one number a head, or one for all.
        label: Of the vertical axis.
    """
    start, ticks = 0.0, []
    for index, heads in enumerate(values.values()):
        places = start + np.arange(len(heads))
        ax.bar(places, list(heads), 0.8, color=COLORS[index % len(COLORS)], alpha=0.8)
        ticks.append(float(places.mean()))
        start = float(places[-1]) + 2
    tidy(ax, "layers, with their heads", label)
    ax.set(ylim=(0, None), xticks=ticks, xticklabels=[str(index) for index in range(len(values))])
    return ax
