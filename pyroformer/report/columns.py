"""The columns of a comparison, decided from what was measured, and the numbers in them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..inference.metrics import mean_and_standard_error
from ..results import Comparison, Result

NEAR = 2.0
"""How many combined standard errors a mean may lie from the best and still be marked with it."""


@dataclass(frozen=True)
class Column:
    """One metric on one set.

    Args:
        group: The set, ``reference`` or ``fit``.
        metric: Its key in the metrics of the set.
        label: Its heading.
        ideal: Infinity where higher is better, minus infinity where lower is, else the value to be closest to; None
            where no value is the best.
        factor: What a value is multiplied by to be shown; 100 for shares shown in per cent.
    """

    group: str
    metric: str
    label: str
    ideal: float | None
    factor: float = 1.0

    @property
    def direction(self) -> str:
        """What is good, in words."""
        if self.ideal is None:
            return "up to its threshold or not; above, none is better than another"
        if math.isinf(self.ideal):
            return "higher is better" if self.ideal > 0 else "lower is better"
        return f"closest to {self.factor * self.ideal:g} is best"

    def loss(self, mean: float) -> float:
        """The value as something that is better when lower, of a column that has a best."""
        assert self.ideal is not None
        return math.copysign(1.0, -self.ideal) * mean if math.isinf(self.ideal) else abs(mean - self.ideal)


HIGHER, LOWER = math.inf, -math.inf
MEASURES: dict[str, tuple[str, float, float]] = {
    "accuracy": ("accuracy %", HIGHER, 100.0),
    "rmse": ("RMSE", LOWER, 1.0),
    "nll": ("NLL", LOWER, 1.0),
    "ece": ("ECE %", LOWER, 100.0),
    "brier": ("Brier", LOWER, 1.0),
    "coverage_90": ("90 % cover", 0.9, 100.0),
    "auroc_entropy": ("AUROC, H", HIGHER, 1.0),
    "auroc_mutual_information": ("AUROC, MI", HIGHER, 1.0),
}
"""Heading, ideal and factor by the key of a metric, in the order in which they are shown."""
DETAILS: dict[str, tuple[str, float, float]] = {
    "ece_adaptive": ("adaptive ECE %", LOWER, 100.0),
    "ece_classwise": ("classwise ECE %", LOWER, 100.0),
    "aurc": ("AURC %", LOWER, 100.0),
    "perplexity": ("perplexity", LOWER, 1.0),
    "bits_per_character": ("bits a character", LOWER, 1.0),
    "bits_per_word": ("bits a word", LOWER, 1.0),
    "sequence_accuracy": ("whole sequences %", HIGHER, 100.0),
    "nll_uncalibrated": ("NLL before", LOWER, 1.0),
    "ece_uncalibrated": ("ECE % before", LOWER, 100.0),
    "plug_in_accuracy": ("accuracy %, plug-in rows", HIGHER, 100.0),
    "plug_in_nll": ("NLL, plug-in rows", LOWER, 1.0),
    "plug_in_ece": ("ECE %, plug-in rows", LOWER, 100.0),
    "plug_in_rmse": ("RMSE, plug-in rows", LOWER, 1.0),
    "plug_in_coverage_90": ("90 % cover, plug-in rows", 0.9, 100.0),
    "aupr_entropy": ("AUPR, H", HIGHER, 1.0),
    "aupr_mutual_information": ("AUPR, MI", HIGHER, 1.0),
    "fpr95_entropy": ("FPR95 %, H", LOWER, 100.0),
    "fpr95_mutual_information": ("FPR95 %, MI", LOWER, 100.0),
}
"""The same for the second table."""

DISTANCES: dict[str, tuple[str, float, float]] = {
    "agreement": ("agree %", HIGHER, 100.0),
    "total_variation": ("TV %", LOWER, 100.0),
    "wasserstein": ("W2", LOWER, 1.0),
}
"""The same for what is measured against a reference posterior on the test set."""

TAIL, TAIL_LIMIT = Column("fit", "k_hat", "k-hat", None), Column("fit", "k_hat_threshold", "", None)
"""The tail of importance weights and its threshold: weights are usable or not, and no tail above is a better fit."""

REFERENCE = "reference"
TEST, HIDDEN, TEST_ONLY = "test", ("validation", "fit"), ("brier",)


def columns(comparison: Comparison) -> list[Column]:
    """What a table of this comparison shows: test set, shifted and foreign sets, a reference, time of the fit.

    Metrics decide, not names of tasks: a set has the columns of the metrics that any method measured on it.
    """
    seconds = Column("fit", "seconds", "seconds", LOWER)
    timed = any(value(result, seconds) is not None for result in comparison.results)
    against = [Column(REFERENCE, metric, *look) for metric, look in DISTANCES.items()]
    against = [column for column in against if any(value(result, column) is not None for result in comparison.results)]
    return [*_measured(comparison, MEASURES), *against, *([seconds] if timed else [])]


def details(comparison: Comparison) -> list[Column]:
    """What a second table shows: other views of calibration and detection, what calibration changed, and k-hat."""
    weighted = any(value(result, TAIL) is not None for result in comparison.results)
    return [*_measured(comparison, DETAILS), *([TAIL] if weighted else [])]


def _measured(comparison: Comparison, measures: Mapping[str, tuple[str, float, float]]) -> list[Column]:
    found = []
    for group in comparison.sets():
        if group in HIDDEN or is_severity(group):
            continue
        keys = {key for result in comparison.results for key in result.metrics.get(group) or {}}
        for metric, (label, ideal, factor) in measures.items():
            if metric in keys and (group == TEST or metric not in TEST_ONLY):
                found.append(Column(group, metric, label, ideal, factor))
    return found


def is_severity(group: str) -> bool:
    """Whether a set is one of the severities of a corruption, ``noise-3``: they are too many for a table."""
    return re.fullmatch(r"\w+-[1-5]", group) is not None


def value(result: Result, column: Column) -> float | None:
    """A result's number for a column, or None where it has no finite one."""
    found = (result.metrics.get(column.group) or {}).get(column.metric)
    if found is None and column.group == "fit":
        parts = [member.get(column.metric) for member in result.metrics.get("fit", {}).get("members", [])]
        found = sum(parts) if parts and all(map(is_number, parts)) else None
    return float(found) if found is not None and is_number(found) else None


