"""What an adaptation is: it tunes a kernel during warm-up, and can be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .kernel import Moved, Tuning

FirstStepSize = Callable[[Tensor, float], float]
"""A step size to begin with, for inverse masses ``[D]`` and near a given size."""


class Adaptation(ABC):
    """Finds a `Tuning`, step by step of warm-up.

    Args:
        tuning: To begin with.

    Attributes:
        tuning: The present one.
        count: Steps that were taken into account.
    """

    def __init__(self, tuning: Tuning):
        self.tuning = tuning
        self.count = 0

    @abstractmethod
    def update(self, moved: Moved, first_step_size: FirstStepSize) -> None:
        """Take a step into account.

        Args:
            moved: What it gave.
            first_step_size: Finds a step size when masses have changed.
        """

    def state(self) -> dict[str, Tensor]:
        """Everything that changes."""
        return {
            "count": torch.tensor(self.count),
            "step_size": torch.tensor(self.tuning.step_size, dtype=torch.float64),
            "inverse_mass": self.tuning.inverse_mass,
            "length": torch.tensor(self.tuning.length, dtype=torch.float64),
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state` was taken."""
        self.count = int(state["count"])
        mass = state["inverse_mass"].to(self.tuning.inverse_mass.device)
        self.tuning = Tuning(float(state["step_size"]), mass, float(state["length"]))


def below(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a part as part of a state."""
    return {f"{name}.{key}": value for key, value in state.items()}


def part(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `below` made of the state of a part."""
    return {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
