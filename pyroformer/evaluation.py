"""The metrics of a posterior on a task."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from .inference import ClassPrediction, MixturePosterior, Posterior, RealPrediction, decompose, metrics, psis
from .inference.data import Inputs, take
from .inference.importance import NUM_DRAWS, refusal
from .inference.posterior import NUM_SAMPLES
from .models import Pair
from .tasks import Split, TaskData

SHIFTED = "shifted"
"""The group that holds the means over all corruptions and severities."""
MOST_PASSES, FEWEST_DRAWS = 2**16, 50
"""Of a run's own k-hat: how many examples its draws may see together, and the fewest draws that tell something."""
PLUG_IN = ("accuracy", "nll", "ece", "rmse", "coverage_90")
"""What is measured of predictions with plug-in rows too."""
DECOMPOSED, NESTED = 256, 8
"""Of a run with random rows: the first examples of a set whose uncertainty is decomposed, and draws of each kind."""
LEVEL = 0.9
"""Probability of the central interval whose coverage is reported."""


def class_metrics(prediction: ClassPrediction, y: Tensor) -> dict[str, float]:
    """Accuracy, NLL, Brier score, calibration errors (15 bins), AURC, and the parts of the entropy, in nats."""
    seen = y.flatten() >= 0
    probabilities, labels = prediction.probabilities.flatten(0, -2)[seen], y.flatten()[seen]
    return {
        "accuracy": float(metrics.accuracy(probabilities, labels)),
        "nll": float(metrics.negative_log_likelihood(probabilities, labels)),
        "brier": float(metrics.brier(probabilities, labels)),
        "ece": float(metrics.calibration_error(probabilities, labels)),
        "ece_adaptive": float(metrics.adaptive_calibration_error(probabilities, labels)),
        "ece_classwise": float(metrics.classwise_calibration_error(probabilities, labels)),
        "aurc": float(metrics.aurc(probabilities, labels)),
        **uncertainty(prediction, seen),
    }


def language_metrics(nll: float, unit: str) -> dict[str, float]:
    """Perplexity, and bits a character or word, of predictions of the next one with this NLL in nats."""
    return {"perplexity": math.exp(nll), f"bits_per_{unit}": nll / math.log(2)}


def sequence_accuracy(prediction: ClassPrediction, y: Tensor) -> float:
    """The share of sequences whose every observed token is the most probable one.

    With given earlier tokens that is how often a target would be written in full, each token the most probable one.
    """
    return float(((prediction.labels == y) | (y < 0)).all(-1).double().mean())


def uncertainty(prediction: ClassPrediction, seen: Tensor | None = None) -> dict[str, float]:
    """Mean predictive entropy and its parts, in nats."""

    def mean(values: Tensor) -> float:
        return float((values.flatten() if seen is None else values.flatten()[seen]).mean())

    return {
        "entropy": mean(prediction.entropy),
        "expected_entropy": mean(prediction.expected_entropy),
        "mutual_information": mean(prediction.mutual_information),
    }


def real_metrics(prediction: RealPrediction, y: Tensor) -> dict[str, float]:
    """RMSE, NLL, coverage of the central 90 % interval, and the mean parts of the predictive sd."""
    y = y.double()
    tail = (1 - LEVEL) / 2
    lower, upper = prediction.quantile(tail), prediction.quantile(1 - tail)
    return {
        "rmse": float(metrics.rmse(prediction.mean, y)),
        "nll": float(-prediction.log_density(y).mean()),
        "coverage_90": float(metrics.interval_coverage(y, lower, upper)),
        "sd": float(prediction.sd.mean()),
        "model_sd": float(prediction.model_variance.sqrt().mean()),
        "data_sd": float(prediction.data_variance.sqrt().mean()),
    }


