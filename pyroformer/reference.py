"""A reference posterior: whose predictions the others of a comparison are measured against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from .choices import SpecError
from .inference import ClassPrediction, DrawsPosterior, MixturePosterior, Posterior, metrics
from .inference.data import Inputs
from .priors.globs import near_misses
from .results import Comparison, Reference, Result
from .run import difference as spec_difference
from .run import load
from .run_folder import METRICS, PREDICTIONS, SPEC, content_of, metrics_of, predictions_of
from .spec import Spec
from .tasks import TaskData

Predictions = Mapping[str, Tensor]


@dataclass(frozen=True)
class Chosen:
    """What a study names as its reference.

    Args:
        name: The method, or the folder as it was given.
        folder: The folder of a finished run; None for a method.
    """

    name: str
    folder: Path | None = None


def choose(named: Any, methods: Iterable[str]) -> Chosen:
    """The reference of a name: one of the methods, or else the folder of a finished run.

    Raises:
        SpecError: It is neither.
    """
    methods = list(methods)
    if isinstance(named, str) and named in methods:
        return Chosen(named)
    folder = Path(named) if isinstance(named, str | Path) else None
    if folder is None or not folder.is_dir():
        close = near_misses(str(named), methods)
        raise SpecError(
            "reference", str(named), f"a method among {', '.join(methods)}, or a finished run's folder{close}"
        )
    for file in (SPEC, METRICS, PREDICTIONS):
        if not (folder / file).is_file():
            raise SpecError("reference", str(folder), f"the folder of a finished run; this one holds no {file}")
    return Chosen(str(named), folder)


def check(chosen: Chosen, data: Mapping[str, TaskData]) -> None:
    """Raise a `SpecError` unless the reference has the training and test examples of every method, and can be read.

    What is needed of a run's folder in the end is read here, before anything runs.

    Args:
        chosen: The reference.
        data: By method.
    """
    if chosen.folder is None:
        there, accepted = data[chosen.name], "a method"
    else:
        try:
            there, accepted = Spec(task=content_of(chosen.folder)["task"]).task.load(), "a run"
        except SpecError as error:
            raise SpecError(f"reference.{error.path}", error.value, error.accepted) from None
        kept = predictions_of(chosen.folder)
        metrics_of(chosen.folder)
        y = kept.get("test.labels", kept.get("test.y"))
        if y is None or there.test.y is None or not torch.equal(y, there.test.y):
            expected = "a run whose data are as they were; the test observations have changed"
            raise SpecError("reference", chosen.name, expected)
        if _net_is_at_hand(chosen.folder):
            load(chosen.folder)
    for method, here in data.items():
        if found := difference(there, here):
            raise SpecError("reference", chosen.name, f"{accepted} on the examples of {method!r} ({found})")


def difference(there: TaskData, here: TaskData) -> str:
    """The first of the training and test examples that two tasks do not share, in words; empty when they are equal."""
    pairs = [
        (f"{name} {part}", getattr(getattr(there, name), part), getattr(getattr(here, name), part))
        for name in ("test", "train")
        for part in ("x", "y")
    ]
    return next(filter(None, (_difference(*pair) for pair in pairs)), "")


def _difference(name: str, there: Inputs | None, here: Inputs | None) -> str:
    if isinstance(there, tuple) and isinstance(here, tuple) and len(there) == len(here):
        parts = (_difference(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(there, here, strict=True)))
        return next(filter(None, parts), "")
    if not isinstance(there, Tensor) or not isinstance(here, Tensor):
        return "" if there is here else f"{name} differs in kind"
    if there.shape != here.shape or there.dtype != here.dtype:
        said = [f"{str(values.dtype).removeprefix('torch.')} {list(values.shape)}" for values in (there, here)]
        return f"{name}: {said[0]} there, {said[1]} here"
    unequal = (there != here).reshape(len(there), -1).any(1).nonzero().flatten()
    return f"{name}: {len(unequal)} of {len(there)} differ, first example {int(unequal[0])}" if len(unequal) else ""


def distances(found: Predictions, reference: Predictions) -> dict[str, float]:
    """How far predictions of the test set are from those of a reference.

    Args:
        found, reference: As `evaluate` gives them.

    Returns:
        ``agreement`` and ``total_variation`` of classes, over the tokens that are observed; ``wasserstein`` of reals.
    """
    if "test.probabilities" in found and "test.probabilities" in reference:
        seen = found["test.labels"].flatten() >= 0
        p, r = (each["test.probabilities"].flatten(0, -2)[seen] for each in (found, reference))
        return {
            "agreement": float(metrics.agreement(p, r)),
            "total_variation": float(metrics.total_variation(p, r)),
        }
    if "test.mean" in found and "test.mean" in reference:
        moments = [each[f"test.{key}"] for each in (found, reference) for key in ("mean", "sd")]
        return {"wasserstein": float(metrics.normal_wasserstein(*moments))}
    return {}


def measured(comparison: Comparison, chosen: Chosen) -> Comparison:
    """A comparison whose results also say how far they are from the reference, seed by seed where it is a method.

    The results of the reference itself say nothing: from themselves they have no distance.
    """
    if chosen.folder is None:
        own = comparison.of(chosen.name)
        by_seed: Mapping[int, Predictions] = {result.seed: result.predictions for result in own}
        spec = own[0].spec if own else None
    else:
        kept = predictions_of(chosen.folder)
        by_seed, spec = {result.seed: kept for result in comparison.results}, content_of(chosen.folder)
    results = [
        result
        if result.method == chosen.name or result.seed not in by_seed
        else replace(
            result, metrics={**result.metrics, "reference": distances(result.predictions, by_seed[result.seed])}
        )
        for result in comparison.results
    ]
    reference = Reference(chosen.name, chosen.folder is None, other=_other(spec, results))
    return replace(comparison, results=results, reference=reference)


def _net_is_at_hand(folder: Path) -> bool:
    """Whether a run can be loaded from its folder alone: a user's own net cannot be made from it."""
    return "module" not in content_of(folder)["model"]


