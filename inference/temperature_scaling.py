"""Temperature scaling."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import BayesianModel, Categorical
from ..priors.settings import check
from .calibration import Calibration
from .data import DataError

GRID = 17
TOLERANCE = 1e-3
"""Of the logarithm of the temperature: far below what validation data tell."""
SLICE = 4096
"""Examples whose logits are looked at together."""


@dataclass(frozen=True, kw_only=True)
class TemperatureScaling(Calibration):
    r"""One temperature for the logits of all draws, fitted by the validation NLL of their averaged probabilities.

    .. math:: p(y \mid x) = \tfrac1S \sum_s \mathrm{softmax}\big(f_{w_s}(x) / T\big)_y, \qquad
              T = \arg\min_t -\sum_n \log p_t(y_n \mid x_n)

    Above 1 it makes predictions less sure, below 1 surer. With one draw it leaves the most probable class as it is.
    It is no temperature of a posterior: the draws stay the same.

    Args:
        most: Temperatures from ``1 / most`` to ``most`` are looked at, above 1, default 20.

    Raises:
        SettingError: ``most`` is not a number above 1.

    Reference:
        Guo et al., 2017, "On calibration of modern neural networks", Sec. 4.2; fitted to the average over draws as in
        Rahaman and Thiery, 2021, "Uncertainty quantification and deep ensembles".
    """

    most: float = 20.0

    def __post_init__(self) -> None:
        check(self, "most", 1 < self.most < float("inf"), "a number above 1")

    def refusal(self, model: BayesianModel) -> str | None:
        return None if isinstance(model.likelihood, Categorical) else "none: only classes have logits to scale"

    def fit(self, outputs: Tensor, y: Tensor) -> dict[str, float]:
        labels = y.flatten()
        seen = labels >= 0
        if not seen.any():
            raise DataError("validation y: no example has a label to fit a temperature on")
        flat, labels = outputs.flatten(1, -2), labels[seen]
        flat = flat if seen.all() else flat[:, seen]
        parts = list(zip(flat.split(SLICE, 1), labels.split(SLICE), strict=True))

        def nll(log_temperature: float) -> float:
            total = 0.0
            for logits, own in parts:  # in slices: there may be far more logits than predictions
                logs = (logits.double() / math.exp(log_temperature)).log_softmax(-1)
                of_label = logs.gather(-1, own.expand(len(logs), -1).unsqueeze(-1)).squeeze(-1)
                total -= float((of_label.logsumexp(0) - math.log(len(logs))).sum())
            return total / len(labels)

        reach = math.log(self.most)
        found = minimum(nll, -reach, reach)
        return {"temperature": math.exp(found), "nll_before": nll(0.0), "nll": nll(found)}

    def apply(self, outputs: Tensor, fitted: Mapping[str, float]) -> Tensor:
        return outputs / fitted["temperature"]


def minimum(function: Callable[[float], float], low: float, high: float) -> float:
    """Where a function is smallest: the best point of a grid, then golden sections between its neighbours."""
    grid = torch.linspace(low, high, GRID, dtype=torch.float64).tolist()
    best = min(range(GRID), key=lambda index: function(grid[index]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, GRID - 1)]
    golden = (math.sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > TOLERANCE:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return (low + high) / 2
