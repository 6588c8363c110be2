"""The part of a report about Markov chains: the verdict on them, and what they look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..inference.diagnostics import e_bfmi, r_hat
from ..inference.diagnostics.finding import sentence
from ..results import Comparison
from ..seen_chains import SeenChains
from .plots import autocorrelation_lines, energy_histograms, rank_lines, trace_lines
from .svg import Panel, figure, to_svg

SIZE = (3.1, 1.9)
LABELS = {"log_likelihood": "log-likelihood", "log_density": "log-density"}


@dataclass(frozen=True)
class Chains:
    """What the report shows of a method's chains.

    Args:
        method: The method.
        caption: Which run, and how many chains and draws.
        summary: The verdict in one paragraph.
        sentences: Its findings, each with a level and with what to try.
        panels: Traces, ranks, energies and autocorrelations.
    """

    method: str
    caption: str
    summary: str
    sentences: list[tuple[str, str, str]]
    panels: list[Panel]


def chain_parts(comparison: Comparison) -> list[Chains]:
    """What there is to see of the chains of each method, by its first seed that has some."""
    found = []
    for method in comparison.methods:
        result = next((result for result in comparison.of(method) if result.chains is not None), None)
        if result is None or result.chains is None:
            continue
        seen = result.chains
        chains, draws = next(iter(seen.traces.values())).shape if seen.traces else (0, 0)
        many = f"{chains} chains" if chains != 1 else "1 chain"
        said = [
            (finding["level"], sentence(finding["text"]), sentence(finding["advice"]))
            for finding in seen.verdict["findings"]
        ]
        caption = f"seed {result.seed}, {many} of {draws} draws"
        found.append(Chains(method, caption, seen.verdict["summary"], said, list(_panels(seen, method))))
    return found


def _panels(seen: SeenChains, method: str) -> Iterator[Panel]:
    finite = {name: values for name, values in seen.traces.items() if bool(values.isfinite().all())}
    for name, values in finite.items():
        label = LABELS.get(name, name)
        made, (ax,) = figure(*SIZE)
        trace_lines(ax, values, "", divergent=seen.divergent)
        yield Panel(f"Trace: {label}", to_svg(made, f"trace of {label} of {method}"))
        if len(values) == 1:  # whose ranks are all there are
            continue
        made, (ax,) = figure(*SIZE)
        rank_lines(ax, values)
        size = float(r_hat(values)) if values.shape[1] >= 4 else float("nan")
        yield Panel(f"Ranks: {label}", to_svg(made, f"ranks of {label} of {method}"), f"R-hat {size:.3f}")
    if seen.energy is not None and seen.energy.shape[1] >= 4 and bool(seen.energy.isfinite().any()):
        made, (ax,) = figure(*SIZE)
        energy_histograms(ax, seen.energy)
        least = float(e_bfmi(seen.energy).nan_to_num(float("inf")).min())
        yield Panel("Energy", to_svg(made, f"energies of {method}"), f"least E-BFMI {least:.2f}")
    if finite:
        made, (ax,) = figure(*SIZE)
        autocorrelation_lines(ax, {LABELS.get(name, name): values for name, values in finite.items()})
        yield Panel("Autocorrelation", to_svg(made, f"autocorrelations of {method}"))
