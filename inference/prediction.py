"""Predictions: averages over draws, gathered chunk by chunk."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from ..models import Categorical, Gaussian, Likelihood
from . import metrics
from .errors import InferenceError


@dataclass(frozen=True, eq=False)
class ClassPrediction:
    r"""Class probabilities averaged over draws, and the parts of their entropy.

    .. math:: p(y \mid x) = \tfrac1S \sum_s p(y \mid x, w_s), \qquad
              \underbrace{H[p(y \mid x)]}_{\text{total}}
              = \underbrace{\tfrac1S \sum_s H[p(y \mid x, w_s)]}_{\text{data}} + \underbrace{I[y; w \mid
              x]}_{\text{model}}

    Args:
        probabilities: ``[N, C]``, or ``[N, T, C]`` per token. Probabilities are averaged, never logits.
        expected_entropy: ``[N]`` or ``[N, T]``, in nats.
        num_samples: ``S``.
    """

    probabilities: Tensor
    expected_entropy: Tensor
    num_samples: int

    @property
    def labels(self) -> Tensor:
        """The most probable class."""
        return self.probabilities.argmax(-1)

    @property
    def entropy(self) -> Tensor:
        """Entropy of the averaged probabilities, in nats."""
        return metrics.entropy(self.probabilities)

    @property
    def mutual_information(self) -> Tensor:
        """What the draws disagree about, in nats; at least 0, and exactly 0 for one draw."""
        if self.num_samples == 1:
            return torch.zeros_like(self.expected_entropy)  # the difference would rank examples by rounding errors
        return (self.entropy - self.expected_entropy).clamp(min=0)


@dataclass(frozen=True, eq=False)
class RealPrediction:
    r"""An equal mixture of normal distributions, one a draw.

    .. math:: p(y \mid x) = \tfrac1S \sum_s \mathcal N(y \mid f_s(x), \sigma_s^2)

    Args:
        loc: ``[S, N, D]``.
        scale: Broadcastable to ``loc``.
    """

    loc: Tensor
    scale: Tensor

    @property
    def num_samples(self) -> int:
        """``S``."""
        return len(self.loc)

    @property
    def mean(self) -> Tensor:
        """``[N, D]``."""
        return self.loc.mean(0)

    @property
    def data_variance(self) -> Tensor:
        """The noise's share of the variance, ``[N, D]``."""
        return self.scale.square().expand(self.loc.shape).mean(0)

    @property
    def model_variance(self) -> Tensor:
        """The share of the draws' disagreement, ``[N, D]``."""
        return self.loc.var(0, correction=0)

    @property
    def sd(self) -> Tensor:
        """Standard deviation of the mixture, ``[N, D]``."""
        return (self.data_variance + self.model_variance).sqrt()

    def quantile(self, level: float) -> Tensor:
        """Quantile of each output, ``[N, D]``."""
        return metrics.mixture_quantile(level, self.loc, self.scale.expand(self.loc.shape))

    def log_density(self, y: Tensor) -> Tensor:
        """Log-density of observations ``[N, D]``, jointly over ``D``: ``[N]``."""
        return metrics.mixture_log_density(y, self.loc, self.scale.expand(self.loc.shape))


Prediction = ClassPrediction | RealPrediction


class Gathering(ABC):
    """Adds up the outputs of chunks of draws on chunks of examples."""

    @abstractmethod
    def add(self, where: slice, outputs: Tensor, drawn: dict[str, Tensor]) -> None:
        """Outputs ``[S, B, ...]`` of some draws on the examples ``where``; ``drawn`` holds the draws' global sites."""

    @abstractmethod
    def result(self) -> Any:
        """The prediction over everything that was added."""


def check_finite(predicted: Tensor) -> None:
    """Raise an `InferenceError` when a prediction of ``[N, ...]`` is not finite."""
    wrong = (~torch.isfinite(predicted)).reshape(len(predicted), -1).any(1)
    if wrong.any():
        first = int(wrong.nonzero()[0])
        raise InferenceError(
            f"the prediction of {int(wrong.sum())} of {len(wrong)} examples is not finite, first of {first}"
        )


class _Classes(Gathering):
    def __init__(self, likelihood: Likelihood, num_examples: int):
        self.size = num_examples
        self.probabilities: Tensor | None = None
        self.count = 0

    def add(self, where: slice, outputs: Tensor, drawn: dict[str, Tensor]) -> None:
        logs = outputs.log_softmax(-1)
        probabilities = logs.exp()
        if self.probabilities is None:
            shape = (self.size, *outputs.shape[2:])
            self.probabilities = torch.zeros(shape, dtype=torch.float64)
            self.entropy = torch.zeros(shape[:-1], dtype=torch.float64)
        self.probabilities[where] += probabilities.sum(0).cpu()
        self.entropy[where] -= (probabilities * logs).sum((0, -1)).cpu()
        if where.start == 0:
            self.count += len(outputs)

    def result(self) -> Prediction:
        assert self.probabilities is not None
        check_finite(self.probabilities)
        probabilities = self.probabilities / self.count
        return ClassPrediction(
            probabilities / probabilities.sum(-1, keepdim=True), self.entropy / self.count, self.count
        )


class _Reals(Gathering):
    def __init__(self, likelihood: Likelihood, num_examples: int):
        self.likelihood, self.size = likelihood, num_examples
        self.chunks: list[tuple[Tensor, Tensor]] = []

    def add(self, where: slice, outputs: Tensor, drawn: dict[str, Tensor]) -> None:
        normal = self.likelihood.distribution(outputs, drawn).base_dist
        scale = normal.scale.expand(outputs.shape)
        if where.start == 0:
            shape = (len(outputs), self.size, *outputs.shape[2:])
            self.chunks.append((torch.empty(shape, dtype=torch.float64), torch.empty(shape, dtype=torch.float64)))
        self.chunks[-1][0][:, where], self.chunks[-1][1][:, where] = outputs.cpu(), scale.cpu()

    def result(self) -> Prediction:
        loc, scale = (torch.cat(parts) for parts in zip(*self.chunks, strict=True))
        check_finite(loc.transpose(0, 1))
        return RealPrediction(loc, scale)


class Outputs(Gathering):
    """Keeps the outputs of every draw, ``[S, N, ...]``, and refuses those that are not finite unless told not to."""

    def __init__(self, num_examples: int, *, finite: bool = True):
        self.size, self.finite = num_examples, finite
        self.chunks: list[Tensor] = []

    def add(self, where: slice, outputs: Tensor, drawn: dict[str, Tensor]) -> None:
        if where.start == 0:
            self.chunks.append(outputs.new_empty((len(outputs), self.size, *outputs.shape[2:]), device="cpu"))
        self.chunks[-1][:, where] = outputs.cpu()

    def result(self) -> Tensor:
        """The outputs, in the order of the draws."""
        outputs = torch.cat(self.chunks)
        if self.finite:
            check_finite(outputs.transpose(0, 1))
        return outputs


@singledispatch
def gathering(likelihood: Likelihood, num_examples: int) -> Gathering:
    """The way to gather predictions under a likelihood; a new likelihood registers its own.

    Raises:
        TypeError: There is none for it.
    """
    known = ", ".join(kind.__name__ for kind in gathering.registry if kind is not object)
    raise TypeError(f"no prediction is registered for a {type(likelihood).__name__} likelihood: expected {known}")


gathering.register(Categorical, _Classes)
gathering.register(Gaussian, _Reals)


def slices(length: int, size: int) -> Iterable[slice]:
    """Consecutive slices of at most ``size``."""
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]
