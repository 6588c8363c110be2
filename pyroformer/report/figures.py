"""The figures of a report: which there are, and what is in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from markupsafe import Markup
from torch import Tensor

from ..inference import metrics
from ..results import Comparison, Result
from .against import Standing, standings
from .columns import HIDDEN, MEASURES, TEST, is_number, is_severity
from .plots import (
    difference_lines,
    elbo_curves,
    entropy_histograms,
    prior_posterior,
    regression_band,
    reliability_diagram,
    risk_coverage_curves,
    shift_curves,
    validation_curves,
)
from .plots.reliability import flat_labelled
from .plots.style import INK, Style
from .plots.training import run_lines
from .svg import Panel, figure, to_svg

PARTS = {
    "elbo": "ELBO",
    "log_likelihood": "log-likelihood",
    "kl": "KL",
    "row_kl": "KL of rows",
    "log_joint": "log joint",
}
MOST_POINTS = 400
MOST_SITES = 4
BY_SEVERITY = ("accuracy", "nll", "ece")


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


def risk_coverage_figures(comparison: Comparison, styles: Mapping[str, Style]) -> dict[str, Markup]:
    """By labelled set, the risk-coverage curves of all methods."""
    found = {}
    for name in comparison.sets():
        if name in HIDDEN or is_severity(name):
            continue
        pairs = {method: [_labelled(result, name) for result in comparison.of(method)] for method in comparison.methods}
        kept = {method: [pair for pair in seeds if pair is not None] for method, seeds in pairs.items()}
        if any(kept.values()):
            made, (ax,) = figure(3.4, 2.5)
            risk_coverage_curves(ax, kept, styles=styles, legend=False)
            found[name] = to_svg(made, f"risk by coverage on {name}")
    return found


def standing_panels(comparison: Comparison) -> dict[str, list[tuple[Standing, Markup]]]:
    """By baseline, and by set, where the methods stand, and their differences from the baseline as a figure."""
    panels: dict[str, list[tuple[Standing, Markup]]] = {}
    for standing in standings(comparison):
        found = {method: (gap.mean, gap.half_width) for method, gap in standing.differences.items()}
        made, (ax,) = figure(4.2, 0.6 + 0.17 * len(found))
        difference_lines(ax, found, f"{standing.measure} less that of “{standing.baseline}”, nats")
        label = f"{standing.measure} less that of {standing.baseline}"
        panels.setdefault(standing.baseline, []).append((standing, to_svg(made, label)))
    return panels


def shift_panels(comparison: Comparison, styles: Mapping[str, Style]) -> dict[str, list[Panel]]:
    """By kind of corruption, accuracy and calibration of all methods as its severity grows from 0, the test set."""
    severities = [re.fullmatch(r"(\w+)-([1-5])", name) for name in comparison.sets()]
    kinds = dict.fromkeys(match[1] for match in severities if match)
    panels: dict[str, list[Panel]] = {}
    for kind in kinds:
        sets = [TEST, *(f"{kind}-{severity}" for severity in range(1, 6))]
        for metric in BY_SEVERITY:
            values = {
                method: [
                    [result.metrics[name][metric] for name in sets]
                    for result in comparison.of(method)
                    if all(is_number((result.metrics.get(name) or {}).get(metric)) for name in sets)
                ]
                for method in comparison.methods
            }
            if any(values.values()):
                made, (ax,) = figure(2.9, 2.1)
                label, _, factor = MEASURES[metric]
                shown = {m: [[factor * value for value in seed] for seed in seeds] for m, seeds in values.items()}
                shift_curves(ax, shown, "", styles=styles, legend=False)  # the caption says it
                panels.setdefault(kind, []).append(Panel(label, to_svg(made, f"{label} by severity of {kind}")))
    return panels


def entropy_panels(comparison: Comparison) -> list[Panel]:
    """For each method the entropies of the test set and of the sets from elsewhere, pooled over its seeds."""
    panels = []
    for method in comparison.methods:
        results = comparison.of(method)
        names = [n for n in comparison.sets() if all(_foreign(result, n) for result in results)]
        if not names:
            continue
        pooled = {n: torch.cat([_observed(r, n) for r in results]) for n in (TEST, *names)}
        inside, *outside = (metrics.entropy(p) for p in pooled.values())
        made, (ax,) = figure(2.9, 2.1)
        classes = pooled[TEST].shape[-1]
        entropy_histograms(ax, inside, dict(zip(names, outside, strict=True)), classes=classes)
        panels.append(Panel(method, to_svg(made, f"entropies of {method}")))
    return panels


def _foreign(result: Result, name: str) -> bool:
    """Whether predictions of a set without labels are there, and those of the test set."""
    kept = [f"{TEST}.probabilities", f"{name}.probabilities"]
    finite = all(key in result.predictions and result.predictions[key].isfinite().all() for key in kept)
    return finite and name not in HIDDEN and f"{name}.labels" not in result.predictions


def _observed(result: Result, name: str) -> Tensor:
    """Probabilities of a set ``[M, C]``, without those of tokens that are not observed, where it has labels."""
    p, y = result.predictions[f"{name}.probabilities"], result.predictions.get(f"{name}.labels")
    return p.flatten(0, -2) if y is None else flat_labelled(p, y)[0]


def marginal_panels(comparison: Comparison, styles: Mapping[str, Style]) -> dict[str, list[Panel]]:
    """By method that has a prior, a few sites from the first to the last layer: prior against posterior."""
    panels: dict[str, list[Panel]] = {}
    for method in comparison.methods:
        results = comparison.of(method)
        if not all(_weighs_prior(result) for result in results):
            continue
        sites = [name for name in results[0].marginals if all(name in result.marginals for result in results)]
        owned = {name for name in sites for weight in sites if name.startswith(f"{weight}_")}  # hyper-sites
        names = [name for name in sites if not name.endswith("bias") and name not in owned]
        last = len(names) - 1
        chosen = dict.fromkeys(names[round(i * last / (MOST_SITES - 1))] for i in range(MOST_SITES)) if names else {}
        for name in chosen:
            found = [result.marginals[name] for result in results]
            priors = [marginal.prior for marginal in found if marginal.prior is not None]
            made, (ax,) = figure(2.3, 1.8)
            after = torch.cat([marginal.posterior for marginal in found])
            if not after.isfinite().all():
                continue
            prior_posterior(ax, after, torch.cat(priors) if priors else None, color=styles[method]["color"], label="")
            panels.setdefault(method, []).append(Panel(breakable(name), to_svg(made, f"{name} of {method}")))
    return panels


def breakable(name: str) -> str:
    """A dotted name that a narrow page may break behind each dot."""
    return name.replace(".", ".\u200b")


def own_history(result: Result) -> list[Mapping[str, Any]]:
    """What a method told of itself, without what it started from, unless that is all there is."""
    return [record for record in result.history if record.get("part") != "start"] or list(result.history)


def _weighs_prior(result: Result) -> bool:
    """Whether the fit looked at the prior: maximum likelihood does not."""
    weights = [record["beta"] for record in own_history(result) if "beta" in record]
    return not weights or any(weights)


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
        histories = [own_history(result) for result in comparison.of(method)]
        wanted = list(PARTS) if any(map(_weighs_prior, comparison.of(method))) else ["log_likelihood"]
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
    histories = {method: [own_history(result) for result in comparison.of(method)] for method in comparison.methods}
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
