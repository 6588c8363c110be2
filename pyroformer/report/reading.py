"""What the numbers of a comparison say, in sentences made from nothing but the numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from ..results import Comparison
from .against import standings
from .columns import NEAR, REFERENCE, TEST, Cell, Column, best, cells, columns, texts

UNITS = {
    "accuracy": " %",
    "ece": " %",
    "coverage_90": " %",
    "nll": " nats",
    "agreement": " %",
    "total_variation": " %",
    "wasserstein": " sds",
}


class Found:
    """A column with its cells, ready to be talked about."""

    def __init__(self, comparison: Comparison, column: Column):
        self.column, self.cells = column, cells(comparison, column)
        self.best = best(column, self.cells)
        self.texts, self.unit = texts(column, self.cells), UNITS.get(column.metric, "")

    def value(self, method: str) -> str:
        """The mean with its standard error and unit."""
        return " ± ".join(filter(None, self.texts[method])) + self.unit

    def named(self, methods: Iterable[str]) -> str:
        """Methods with their values."""
        return ", ".join(f"“{method}” ({self.value(method)})" for method in methods)

    @property
    def leader(self) -> str:
        """The best method with its value, and whom the seeds do not tell apart from it."""
        first, *near = self.best
        text = f"“{first}” with {self.value(first)}"
        return f"{text} (within noise of it: {listed(near)})" if near else text

    def exceeds(self, level: float) -> bool:
        """Whether any mean is above a level by more than noise."""
        return any(beyond(cell, cell.mean - level) for cell in self.cells.values())

    def short_of(self, level: float) -> list[str]:
        """The methods whose mean is below a level by more than noise."""
        return [method for method, cell in self.cells.items() if beyond(cell, level - cell.mean)]


def beyond(cell: Cell, distance: float) -> bool:
    """Whether a distance is more than noise of the seeds; with one seed, whether there is any."""
    return distance > (0.0 if math.isnan(cell.standard_error) else NEAR * cell.standard_error)


def listed(methods: Iterable[str]) -> str:
    """Names in quotes."""
    return ", ".join(f"“{method}”" for method in methods)


def reading(comparison: Comparison) -> list[str]:
    """A few sentences: who is best by test NLL and by how much, then calibration, shift, and what is far from the data.

    Differences within 2 combined standard errors are called noise, and one seed a method is called too few.
    """
    found = {(c.group, c.metric): Found(comparison, c) for c in columns(comparison)}
    found = {key: column for key, column in found.items() if column.best}
    sentences = [*_runs(comparison, found), *unmeasured(comparison)]
    if not found:
        return sentences
    if len(comparison.methods) == 1:
        return [*sentences, *_alone(comparison.methods[0], found)]
    return [
        *sentences,
        *_test(found),
        *_reference(comparison, found),
        *(standing.summary() for standing in standings(comparison)),
        *_calibrated(comparison),
        *_mixtures(comparison),
        *_elsewhere(comparison, found),
    ]


def _runs(comparison: Comparison, found: Mapping[tuple[str, str], Found]) -> Iterator[str]:
    if comparison.failures:
        failed, every = len(comparison.failures), len(comparison.failures) + len(comparison.results)
        yield f"{failed} of {every} runs did not finish; the numbers are of the others."
    counts = [cell.count for column in found.values() for cell in column.cells.values()]
    if counts and max(counts) == 1:
        yield (
            "There is one seed a method and so no standard error: the numbers rank these runs, and whether other seeds "
            "would rank them so is not known."
        )


def _alone(method: str, found: Mapping[tuple[str, str], Found]) -> Iterator[str]:
    values = [
        f"{c.column.label.removesuffix(' %')} {c.value(method)}" for (group, _), c in found.items() if group == TEST
    ]
    if values:
        yield f"There is one method, “{method}”, and nothing to compare it with. On the test set: {', '.join(values)}."


def _test(found: Mapping[tuple[str, str], Found]) -> Iterator[str]:
    nll = found.get((TEST, "nll"))
    if nll is not None:
        yield _lowest(nll)
    for metric, text in (("accuracy", "Highest test accuracy"), ("rmse", "Lowest test error (RMSE)")):
        if (TEST, metric) in found:
            yield f"{text}: {found[TEST, metric].leader}."
    if (TEST, "ece") in found:
        yield f"Calibration on the test set is best (lowest ECE) for {_calibrated_best(found, TEST)}."
    if (TEST, "coverage_90") in found:
        yield from _coverage(found[TEST, "coverage_90"], "test observations")


def _calibrated_best(found: Mapping[tuple[str, str], Found], group: str) -> str:
    """Who has the lowest ECE, and how accurate it is: what guesses, and says so, is calibrated too."""
    ece, accuracy = found[group, "ece"], found.get((group, "accuracy"))
    first = ece.best[0]
    at = f", at an accuracy of {accuracy.value(first)}" if accuracy is not None and first in accuracy.cells else ""
    return f"{ece.leader}{at}"


def _lowest(nll: Found) -> str:
    first, *near = nll.best
    text = f"Lowest test NLL: “{first}” with {nll.value(first)}."
    others = [method for method in nll.cells if method not in nll.best]
    if all(math.isnan(cell.standard_error) for cell in nll.cells.values()):
        return text
    if near and not others:
        return f"{text} All others are within 2 combined standard errors of it: the differences are within noise."
    if near:
        return f"{text} Within 2 combined standard errors of it, so within noise: {nll.named(near)}."
    if not others:
        return text
    second = min(others, key=lambda method: nll.column.loss(nll.cells[method].mean))
    return f"{text} The next, {nll.named([second])}, is further from it than noise."


def _coverage(column: Found, what: str) -> Iterator[str]:
    text = f"Intervals that should hold 90 % of the {what} come closest for {column.leader}."
    assert column.column.ideal is not None
    narrow = column.short_of(column.column.ideal)
    yield f"{text} They are too narrow for {column.named(narrow)}." if narrow else text


def _calibrated(comparison: Comparison) -> Iterator[str]:
    """What post-hoc calibration changed on the test set."""
    measures = (("nll", "NLL", 1, " nats"), ("ece", "ECE", 100, " %"))
    columns = {key: Column(TEST, key, "", 0.0) for metric, *_ in measures for key in (metric, f"{metric}_uncalibrated")}
    found = {key: cells(comparison, column) for key, column in columns.items()}
    for method in comparison.methods:
        parts = [
            f"{name} from {factor * before.mean:.3g} to {factor * after.mean:.3g}{unit}"
            for metric, name, factor, unit in measures
            if (before := found[f"{metric}_uncalibrated"].get(method)) and (after := found[metric].get(method))
        ]
        if parts:
            yield f"Calibration after the fit took the test {' and its '.join(parts)} for “{method}”."


def _reference(comparison: Comparison, found: Mapping[tuple[str, str], Found]) -> Iterator[str]:
    """Who predicts most nearly as the reference does, how far the next is, and below which distance all is noise."""
    reference = comparison.reference
    measures = (("total_variation", "total variation"), ("wasserstein", "Wasserstein distance"))
    told = [(found[REFERENCE, metric], by) for metric, by in measures if (REFERENCE, metric) in found]
    if reference is None or not told:
        return
    column, by = told[0]
    text = f"Closest to the reference, “{reference.name}”, by {by}: {column.leader}"
    others = {m: cell for m, cell in column.cells.items() if m not in column.best and not cell.missing}
    if others:
        second = min(others, key=lambda method: others[method].mean)
        first = column.cells[column.best[0]]
        error = math.hypot(others[second].standard_error, first.standard_error)
        apart = (others[second].mean - first.mean) / error if error > 0 else math.nan
        differs = "" if math.isnan(apart) else f", differs from it by {apart:.1f} combined standard errors"
        text += f"; the next, {column.named([second])}{differs}" if differs else f"; then {column.named([second])}"
    yield f"{text}."
    if (REFERENCE, "agreement") in found:
        yield f"Highest agreement with it on the most probable class: {found[REFERENCE, 'agreement'].leader}."
    if column.column.metric in reference.floor:
        floor = column.column.factor * reference.floor[column.column.metric]
        two = f"{reference.between} are {floor:.3g}{column.unit} apart"
        yield f"By {by} {two}: a distance of that size is noise."
    if reference.no_floor:
        yield f"How far two references are from each other is not known ({reference.no_floor})."
    for part in dict.fromkeys(reference.other.values()):
        methods = listed(method for method, its in reference.other.items() if its == part)
        differ = "are not those" if " and " in part else "is not that"
        yield f"The {part} of {methods} {differ} of the reference, so not all of the distance is approximation."


def unmeasured(comparison: Comparison) -> Iterator[str]:
    """What was not measured against the reference because this, or some of its seeds, did not finish."""
    reference = comparison.reference
    if reference is None or not reference.is_method:
        return
    seeds = sorted(seed for method, seed, _ in comparison.failures if method == reference.name)
    if not comparison.of(reference.name):
        yield f"Nothing was measured against the reference: “{reference.name}” did not finish."
    elif seeds:
        which = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        yield f"Nothing was measured against the reference with {which}: “{reference.name}” did not finish there."


def _mixtures(comparison: Comparison) -> Iterator[str]:
    """Whether a mixture is better than each of its members on its own."""
    for method in comparison.methods:
        runs = [result.metrics for result in comparison.of(method) if result.metrics.get("fit", {}).get("members_test")]
        # members have no calibration of their own
        nlls = [run[TEST].get("nll_uncalibrated", run[TEST]["nll"]) for run in runs]
        better = [
            all(nll < alone["nll"] for alone in run["fit"]["members_test"]) for nll, run in zip(nlls, runs, strict=True)
        ]
        if runs:
            count = f"{sum(better)} of {len(runs)} runs"
            yield f"“{method}” has a lower test NLL than each of its members alone in {count}."


def _elsewhere(comparison: Comparison, found: Mapping[tuple[str, str], Found]) -> Iterator[str]:
    for group in comparison.sets():
        if group == TEST or not any(key[0] == group for key in found):
            continue
        if (group, "nll") in found:
            parts = [f"lowest NLL {found[group, 'nll'].leader}"]
            for metric, text in (
                ("accuracy", "highest accuracy"),
                ("rmse", "lowest error (RMSE)"),
                ("ece", "lowest ECE"),
            ):
                if (group, metric) in found:
                    leader = found[group, metric].leader if metric != "ece" else _calibrated_best(found, group)
                    parts.append(f"{text} {leader}")
            yield f"On the shifted set “{group}”: {'; '.join(parts)}."
        if (group, "coverage_90") in found:
            yield from _coverage(found[group, "coverage_90"], f"observations of “{group}”")
        scores = (("auroc_entropy", "entropy"), ("auroc_mutual_information", "mutual information"))
        told = [(found[group, metric], by) for metric, by in scores if (group, metric) in found]
        if told:
            parts = [
                f"by {by} {column.leader}{'' if column.exceeds(0.5) else ', no better than chance'}"
                for column, by in told
            ]
            yield f"Telling “{group}” from the test set, highest AUROC: {'; '.join(parts)}."
