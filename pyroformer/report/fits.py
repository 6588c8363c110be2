"""What the fits say of themselves: learned quantities of guides, and how the runs went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from ..results import Comparison, Result
from .columns import is_number


@dataclass(frozen=True)
class Learned:
    """The quantities that one family of a guide learned, over the runs of one method.

    Args:
        method: The method.
        family: The family, as in `dirichlet_rows`.
        headings: Of the entries of the longest quantity; empty when each is one number.
        rows: Name and entries of each quantity, mean over runs (and the smallest and largest, where runs differ).
        runs: How many runs that is; each member of an ensemble is one.
    """

    method: str
    family: str
    headings: list[str]
    rows: list[tuple[str, list[str]]]
    runs: int


def learned(comparison: Comparison) -> list[Learned]:
    """What `Guide.summary` kept in ``metrics["fit"]["guide"]``, by method and family."""
    found = []
    for method in comparison.methods:
        guides = [fit.get("guide") or {} for result in comparison.of(method) for fit in _fits(result)]
        for family in dict.fromkeys(name for guide in guides for name in guide):
            runs = [dict(_leaves(guide[family])) for guide in guides if family in guide]
            rows = [(name, _entries([run[name] for run in runs if name in run])) for name in runs[0]]
            longest = max((len(entries) for _, entries in rows), default=0)
            unit = "head" if family.endswith("rows") else "entry"
            headings = [f"{unit} {index}" for index in range(longest)] if longest > 1 else []
            found.append(Learned(method, family, headings, rows, len(runs)))
    return found


def how_it_went(comparison: Comparison) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The other entries of ``metrics["fit"]`` as a table: headings, and for each method its values over all runs."""
    by_method = {
        method: [
            dict(_leaves({key: value for key, value in fit.items() if key != "guide"}))
            for result in comparison.of(method)
            for fit in _fits(result)
        ]
        for method in comparison.methods
    }
    headings = list(dict.fromkeys(key for fits in by_method.values() for fit in fits for key in fit))
    rows = [
        (m, [_values([fit[key] for fit in fits if key in fit]) for key in headings]) for m, fits in by_method.items()
    ]
    return [heading.replace("_", " ").replace(".", " ") for heading in headings], rows


def _fits(result: Result) -> list[Mapping[str, Any]]:
    """The record of a fit, or those of its members, with the kept epoch in one place only."""
    fit = result.metrics.get("fit") or {}
    own = {key: value for key, value in fit.items() if key not in ("members", "members_test")}
    fits = [{**own, **member} for member in fit.get("members") or [{}]]
    for one, alone in zip(fits, fit.get("members_test") or [], strict=False):
        one["test_nll_alone"] = alone["nll"]
    return [{**f, "kept": str(f["kept"]).partition(" (")[0]} if {"kept", "best_epoch"} <= f.keys() else f for f in fits]


def _leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, inner in content.items():
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, content


def _entries(runs: Sequence[Any]) -> list[str]:
    """Each entry of a quantity: its mean over runs, with its range where they differ."""
    rows = [run if isinstance(run, list | tuple) else [run] for run in runs]
    shortest = min(len(row) for row in rows)
    return [_spread([row[index] for row in rows]) for index in range(shortest)]


def _spread(values: list[Any]) -> str:
    if not all(map(is_number, values)):
        return _values(values)
    low, high = f"{min(values):.3g}", f"{max(values):.3g}"
    return low if low == high else f"{mean(values):.3g} ({low} to {high})"


def _values(values: Sequence[Any]) -> str:
    """Different values of several runs in a few words."""
    shown = list(dict.fromkeys(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values))
    if len(shown) > 4 and all(map(is_number, values)):
        return f"{min(values):.4g} to {max(values):.4g}, median {median(values):.4g}"
    return ", ".join(shown[:4]) + (f", and {len(shown) - 4} more" if len(shown) > 4 else "")