def mean_of(groups: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean of every metric over sets of the same kind."""
    return {key: sum(group[key] for group in groups) / len(groups) for key in groups[0]}


def _splits(data: TaskData) -> Iterator[tuple[str, Split]]:
    if data.validation is not None:
        yield "validation", data.validation
    yield "test", data.test
    yield from data.shifted.items()


def evaluate(
    posterior: Posterior, data: TaskData, *, num_samples: int = NUM_SAMPLES, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Predict every set of a task and measure the predictions.

    Args:
        posterior: What predicts.
        data: The task's data.
        num_samples: Draws for a prediction, default 32.
        seed: Of the draws.

    Returns:
        The metrics of every set, ``{"test": {"accuracy": ...}, ...}``: out-of-distribution sets carry their AUROC, AUPR
        and FPR95 against the test set by predictive entropy and by mutual information, ``shifted`` holds the means over
        corruptions at all severities, and with a calibration ``test`` also says what it was without. Where attention
        rows are random, ``validation`` and ``test`` say how the plug-in row does (``plug_in_nll``), and every set but
        the validation set what its first 256 examples are unsure of (``data_entropy``, ``rows_entropy``,
        ``weights_entropy``, or ``variance``; see `decompose`). And the predictions as tensors, by ``set.quantity``.
    """
    measured: dict[str, Any] = {}
    kept: dict[str, Tensor] = {}
    test: ClassPrediction | None = None
    for name, split in _splits(data):
        assert split.y is not None
        prediction = posterior.predict(split.x, num_samples, seed=seed)
        if isinstance(prediction, ClassPrediction):
            measured[name] = class_metrics(prediction, split.y)
            if data.unit is not None:
                measured[name] |= language_metrics(measured[name]["nll"], data.unit)
            if isinstance(data.inputs, Pair):
                measured[name]["sequence_accuracy"] = sequence_accuracy(prediction, split.y)
            kept |= _classes(name, prediction) | {f"{name}.labels": split.y}
            test = prediction if name == "test" else test
        else:
            measured[name] = real_metrics(prediction, split.y)
            kept |= _reals(name, prediction) | {f"{name}.y": split.y}
            if isinstance(split.x, Tensor) and split.x.dim() == 2 and split.x.shape[1] == 1:
                kept[f"{name}.x"] = split.x
        if posterior.random_rows and name != "validation":
            measured[name] |= parts(posterior, split, seed)
        if posterior.random_rows and name in ("validation", "test"):
            measured[name] |= plug_in(posterior, split.x, split.y, num_samples, seed)
    if data.shifts:
        measured[SHIFTED] = mean_of([measured[name] for name in data.shifts])
    for name, split in data.ood.items():
        prediction = posterior.predict(split.x, num_samples, seed=seed)
        if isinstance(prediction, ClassPrediction) and test is not None:
            seen = data.test.y.flatten() >= 0 if data.outputs.per_token and data.test.y is not None else None
            measured[name] = {**detection(test, prediction, seen), **uncertainty(prediction)}
            kept |= _classes(name, prediction)
            if posterior.random_rows:
                measured[name] |= parts(posterior, split, seed)
    if posterior.calibrated is not None and test is not None and data.test.y is not None:
        before = posterior.predict(data.test.x, num_samples, seed=seed, calibrated=False)
        uncalibrated = class_metrics(before, data.test.y)  # type: ignore[arg-type]
        measured["test"] |= {f"{key}_uncalibrated": uncalibrated[key] for key in ("nll", "ece")}
    return measured, kept


def parts(posterior: Posterior, split: Split, seed: int) -> dict[str, float]:
    """The mean parts of the uncertainty over the first examples of a set, and what they lack for few draws."""
    found = decompose(posterior, take(split.x, slice(0, DECOMPOSED)), weights=NESTED, rows=NESTED, seed=seed)
    seen = torch.ones(found.data.shape, dtype=torch.bool)
    if split.y is not None and found.measure == "entropy":
        seen = split.y[:DECOMPOSED].reshape(seen.shape) >= 0
    means = {f"{name}_{found.measure}": float(part[seen].mean()) for name, part in found.parts.items()}
    short = {"rows_shortfall": found.rows_shortfall, "weights_shortfall": found.weights_shortfall}
    return {**means, **{name: float(values[seen].mean()) for name, values in short.items()}}


def plug_in(posterior: Posterior, x: Inputs, y: Tensor, num_samples: int, seed: int) -> dict[str, float]:
    """How predictions with the plug-in rows in the place of drawn ones do; see `PlugInRows`."""
    prediction = posterior.predict(x, num_samples, seed=seed, rows="mean")
    found = class_metrics(prediction, y) if isinstance(prediction, ClassPrediction) else real_metrics(prediction, y)
    return {f"plug_in_{key}": found[key] for key in PLUG_IN if key in found}


def detection(test: ClassPrediction, foreign: ClassPrediction, seen: Tensor | None = None) -> dict[str, float]:
    """How well entropy and mutual information tell foreign inputs (the positives) from the test set.

    Args:
        test: Of the test set.
        foreign: Of inputs from elsewhere.
        seen: Which of the test set's tokens ``[N T]`` are observed and count, or None for all.
    """

    def inside(values: Tensor) -> Tensor:
        return values.flatten() if seen is None else values.flatten()[seen]

    measures = {"auroc": metrics.auroc, "aupr": metrics.aupr, "fpr95": metrics.fpr_at_tpr}
    scores = {
        "entropy": (test.entropy, foreign.entropy),
        "mutual_information": (test.mutual_information, foreign.mutual_information),
    }
    return {
        f"{measure}_{score}": float(function(inside(near), far.flatten()))
        for measure, function in measures.items()
        for score, (near, far) in scores.items()
    }


def k_hat(posterior: Posterior, data: TaskData, *, seed: int = 0) -> dict[str, float]:
    """The shape of the tail of a posterior's importance weights, and up to which shape they can be used; see `psis`.

    Nothing where the posterior has no density or no finite weights, and where 50 draws on all training examples are
    more than 65,536 passes through the net; up to 200 draws are made where they are not. `psis` itself has no limit.
    """
    num_samples = min(NUM_DRAWS, MOST_PASSES // len(data.data))
    if num_samples < FEWEST_DRAWS or refusal(posterior) is not None:
        return {}
    try:
        found = psis(posterior, data.data, num_samples, seed=seed)
    except ValueError:  # NaN
        return {}
    return {"k_hat": found.k_hat, "k_hat_threshold": found.threshold} if math.isfinite(found.k_hat) else {}


def members(posterior: Posterior, data: TaskData, *, seed: int = 0) -> list[dict[str, float]]:
    """The test metrics of every member of a mixture on its own, so that it can be compared with them."""
    if not isinstance(posterior, MixturePosterior):
        return []
    return [
        evaluate(member, replace(data, validation=None, shifted={}, shifts={}, ood={}), seed=seed)[0]["test"]
        for member in posterior.members
    ]


def _classes(name: str, prediction: ClassPrediction) -> dict[str, Tensor]:
    return {
        f"{name}.probabilities": prediction.probabilities.to(torch.float32),
        f"{name}.expected_entropy": prediction.expected_entropy.to(torch.float32),
    }


def _reals(name: str, prediction: RealPrediction) -> dict[str, Tensor]:
    tail = (1 - LEVEL) / 2
    return {
        f"{name}.mean": prediction.mean,
        f"{name}.sd": prediction.sd,
        f"{name}.lower": prediction.quantile(tail),
        f"{name}.upper": prediction.quantile(1 - tail),
    }
