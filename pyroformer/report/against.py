"""How far each method is from a baseline, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from scipy.special import stdtrit

from ..inference.metrics import mean_and_standard_error
from ..results import Comparison
from .columns import HIDDEN, LOWER, TEST, Column, is_severity, value

METRIC = "nll"
LEVEL = 0.95
"""Of the interval around a difference; one that holds 0 does not tell a method from the baseline."""


@dataclass(frozen=True)
class Difference:
    """A method's metric less the baseline's.

    Args:
        mean: Over the seeds that both have.
        standard_error: Of the mean of the differences; NaN for one seed.
        count: Seeds.
    """

    mean: float
    standard_error: float
    count: int

    @property
    def told(self) -> bool:
        """Whether its interval leaves out 0; never with one seed."""
        return self.count > 1 and abs(self.mean) > self.half_width

    @cached_property
    def half_width(self) -> float:
        r"""How far the 95 % interval of Student's t reaches to both sides, NaN for one seed.

        .. math:: t_{0.975,\, n-1}\, s / \sqrt n

        That is 4.3 standard errors for 3 seeds, 2.8 for 5, and 2 for many.
        """
        return float(stdtrit(self.count - 1, (1 + LEVEL) / 2)) * self.standard_error if self.count > 1 else math.nan

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.standard_error:.3f}".replace("-", "−")


def differences(comparison: Comparison, baseline: str, group: str) -> dict[str, Difference]:
    r"""The NLL of every other method less that of a baseline, on one set.

    .. math:: \bar\delta \pm \sqrt{\tfrac{1}{n(n-1)} \sum_s (\delta_s - \bar\delta)^2}, \qquad
              \delta_s = \mathrm{NLL}_s - \mathrm{NLL}_s^{\text{baseline}}

    Seeds are paired: a method and its baseline with the same seed share the start of their nets, or the trained net
    itself, so the error is that of the difference and not of two independent means.

    Args:
        comparison: What was found.
        baseline: A method.
        group: A set.
    """
    column = Column(group, METRIC, "", LOWER)
    own = {result.seed: value(result, column) for result in comparison.of(baseline)}
    found = {}
    for method in comparison.methods:
        pairs = [(value(result, column), own.get(result.seed)) for result in comparison.of(method)]
        gaps = [a - b for a, b in pairs if a is not None and b is not None]
        if method != baseline and gaps:
            mean, error = (float(x) for x in mean_and_standard_error(gaps))
            found[method] = Difference(mean, error, len(gaps))
    return found


def compared_sets(comparison: Comparison) -> list[str]:
    """The sets on which methods are compared with a baseline: those with an NLL but for single severities."""
    sets = [name for name in comparison.sets() if name not in HIDDEN and not is_severity(name)]
    return [name for name in sets if any(METRIC in (result.metrics.get(name) or {}) for result in comparison.results)]


@dataclass(frozen=True)
class Standing:
    """Who is where against a baseline on one set, each in the order of the differences.

    Args:
        baseline: A method.
        group: The set.
        lower, higher: The methods whose NLL is lower, or higher, by more than noise: their 95 % interval leaves out 0.
        near: Those that the seeds do not tell from the baseline.
    """

    baseline: str
    group: str
    lower: dict[str, Difference]
    near: dict[str, Difference]
    higher: dict[str, Difference]

    @property
    def differences(self) -> dict[str, Difference]:
        """All, from the lowest to the highest."""
        return dict(sorted((self.lower | self.near | self.higher).items(), key=lambda item: item[1].mean))

    @property
    def measure(self) -> str:
        """What is compared, in words."""
        return "test NLL" if self.group == TEST else f"NLL on “{self.group}”"

    def summary(self) -> str:
        """How many methods are where."""
        counts = (
            f"{len(self.lower)} lower by more than noise, {len(self.higher)} higher, {len(self.near)} not told apart"
        )
        return f"Against “{self.baseline}”, seed by seed, by {self.measure}: {counts}."

    def sentences(self) -> Iterator[str]:
        """Which methods are where, with their differences."""
        for found, text in ((self.lower, "Lower by more than noise"), (self.higher, "Higher by more than noise")):
            yield f"{text}: {', '.join(f'“{m}” ({d})' for m, d in found.items()) if found else 'none'}."
        if self.near:
            yield f"Not told apart: {', '.join(f'“{method}”' for method in self.near)}."


def standings(comparison: Comparison) -> list[Standing]:
    """Where the methods stand against each baseline, by set; nothing where there is one seed."""
    found = []
    for baseline, group in product(comparison.baselines, compared_sets(comparison)):
        gaps = sorted(differences(comparison, baseline, group).items(), key=lambda item: item[1].mean)
        if any(difference.count > 1 for _, difference in gaps):
            lower = {method: gap for method, gap in gaps if gap.told and gap.mean < 0}
            higher = {method: gap for method, gap in gaps if gap.told and gap.mean > 0}
            near = {method: gap for method, gap in gaps if not gap.told}
            found.append(Standing(baseline, group, lower, near, higher))
    return found
