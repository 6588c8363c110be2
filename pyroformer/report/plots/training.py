"""Training by epoch, sampling by draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ..columns import is_number
from .style import COLORS, MUTED, SMALL, Style, method_styles, name_lines, tidy

History = Sequence[Mapping[str, Any]]
Line = tuple[np.ndarray, np.ndarray]


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
        x, runs = together(lines)
        ax.plot(x, runs.mean(0), color=color, linestyle=linestyle, linewidth=1.4)
        if len(runs) > 1:
            ax.fill_between(x, runs.min(0), runs.max(0), color=color, alpha=0.2, linewidth=0)
    tidy(ax, "draw" if any("draw" in record for history in histories for record in history) else "epoch", "nats")
    settle(ax, lines)
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
        x, runs_there = together(lines)
        handles += ax.plot(x, runs_there.mean(0), **styles[method], linewidth=1.6)  # type: ignore[arg-type]
        names.append(method)
        everything += lines
    tidy(ax, "epoch", "validation NLL (nats)")
    settle(ax, everything, log=True)
    if legend:
        name_lines(ax, handles, names)
    return ax


def run_lines(history: History, key: str) -> list[Line]:
    """One line a run (a part, a member, a chain, or all): positions and the finite values of ``key`` at them."""
    runs: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    warm: dict[tuple[Any, ...], float] = {}
    for record in history:
        labels = tuple(record.get(label) for label in ("part", "member", "chain"))
        run = runs.setdefault(labels, [])
        place = record.get("epoch", record.get("draw", len(run) + 1))
        if record.get("stage") == "warmup":
            warm[labels] = place
        elif "draw" in record:  # numbered anew after the warm-up
            place += warm.get(labels, 0)
        run.append((place, record[key] if is_number(record.get(key)) else np.nan))
    lines = [np.array(run, dtype=float).T for run in runs.values()]
    finite = [line[:, np.isfinite(line[1])] for line in lines]
    return [(line[0], line[1]) for line in finite if line.size]


def together(lines: Sequence[Line]) -> Line:
    """The positions that every line has, or those of the longest line, and the values there ``[lines, positions]``."""
    common = sorted(set.intersection(*(set(x.tolist()) for x, _ in lines)))
    if not common:
        x, y = max(lines, key=lambda line: len(line[0]))
        return x, y[None]
    return np.array(common), np.stack([y[np.isin(x, common)] for x, y in lines])


def settle(ax: Axes, lines: Sequence[Line], log: bool = False) -> None:
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