def is_number(content: Any) -> bool:
    """Whether something is a finite number; truth values are none."""
    return isinstance(content, int | float) and not isinstance(content, bool) and math.isfinite(content)


@dataclass(frozen=True)
class Cell:
    """One method in one column.

    Args:
        mean: Over seeds.
        standard_error: Of the mean; NaN for one seed.
        count: Seeds with a number.
        missing: Finished seeds without one (NaN, infinite or absent); such a mean is never marked as best.
    """

    mean: float
    standard_error: float
    count: int
    missing: int = 0


def cells(comparison: Comparison, column: Column) -> dict[str, Cell]:
    """The cells of a column by method; a method without any number has none."""
    found = {}
    for method in comparison.methods:
        values = [value(result, column) for result in comparison.of(method)]
        numbers = [number for number in values if number is not None]
        if numbers:
            mean, standard_error = (float(x) for x in mean_and_standard_error(numbers))
            found[method] = Cell(mean, standard_error, len(numbers), len(values) - len(numbers))
    return found


def blank(comparison: Comparison, column: Column, method: str) -> str:
    """What stands where a method has no number: the reference has no distance from itself."""
    own = column.group == REFERENCE and comparison.reference is not None and comparison.reference.name == method
    return "reference" if own else ""


def remark(comparison: Comparison, column: Column, method: str) -> str:
    """What stands behind a number: of k-hat, whether weights of draws could be used, and up to where they could."""
    if column.metric != TAIL.metric:
        return ""
    pairs = [(value(result, TAIL), value(result, TAIL_LIMIT)) for result in comparison.of(method)]
    known = [(found, limit) for found, limit in pairs if found is not None and limit is not None]
    if not known:
        return ""
    limits = dict.fromkeys(f"{limit:.2f}" for limit in sorted({limit for _, limit in known}))
    usable = sum(found <= limit for found, limit in known)
    some = f"usable in {usable} of {len(known)} seeds"
    said = "not usable" if not usable else "usable" if usable == len(known) else some
    return f"{said}, threshold {' or '.join(limits)}"


def best(column: Column, found: Mapping[str, Cell]) -> list[str]:
    r"""The method with the best mean first, then those that the seeds do not tell apart from it.

    .. math:: d_m - d_{\text{best}} < 2 \sqrt{s_m^2 + s_{\text{best}}^2}

    where :math:`d` is the mean, its negative where higher is better, or its distance from the ideal. Without standard
    errors (one seed) only equal means join the best. A column without an ideal has no best.
    """
    if column.ideal is None:
        return []
    complete = {method: cell for method, cell in found.items() if not cell.missing}
    if not complete:
        return []
    first = min(complete, key=lambda method: column.loss(complete[method].mean))

    def near(method: str) -> bool:
        gap = column.loss(complete[method].mean) - column.loss(complete[first].mean)
        return gap == 0 or gap < NEAR * math.hypot(complete[method].standard_error, complete[first].standard_error)

    return [first, *(method for method in complete if method != first and near(method))]


def decimals(column: Column, found: Iterable[Cell]) -> int:
    """Digits after the point for a whole column, from its median: three that count, one more where errors are small."""
    cells = list(found)
    means = [abs(cell.mean) for cell in cells if cell.mean]
    errors = [cell.standard_error for cell in cells if cell.standard_error > 0]

    def places(numbers: list[float], digits: int) -> int:
        return digits - 1 - math.floor(math.log10(column.factor * median(numbers)))

    wanted = min(places(means, 3), max(3, places(means, 2))) if means else 0
    if errors:
        wanted = max(wanted, min(places(errors, 1), wanted + 1))
    return min(max(wanted, 1), 2) if column.factor == 100 else max(wanted, 0)


def number(mean: float, places: int) -> str:
    """A number with fixed digits after the point, or in powers of ten where it would be too long."""
    return f"{mean:.{places}f}" if abs(mean) < 1e6 else f"{mean:.3g}"


def texts(column: Column, found: Mapping[str, Cell]) -> dict[str, tuple[str, str]]:
    """The mean and the standard error of every cell as text; the latter is empty for one seed."""
    places = decimals(column, found.values())
    return {
        method: (
            number(column.factor * cell.mean, places),
            "" if math.isnan(cell.standard_error) else number(column.factor * cell.standard_error, places),
        )
        for method, cell in found.items()
    }
