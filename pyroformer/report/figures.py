"""The figures of a report, as SVG that stands inside a page and takes its colours from it."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib
import torch
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from torch import Tensor

from ..results import Comparison, Result
from .columns import HIDDEN, TEST, is_severity
from .plots import (
    GRID,
    INK,
    MUTED,
    Style,
    elbo_curves,
    flat_labelled,
    regression_band,
    reliability_diagram,
    run_lines,
    validation_curves,
)

THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)"}
PARTS = {
    "elbo": "ELBO",
    "log_likelihood": "log-likelihood",
    "kl": "KL",
    "row_kl": "KL of rows",
    "log_joint": "log joint",
}
MOST_POINTS = 400


@dataclass(frozen=True)
class Panel:
    """One figure of a page: the method it is about, its SVG, and a line below."""

    method: str
    svg: Markup
    caption: str = ""


def to_svg(figure: Figure, label: str) -> Markup:
    """A figure as an SVG element without outside references: text stays text, greys become variables of the page."""
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has fonts of its own
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for color, variable in THEMED.items():
        svg = svg.replace(color, variable)
    label = str(Markup.escape(label))
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1))


def swatch(style: Style) -> Markup:
    """A short piece of a method's line, to stand beside its name."""
    dashes = {"-": "none", "--": "6 3", ":": "2 2", "-.": "7 2 2 2"}[style["linestyle"]]
    line = '<path d="M0 3H22" stroke="{}" stroke-dasharray="{}"/>'
    return Markup(f'<svg class="swatch" viewBox="0 0 22 6" aria-hidden="true">{line}</svg>').format(
        style["color"], dashes
    )


def figure(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of that many inches with axes below each other."""
    made = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))
    return made, list(made.subplots(rows, 1, sharex=rows > 1, squeeze=False)[:, 0])


def reliability_panels(comparison: Comparison) -> dict[str, list[Panel]]:
    """By set, the reliability diagram of each method, pooled over its seeds."""
    panels: dict[str, list[Panel]] = {}
    for name in comparison.sets():
        for method in comparison.methods if name not in HIDDEN and not is_severity(name) else ():
            pairs = [_labelled(result, name) for result in comparison.of(method)]
            kept = [pair for pair in pairs if pair is not None]
            if not kept:
                continue
            p, y = (torch.cat(parts) for parts in zip(*kept, strict=True))
            made, (ax,) = figure(2.1, 2.45)
            reliability_diagram(ax, p, y)
            caption = f"{len(y):,} predictions" + (f", {len(kept)} seeds" if len(kept) > 1 else "")
            svg = to_svg(made, f"reliability of {method} on {name}")
            panels.setdefault(name, []).append(Panel(method, svg, caption))
    return panels


def _labelled(result: Result, name: str) -> tuple[Tensor, Tensor] | None:
    p, y = (result.predictions.get(f"{name}.{key}") for key in ("probabilities", "labels"))
    if p is None or y is None:
        return None
    p, y = flat_labelled(p, y)
    return (p, y) if len(y) and torch.isfinite(p).all() else None


def bound_panels(comparison: Comparison, styles: Mapping[str, Style]) -> list[Panel]:
    """For each method its bound and the parts of it below each other; without a prior's weight the likelihood alone."""
    panels = []
    for method in comparison.methods:
        histories = [result.history for result in comparison.of(method)]
        weights = [record["beta"] for history in histories for record in history if "beta" in record]
        wanted = ["log_likelihood"] if weights and not any(weights) else list(PARTS)
        lines = {part: [line for history in histories for line in run_lines(history, part)] for part in wanted}
        # a part that is zero throughout is not there
        parts = [part for part, found in lines.items() if any(y.any() for _, y in found)]
        if not parts:
            continue
        made, axes = figure(3.1, 0.5 + 1.1 * len(parts), len(parts))
        for ax, part in zip(axes, parts, strict=True):
            elbo_curves(ax, histories, part=part, color=styles[method]["color"])
            ax.set_title(PARTS[part], fontsize=8.5, color=INK, loc="left", pad=3)
            ax.set(xlabel=ax.get_xlabel() if ax is axes[-1] else "", ylabel="")
        runs = len(lines[parts[0]])
        panels.append(Panel(method, to_svg(made, f"training of {method}"), f"{runs} runs" if runs > 1 else "1 run"))
    return panels


def validation_figure(comparison: Comparison, styles: Mapping[str, Style]) -> tuple[list[str], Markup | None]:
    """The methods that have validation curves, and a figure of them that leaves their names to the page."""
    histories = {method: [result.history for result in comparison.of(method)] for method in comparison.methods}
    named = [method for method, runs in histories.items() if any(run_lines(h, "validation_nll") for h in runs)]
    if not named:
        return [], None
    made, (ax,) = figure(4.6, 2.8)
    validation_curves(ax, histories, styles=styles, legend=False)
    return named, to_svg(made, "validation NLL by epoch")


def band_panels(comparison: Comparison, styles: Mapping[str, Style]) -> list[Panel]:
    """For each method on one real input the band of its first seed over all sets, on a common scale.

    Observations outside the test set are hollow. Of several outputs the first is drawn.
    """
    bands = {method: joined(comparison.of(method)[0]) for method in comparison.methods}
    bands = {method: band for method, band in bands.items() if band and all(t.isfinite().all() for t in band.values())}
    if not bands:
        return []
    y = torch.cat([band["y"] for band in bands.values()])
    low, high = float(y.min()), float(y.max())
    room = 0.5 * (high - low) or 1.0
    panels = []
    for method, band in bands.items():
        made, (ax,) = figure(3.4, 2.5)
        regression_band(ax, **band, color=styles[method]["color"])
        ax.set_ylim(low - room, high + room)
        seed = comparison.of(method)[0].seed
        panels.append(Panel(method, to_svg(made, f"band of {method}"), f"seed {seed}"))
    return panels


def joined(result: Result) -> dict[str, Tensor]:
    """The predictions over all sets with one real input, as `regression_band` takes them; at most 400 a set."""
    kept = result.predictions
    keys = ("x", "mean", "lower", "upper", "y")
    sets = [n for n in dict.fromkeys(key.rpartition(".")[0] for key in kept) if n not in HIDDEN]
    sets = [n for n in sets if all(f"{n}.{key}" in kept for key in keys)]
    if not sets:
        return {}
    chosen = [{key: _first(kept[f"{n}.{key}"]) for key in keys} for n in sets]
    apart = [torch.full(part["x"].shape, n != TEST) for n, part in zip(sets, chosen, strict=True)]
    return {**{key: torch.cat([part[key] for part in chosen]) for key in keys}, "apart": torch.cat(apart)}


def _first(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1)[:MOST_POINTS, 0]
