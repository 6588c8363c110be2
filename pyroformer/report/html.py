"""A comparison as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from .. import yamlfile
from ..inference.files import write_text
from ..results import Comparison
from . import figures, seeing, svg
from .chains import chain_parts
from .columns import NEAR, REFERENCE, Column, best, blank, cells, columns, details, remark, texts
from .fits import how_it_went, learned
from .plots import method_styles
from .reading import reading

TEMPLATE = "report.html.j2"


@dataclass(frozen=True)
class Entry:
    """A cell of the page's table: texts, the number to sort by, whether it is marked, and what is said of it."""

    mean: str
    error: str = ""
    order: float | None = None
    marked: bool = False
    missing: int = 0
    remark: str = ""


def write_html(comparison: Comparison, path: str | Path, environment: Mapping[str, Any] | None = None) -> None:
    """Write a comparison as one HTML file with its styles and figures inside, to be opened from anywhere.

    It holds a reading of the numbers, the tables, differences from baselines, reliability diagrams, metrics by severity
    of shift, risk by coverage, entropies in and out of distribution, bands of regressions on one input, training
    curves, chains with the verdict on them, prior against posterior, the parts of the uncertainty, attention with a
    viewer, learned quantities, what did not finish, and the spec of each method.

    Args:
        comparison: What was found; titles, descriptions, names and reasons are shown as plain text.
        path: The file, which is replaced whole.
        environment: What the numbers were made with, such as versions and the time; shown as given.
    """
    write_text(Path(path), render(comparison, environment))


def render(comparison: Comparison, environment: Mapping[str, Any] | None = None) -> str:
    """The text of the HTML file."""
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = page.from_string(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    styles = method_styles(comparison.methods)
    headings, went = how_it_went(comparison)
    shown, more = columns(comparison), details(comparison)
    parts = {
        "numbers": [column for column in shown if column.group != REFERENCE],
        "reference": [column for column in shown if column.group == REFERENCE],
        "details": more,
    }
    validated, validation = figures.validation_figure(comparison, styles)
    return template.render(
        comparison=comparison,
        environment=environment or {},
        reading=reading(comparison),
        standings=figures.standing_panels(comparison),
        near=f"{NEAR:g}",
        seeds=seeds(comparison),
        tables={name: table(comparison, part) for name, part in parts.items()},
        columns=[*shown, *more],
        incomplete=any(cell.missing for column in (*shown, *more) for cell in cells(comparison, column).values()),
        swatches={method: svg.swatch(style) for method, style in styles.items()},
        reliability=figures.reliability_panels(comparison),
        shifts=figures.shift_panels(comparison, styles),
        risks=figures.risk_coverage_figures(comparison, styles),
        entropies=figures.entropy_panels(comparison),
        marginals=figures.marginal_panels(comparison, styles),
        bounds=figures.bound_panels(comparison, styles),
        validated=validated,
        validation=validation,
        chains=chain_parts(comparison),
        bands=figures.band_panels(comparison, styles),
        uncertainties=seeing.uncertainty_panels(comparison),
        attentions=seeing.attention_parts(comparison),
        learned=learned(comparison),
        fit_headings=headings,
        fits=went,
        specs=specs(comparison),
    )


def seeds(comparison: Comparison) -> str:
    """How many seeds the methods have, in words; empty without results."""
    counts = sorted({len(comparison.of(method)) for method in comparison.methods})
    if not counts:
        return ""
    most = f"{counts[-1]} seed" + ("s" if counts[-1] > 1 else "")
    return most if len(counts) == 1 else f"{counts[0]} to {most}"


@dataclass(frozen=True)
class PageTable:
    """A table of the page: its columns in groups, and a line a method."""

    groups: list[tuple[str, list[Column]]]
    rows: list[tuple[str, list[Entry]]]


def table(comparison: Comparison, shown: list[Column]) -> PageTable:
    """The table of some columns."""
    groups = [(name, list(group)) for name, group in groupby(shown, lambda column: column.group)]
    return PageTable(groups, rows(comparison, shown))


def rows(comparison: Comparison, shown: list[Column]) -> list[tuple[str, list[Entry]]]:
    """The lines of the table: a method and its entries."""
    lines: dict[str, list[Entry]] = {method: [] for method in comparison.methods}
    for column in shown:
        found = cells(comparison, column)
        marked = best(column, found) if len(found) > 1 else []
        shown_as = texts(column, found)
        for method, line in lines.items():
            cell = found.get(method)
            line.append(
                Entry(blank(comparison, column, method) or "–")
                if cell is None
                else Entry(
                    *shown_as[method], cell.mean, method in marked, cell.missing, remark(comparison, column, method)
                )
            )
    return list(lines.items())


def specs(comparison: Comparison) -> list[tuple[str, str, str]]:
    """Each method with its seeds and its resolved spec as YAML, without the seed."""
    found = []
    for method in comparison.methods:
        results = comparison.of(method)
        content = {key: value for key, value in results[0].spec.items() if key != "seed"}
        found.append((method, ", ".join(str(result.seed) for result in results), yamlfile.dump(content)))
    return found
