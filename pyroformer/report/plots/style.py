"""What all plots share: colours, lines, axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

INK, MUTED, GRID = "#24292f", "#6e7781", "#d0d7de"
BAR, OVER, UNDER = "#9aa5b1", "#d55e00", "#0072b2"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Okabe and Ito's colours, which colour-blind readers tell apart; grey for their black, and no yellow."""
LINES = ("-", "--", ":", "-.")
SMALL = 8.0  # points

Style = dict[str, str]


def method_styles(methods: Iterable[str]) -> dict[str, Style]:
    """A colour and a line style for each method; the colours repeat after seven, in another line style."""
    styles = [{"color": color, "linestyle": line} for line, color in product(LINES, COLORS)]
    return {method: styles[index % len(styles)] for index, method in enumerate(methods)}


def tidy(ax: Axes, x: str, y: str) -> Axes:
    """Plain axes with names and light lines."""
    ax.set_axisbelow(True)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)
    ax.tick_params(labelsize=SMALL, color=GRID, labelcolor=MUTED, length=2.5)
    ax.set_xlabel(x, fontsize=SMALL, color=MUTED, labelpad=2)
    ax.set_ylabel(y, fontsize=SMALL, color=MUTED, labelpad=2)
    ax.margins(x=0.02)
    return ax


def name_lines(ax: Axes, lines: Sequence[Line2D], names: Sequence[str]) -> None:
    """Name lines to the right of the axes."""
    if not names:
        return
    texts = ax.legend(lines, ["-"] * len(names), loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
    for text, name in zip(texts.get_texts(), names, strict=True):
        # a name is text of the user's: "$" must not start a formula, nor "_" hide the entry
        text.set(parse_math=False, text=name, fontsize=SMALL)
