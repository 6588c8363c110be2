"""What a comparison found: the results of its cells, by method and seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .inference.marginals import Marginal
from .inference.metrics import mean_and_standard_error
from .seen_chains import SeenChains
from .viewer.data import SeenAttention


@dataclass(frozen=True, eq=False)
class Result:
    """One method with one seed.

    Args:
        method: Its name in the study.
        seed: The seed.
        spec: The resolved spec, as plain data.
        metrics: Measured on every set, ``{"test": {"nll": ...}, ..., "fit": {...}}``, and against a reference under
            ``reference``.
        history: One record a validated epoch, or a draw.
        predictions: By ``set.quantity``, as `evaluate` gives them.
        marginals: Posterior and prior of weights and hyperparameters, by name.
        attention: What was seen of attention on a few test examples, or None.
        chains: Of a driver with chains, what there is to see of them, or None.
    """

    method: str
    seed: int
    spec: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, Any]]
    predictions: dict[str, Tensor]
    marginals: dict[str, Marginal] = field(default_factory=dict)
    attention: SeenAttention | None = None
    chains: SeenChains | None = None


NO_SETS = ("fit", "reference")
"""The groups of metrics that are of no set."""


@dataclass(frozen=True)
class Reference:
    """The posterior whose predictions those of the others are measured against.

    Args:
        name: A method, or the folder of a run.
        is_method: Whether it is a method: each seed is then measured against the same seed.
        other: The methods that approximate another posterior, and which parts of the spec make it another: the model,
            the prior, the likelihood, the temperature, the weight of the KL.
        floor: How far two references are from each other, by metric; empty where there are no two.
        between: What these two are, in words.
        no_floor: Why the distance of two references could not be had, in words; empty where it could.
    """

    name: str
    is_method: bool
    other: dict[str, str] = field(default_factory=dict)
    floor: dict[str, float] = field(default_factory=dict)
    between: str = ""
    no_floor: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Several methods on one task, each with several seeds.

    Args:
        title: What is compared.
        description: Why, in a few sentences.
        results: One a finished cell, in the order of the study.
        failures: Cells that did not finish: method, seed and the reason.
        reference: What the group ``reference`` of the metrics is measured against, or None.
        baselines: Methods that the others are compared with, seed by seed.
    """

    title: str
    description: str
    results: list[Result]
    failures: list[tuple[str, int, str]] = field(default_factory=list)
    reference: Reference | None = None
    baselines: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """The names of the methods with results, in the order of the study."""
        return list(dict.fromkeys(result.method for result in self.results))

    def of(self, method: str) -> list[Result]:
        """The results of one method, by seed."""
        return sorted((r for r in self.results if r.method == method), key=lambda r: r.seed)

    def sets(self) -> list[str]:
        """The sets that metrics were measured on, in order of appearance; ``fit`` and ``reference`` are none."""
        return list(dict.fromkeys(name for r in self.results for name in r.metrics if name not in NO_SETS))

    def summary(self, method: str, group: str, metric: str) -> tuple[float, float] | None:
        """Mean and standard error over seeds of one metric, or None where the method lacks it."""
        values = [r.metrics[group][metric] for r in self.of(method) if metric in r.metrics.get(group, {})]
        values = [float(value) for value in values if value is not None]
        if not values:
            return None
        mean, error = mean_and_standard_error(values)
        return float(mean), float(error)
