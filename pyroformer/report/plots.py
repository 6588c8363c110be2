"""Plots of predictions and of training. Each function draws on the axes it is given and returns them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from torch import Tensor

from ..inference import metrics
from .columns import is_number

INK, MUTED, GRID = "#24292f", "#6e7781", "#d0d7de"
BAR, OVER, UNDER = "#9aa5b1", "#d55e00", "#0072b2"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Okabe and Ito's colours, which colour-blind readers tell apart; grey for their black, and no yellow."""
LINES = ("-", "--", ":", "-.")
SMALL = 8.0  # points

History = Sequence[Mapping[str, Any]]
Style = dict[str, str]
Line = tuple[np.ndarray, np.ndarray]


def method_styles(methods: Iterable[str]) -> dict[str, Style]:
    """A colour and a line style for each method; the colours repeat after seven, in another line style."""
    styles = [{"color": color, "linestyle": line} for line, color in product(LINES, COLORS)]
    return {method: styles[index % len(styles)] for index, method in enumerate(methods)}


def flat_labelled(probabilities: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Predictions ``[N, C]`` or ``[N, T, C]`` and labels as ``[M, C]`` and ``[M]``, without those labelled below 0."""
    seen = labels.flatten() >= 0
    return probabilities.flatten(0, -2)[seen], labels.flatten()[seen]


def reliability_diagram(
    ax: Axes, probabilities: Tensor, labels: Tensor, *, bins: int = 15, color: str = BAR, histogram: bool = True
) -> Axes:
    r"""Accuracy by confidence of the top label; what lies between the two is shaded.

    .. math:: \mathrm{ECE} = \sum_b \tfrac{|B_b|}{N} |\mathrm{acc}(B_b) - \mathrm{conf}(B_b)|

    Args:
        ax: Where to draw.
        probabilities: ``[N, C]``, or ``[N, T, C]`` per token.
        labels: ``[N]`` or ``[N, T]``; those below 0 are left out.
        bins: Of equal width, default 15.
        color: Of the bars.
        histogram: Draw the share of examples in each bin, in a strip above; default True.

    Raises:
        ValueError: No example is labelled, or the predictions are no probabilities.

    Reference:
        Guo et al. (2017), arXiv:1706.04599, Fig. 1.
    """
    p, y = flat_labelled(probabilities, labels)
    by_bin = metrics.reliability(p, y, bins=bins)
    used = (by_bin.count > 0).cpu().numpy()
    count, confidence, accuracy = (t.cpu().numpy()[used] for t in (by_bin.count, by_bin.confidence, by_bin.accuracy))
    centers = (np.arange(bins)[used] + 0.5) / bins
    width = 0.9 / bins
    ax.bar(centers, accuracy, width, color=color, label="accuracy")
    for over, shade in ((confidence > accuracy, OVER), (confidence < accuracy, UNDER)):
        ax.bar(centers[over], (confidence - accuracy)[over], width, bottom=accuracy[over], color=shade, alpha=0.45)
    ax.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=(0, (3, 2)))
    ece = float(metrics.calibration_error(p, y, bins=bins))
    above = 1.21 if histogram else 1.03
    ax.text(0, above, f"ECE {100 * ece:.1f} %", transform=ax.transAxes, va="bottom", fontsize=SMALL + 1, color=INK)
    _tidy(ax, "confidence", "accuracy")
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1), aspect="equal")
    if histogram:
        strip = ax.inset_axes((0, 1.03, 1, 0.16))
        strip.bar(centers, count / count.sum(), width, color=MUTED)
        strip.set(xlim=(0, 1), xticks=[], yticks=[])
        strip.spines[["top", "left", "right"]].set_visible(False)
        strip.spines["bottom"].set_color(GRID)
        strip.patch.set_visible(False)
    return ax


def elbo_curves(
    ax: Axes, histories: Sequence[History], *, part: str = "elbo", color: str = COLORS[0], linestyle: str = "-"
) -> Axes:
    """The bound, or a part of it, by epoch: the mean over runs, and the range of the runs as a band.

    Args:
        ax: Where to draw.
        histories: One a seed. Members of an ensemble and chains count as runs of their own.
        part: A key of the records: ``elbo`` (default), ``log_likelihood``, ``kl``, ``row_kl``; for draws ``log_joint``.
        color, linestyle: Of the mean.

    Where the first fifth of the epochs would squeeze the rest, the axis leaves it out and says so.
    """
    lines = [line for history in histories for line in run_lines(history, part)]
    if lines:
        x, runs = _together(lines)
        ax.plot(x, runs.mean(0), color=color, linestyle=linestyle, linewidth=1.4)
        if len(runs) > 1:
            ax.fill_between(x, runs.min(0), runs.max(0), color=color, alpha=0.2, linewidth=0)
    _tidy(ax, "draw" if any("draw" in record for history in histories for record in history) else "epoch", "nats")
    _settle(ax, lines)
    return ax


def validation_curves(
    ax: Axes,
    histories: Mapping[str, Sequence[History]],
    *,
    styles: Mapping[str, Style] | None = None,
    legend: bool = True,
) -> Axes:
    """Validation NLL by epoch: for each method the mean over seeds, and every run behind it in a faint line.

    Args:
        ax: Where to draw.
        histories: By method, one a seed. The members of an ensemble are runs of their own: their mean is not the
            ensemble's NLL, which is lower.
        styles: Of the methods, default `method_styles`.
        legend: Name the methods to the right of the axes, default True.
    """
    styles = styles or method_styles(histories)
    handles, names, everything = [], [], []
    for method, runs in histories.items():
        lines = [line for history in runs for line in run_lines(history, "validation_nll")]
        if not lines:
            continue
        if len(lines) > 1:
            for x, y in lines:
                ax.plot(x, y, **styles[method], linewidth=0.6, alpha=0.3)  # type: ignore[arg-type]
        x, together = _together(lines)
        handles += ax.plot(x, together.mean(0), **styles[method], linewidth=1.6)  # type: ignore[arg-type]
        names.append(method)
        everything += lines
    _tidy(ax, "epoch", "validation NLL (nats)")
    _settle(ax, everything, log=True)
    if legend and names:
        texts = ax.legend(handles, ["-"] * len(names), loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False)
        for text, method in zip(texts.get_texts(), names, strict=True):
            # a name is text of the user's: "$" must not start a formula, nor "_" hide the entry
            text.set(parse_math=False, text=method, fontsize=SMALL)
    return ax


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
    return _tidy(ax, "x", "y")


def run_lines(history: History, key: str) -> list[Line]:
    """One line a run (a member, a chain, or all): positions and the finite values of ``key`` at them."""
    runs: dict[tuple[Any, Any], list[tuple[float, float]]] = {}
    for record in history:
        run = runs.setdefault((record.get("member"), record.get("chain")), [])
        # draws are numbered anew after the warm-up, epochs are not
        place = record.get("epoch", len(run) + 1)
        run.append((place, record[key] if is_number(record.get(key)) else np.nan))
    lines = [np.array(run, dtype=float).T for run in runs.values()]
    finite = [line[:, np.isfinite(line[1])] for line in lines]
    return [(line[0], line[1]) for line in finite if line.size]


def _together(lines: Sequence[Line]) -> Line:
    """The positions that every line has, or those of the longest line, and the values there ``[lines, positions]``."""
    common = sorted(set.intersection(*(set(x.tolist()) for x, _ in lines)))
    if not common:
        x, y = max(lines, key=lambda line: len(line[0]))
        return x, y[None]
    return np.array(common), np.stack([y[np.isin(x, common)] for x, y in lines])


def _settle(ax: Axes, lines: Sequence[Line], log: bool = False) -> None:
    """Limits for the values after the first fifth, where the values of the first fifth would hide them."""
    late = [y[len(y) // 5 :] for _, y in lines]
    if not late:
        return
    low, high = min(float(y.min()) for y in late), max(float(y.max()) for y in late)
    first, last = min(float(y.min()) for _, y in lines), max(float(y.max()) for _, y in lines)
    if log and low > 0 and high > 20 * low:
        ax.set_yscale("log")
        return
    span = (high - low) or abs(high) or 1.0
    if last - first <= 4 * span:
        return
    below, above = first < low - span, last > high + span
    ax.set_ylim(
        low - 0.08 * span if below else first - 0.05 * span, high + 0.08 * span if above else last + 0.05 * span
    )
    where = " and ".join(name for name, hidden in (("below", below), ("above", above)) if hidden)
    place = (
        {"x": 0.98, "y": 0.04, "ha": "right", "va": "bottom"}
        if below
        else {"x": 0.98, "y": 0.97, "ha": "right", "va": "top"}
    )
    ax.text(**place, s=f"start is {where}", transform=ax.transAxes, fontsize=SMALL - 1, color=MUTED)  # type: ignore[arg-type]


def _tidy(ax: Axes, x: str, y: str) -> Axes:
    ax.set_axisbelow(True)
    ax.grid(axis="y", color=GRID, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(GRID)
    ax.tick_params(labelsize=SMALL, color=GRID, labelcolor=MUTED, length=2.5)
    ax.set_xlabel(x, fontsize=SMALL, color=MUTED, labelpad=2)
    ax.set_ylabel(y, fontsize=SMALL, color=MUTED, labelpad=2)
    ax.margins(x=0.02)
    return ax
