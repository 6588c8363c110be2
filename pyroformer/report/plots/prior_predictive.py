"""What functions of a prior are like, before any training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator
from torch import Tensor

from .style import BAR, COLORS, INK, MUTED, OVER, SMALL, tidy

BINS = 24
LINES = 25


def function_entropies(ax: Axes, entropies: Tensor, averaged: float, *, classes: int) -> Axes:
    """How often which entropy of one function at one input occurs, and the entropy of the averaged prediction.

    Args:
        ax: Where to draw.
        entropies: ``[S, N]``, in nats.
        averaged: Mean over inputs of the entropy of the averaged prediction, a line.
        classes: Number of classes ``C``; the axis ends at ``log C``.
    """
    most = math.log(classes)
    found = entropies.flatten().double().cpu().numpy()
    counts, edges = np.histogram(found.clip(0, most), BINS, (0, most))
    ax.stairs(counts / len(found), edges, fill=True, color=BAR, alpha=0.8)
    ax.axvline(averaged, color=OVER, linewidth=1.4)
    left = averaged > most / 2
    ax.text(
        averaged, 0.97, " average ", transform=ax.get_xaxis_transform(), va="top",
        ha="right" if left else "left", fontsize=SMALL, color=OVER,
    )  # fmt: skip
    tidy(ax, "entropy (nats)", "share")
    ax.set(xlim=(0, most * 1.005), ylim=(0, None))
    return ax


def commonest_class(ax: Axes, share: Tensor, *, classes: int, nearly_all: float = 0.95) -> Axes:
    """How many of the inputs get the class that a function predicts most often: at 1 the function is a constant.

    Args:
        ax: Where to draw.
        share: ``[S]``, one a function.
        classes: Number of classes ``C``; a function that uses all alike has the share ``1 / C``.
        nearly_all: What counts as nearly all inputs, default 0.95; the bar from there on stands out.
    """
    found = share.double().cpu().numpy()
    edges = np.linspace(0, 1, 21)
    counts = np.histogram(found, edges)[0] / len(found)
    colors = [OVER if low >= nearly_all - 1e-9 else BAR for low in edges[:-1]]
    ax.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colors, alpha=0.8)
    ax.axvline(1 / classes, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    tidy(ax, "inputs in a function's commonest class", "share of functions")
    ax.set(xlim=(0, 1), ylim=(0, None))
    return ax


def prior_functions(ax: Axes, x: Tensor, functions: Tensor) -> Axes:
    """The first few functions of a prior, and behind them the central 90 % of all.

    Args:
        ax: Where to draw.
        x: ``[N]``, sorted.
        functions: ``[S, N]``.
    """
    at, lines = x.double().cpu().numpy(), functions.double().cpu().numpy()
    low, high = np.quantile(lines, (0.05, 0.95), axis=0)
    ax.fill_between(at, low, high, color=COLORS[0], alpha=0.15, linewidth=0)
    ax.plot(at, lines[:LINES].T, color=COLORS[0], linewidth=0.7, alpha=0.6)
    tidy(ax, "x", "f(x)")
    reach = 1.6 * max(abs(float(low.min())), abs(float(high.max())), 1e-12)
    ax.set_ylim(-reach, reach)  # one function of a heavy-tailed prior would squeeze the others
    return ax


def attention_entropies(ax: Axes, relative: Mapping[str, Sequence[float]]) -> Axes:
    """Mean entropy of attention rows by layer and head: 1 is uniform, 0 is one-hot.

    Args:
        ax: Where to draw.
        relative: By layer, one number a head: the entropy over the largest that it could be.
    """
    start, ticks = 0.0, []
    for index, heads in enumerate(relative.values()):
        places = start + np.arange(len(heads))
        ax.bar(places, list(heads), 0.8, color=COLORS[index % len(COLORS)], alpha=0.8)
        ticks.append(float(places.mean()))
        start = float(places[-1]) + 2
    ax.axhline(1, color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    tidy(ax, "layers, with their heads", "entropy / log T")
    ax.set(ylim=(0, 1.06), xticks=ticks, xticklabels=[str(index) for index in range(len(relative))])
    return ax


def token_sizes(ax: Axes, sizes: Mapping[str, tuple[float, float, float]]) -> Axes:
    """Root mean square of the tokens before the first and behind every block, on a logarithmic axis.

    Args:
        ax: Where to draw.
        sizes: By place, the quantiles of 5, 50 and 95 % over functions.
    """
    low, middle, high = (np.array(part) for part in zip(*sizes.values(), strict=True))
    places = np.arange(len(middle))
    ax.errorbar(places, middle, (middle - low, high - middle), fmt="o-", color=COLORS[0], markersize=4, linewidth=1.2)
    tidy(ax, "block", "root mean square")
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.minorticks_off()
    ax.set_xticks(places, ["in", *map(str, places[:-1])])
    return ax
