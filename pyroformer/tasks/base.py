"""What a task is: data in splits, the shapes of a net for it, and a likelihood."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..inference import Data
from ..inference.data import Inputs, first
from ..models import Input, Likelihood, Output
from .shifts import Shift
from .text_shifts import TextShift

if TYPE_CHECKING:
    from .arrays import Arrays


@dataclass(frozen=True, eq=False)
class Split:
    """Examples of one purpose.

    Args:
        x: Inputs ``[N, ...]``.
        y: Observations ``[N, ...]``, or None for inputs from elsewhere (out of distribution).
    """

    x: Inputs
    y: Tensor | None = None


@dataclass(frozen=True, eq=False)
class TaskData:
    """Everything that a run needs to know of its task.

    Args:
        inputs, outputs: Shapes of the net.
        likelihood: Of the observations given the net's output.
        train, validation, test: The splits; ``validation`` may be None.
        shifted: Test sets with changed inputs and the same meaning, by name.
        ood: Inputs from elsewhere, by name: a good posterior is unsure of them.
        shifts: The shifted sets that are a corruption at a severity, by their name in ``shifted``.
        source: Where the data are from, as plain data for a run's records: ``origin`` in words, ``files`` (path to
            SHA-256 of what was read), ``split`` (the seed), and what a task adds: ``sha256`` by set, of arrays in
            memory and of the tokens of a text. ``sizes``, the number of examples of every set, is filled in here.
        unit: What a token is, where outputs predict the next token of a language: ``character`` or ``word``.
    """

    inputs: Input
    outputs: Output
    likelihood: Likelihood
    train: Split
    test: Split
    validation: Split | None = None
    shifted: dict[str, Split] = field(default_factory=dict)
    ood: dict[str, Split] = field(default_factory=dict)
    shifts: Mapping[str, Shift | TextShift] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    unit: str | None = None

    def __post_init__(self) -> None:
        sets = {"train": self.train, "validation": self.validation, "test": self.test, **self.shifted, **self.ood}
        sizes = {name: len(first(split.x)) if split is not None else 0 for name, split in sets.items()}
        object.__setattr__(self, "source", {**self.source, "sizes": sizes})

    @property
    def data(self) -> Data:
        """What a driver learns from."""
        assert self.train.y is not None
        if self.validation is None:
            return Data(self.train.x, self.train.y)
        return Data(self.train.x, self.train.y, self.validation.x, self.validation.y)


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A source of data, with its settings."""

    @abstractmethod
    def load(self) -> TaskData:
        """Read or make the data; the same settings give the same numbers."""

    @staticmethod
    def from_arrays(
        x: Any,
        y: Any,
        x_test: Any,
        y_test: Any,
        x_validation: Any = None,
        y_validation: Any = None,
        *,
        inputs: Input | None = None,
        likelihood: Likelihood | None = None,
    ) -> Arrays:
        """A task from a user's own arrays (NumPy, torch or lists).

        Args:
            x: Training inputs, ``[N, F]`` real features, ``[N, T]`` whole numbers (tokens), ``[N, T, F]`` real
                sequences or ``[N, channels, height, width]`` images.
            y: ``[N]`` or ``[N, T]`` whole numbers (classes), or ``[N]`` or ``[N, D]`` real numbers.
            x_test, y_test: Test examples.
            x_validation, y_validation: Validation examples; default a tenth of the training examples (seeded).
            inputs: The shape of an input, where the rule above does not say it.
            likelihood: Default ``Categorical`` for whole numbers, else ``Gaussian(noise="learned")``.

        Raises:
            DataError: Lists have different lengths. `Arrays.load` looks at the rest.
        """
        from .arrays import Arrays, plain_array

        arrays = {"x": x, "y": y, "x_test": x_test, "y_test": y_test}
        validation = {"x_validation": x_validation, "y_validation": y_validation}
        arrays |= {name: a for name, a in validation.items() if a is not None}
        task = Arrays(file=None)
        task.keep({name: plain_array(name, a) for name, a in arrays.items()}, inputs, likelihood)
        return task


def file_hash(path: str | Path) -> dict[str, str]:
    """The SHA-256 of a file by its path, for the ``files`` of a source."""
    with open(path, "rb") as file:
        return {str(path): hashlib.file_digest(file, "sha256").hexdigest()}


def reals(values: Any) -> Tensor:
    """Real numbers as a float32 tensor."""
    return torch.as_tensor(np.array(values), dtype=torch.float32)


def shuffled(count: int, seed: int) -> Tensor:
    """The numbers below ``count`` in an order of this seed."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


def noisy(x: Tensor, scale: float, seed: int) -> Tensor:
    """Inputs with normal noise of standard deviation ``scale`` added."""
    return x + scale * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