def with_floor(comparison: Comparison, chosen: Chosen, folder: Path | None) -> Comparison:
    """The same comparison with the distance of two references from each other, below which distances are noise.

    They are different seeds of the method, or, where there is one, two halves of its posterior. Nothing is said of a
    posterior with one draw, or whose net is not at hand. Where the distance cannot be had, the reference says why.

    Args:
        comparison: As `measured` gives it.
        chosen: The reference.
        folder: Of the run that is halved where there are no seeds to compare; None for none.
    """
    assert comparison.reference is not None
    try:
        found, between = _apart_from_each_other(comparison, chosen, folder)
    except Exception as error:  # whatever it is, it must not cost the report of a study that has run
        return replace(comparison, reference=replace(comparison.reference, no_floor=_said(error)))
    if not found:
        return comparison
    floor = {key: mean(each[key] for each in found) for key in found[0]}
    return replace(comparison, reference=replace(comparison.reference, floor=floor, between=between))


def _apart_from_each_other(
    comparison: Comparison, chosen: Chosen, folder: Path | None
) -> tuple[list[dict[str, float]], str]:
    """The distances of pairs of references, and what these are."""
    own = [] if chosen.folder is not None else comparison.of(chosen.name)
    if found := [distances(a.predictions, b.predictions) for a, b in combinations(own, 2)]:
        return found, "two seeds of the reference"
    if folder is None or not _net_is_at_hand(folder):
        return [], ""
    run = load(folder)
    halved = halves(run.posterior, run.spec.seed)
    found = [] if halved is None else [_apart(halved, run.spec.task.load())]
    return found, "two sets of draws from the reference"


def _said(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, SpecError) else f"{type(error).__name__}: {text}"


Half = tuple[Posterior, int]


def halves(posterior: Posterior, seed: int) -> tuple[Half, Half] | None:
    """Two posteriors whose draws are independent, each with the seed to predict by; None where there is one draw.

    Stored draws are cut in the middle (several chains lie one after the other), mixtures between members; a guide
    draws anew.
    """
    if isinstance(posterior, DrawsPosterior):
        parts: list[Any] = [
            {n: v[place] for n, v in posterior.draws.items()} for place in _middle(posterior.num_samples)
        ]
        cut: list[Posterior] = [
            DrawsPosterior(posterior.model, part) for part in parts if len(next(iter(part.values())))
        ]
    elif isinstance(posterior, MixturePosterior):
        parts = [posterior.members[place] for place in _middle(len(posterior.members))]
        cut = [MixturePosterior(part) for part in parts if part]
    else:
        return None if posterior.num_samples == 1 else ((posterior, seed), (posterior, seed + 1))
    for half in cut:
        half.calibrated = posterior.calibrated
    return ((cut[0], seed), (cut[1], seed)) if len(cut) == 2 else None


def _middle(count: int | None) -> tuple[slice, slice]:
    assert count is not None
    return slice(0, count // 2), slice(count // 2, count)


def _apart(halved: tuple[Half, Half], data: TaskData) -> dict[str, float]:
    kept = []
    for posterior, seed in halved:
        found = posterior.predict(data.test.x, seed=seed)
        if isinstance(found, ClassPrediction):
            assert data.test.y is not None
            kept.append({"test.probabilities": found.probabilities, "test.labels": data.test.y})
        else:
            kept.append({"test.mean": found.mean, "test.sd": found.sd})
    return distances(*kept)


def _other(spec: Mapping[str, Any] | None, results: Iterable[Result]) -> dict[str, str]:
    """The methods that approximate another posterior than the reference does, and the parts that differ."""
    if not spec:
        return {}
    there, found = _target(spec), {}
    for result in results:
        here = _target(result.spec)
        if parts := [part for part in there if spec_difference(there[part], here[part], part)]:
            found[result.method] = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
    return found


def _target(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What says which posterior a run approximates, by what a reader calls it."""
    (task,) = spec["task"].values() if isinstance(spec.get("task"), Mapping) else ({},)
    return {
        "model": spec.get("model"),
        "prior": spec.get("prior"),
        "likelihood": task.get("likelihood") if isinstance(task, Mapping) else None,
        "temperature": _inside(spec.get("driver"), "temperature", 1.0),
        "KL weight": _inside(spec.get("driver"), "kl_weight", 1.0),
    }


def _inside(driver: Any, key: str, default: float) -> float:
    """A setting of a driver, or of the driver of its members; the default where none has it."""
    settings = next(iter(driver.values()), None) if isinstance(driver, Mapping) else None
    if not isinstance(settings, Mapping):
        return default
    return settings[key] if key in settings else _inside(settings.get("member"), key, default)
