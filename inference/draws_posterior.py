"""A posterior represented by draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..models import BayesianModel
from .posterior import Posterior


class DrawsPosterior(Posterior):
    """A posterior represented by draws, as samplers give them.

    Args:
        model: The model.
        draws: ``[S, ...]`` by site.
        info: See `Posterior`.
    """

    def __init__(self, model: BayesianModel, draws: dict[str, Tensor], info: Mapping[str, Any] | None = None):
        super().__init__(model, info)
        self.draws = draws

    @property
    def num_samples(self) -> int | None:
        return len(next(iter(self.draws.values())))

    def chunks(self, num_samples: int, most: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        total = self.num_samples
        assert total is not None
        kept = torch.arange(num_samples) * total // num_samples  # evenly spaced, or each as often as the others
        for index in kept.split(most):
            yield len(index), {name: values[index] for name, values in self.draws.items()}

    def tensors(self) -> dict[str, Tensor]:
        return {f"draws.{name}": values for name, values in self.draws.items()}

    def structure(self) -> dict[str, Any]:
        return {}

    @classmethod
    def restored(cls, model: BayesianModel, structure: dict[str, Any], tensors: dict[str, Tensor]) -> Posterior:
        draws = {name.removeprefix("draws."): t for name, t in tensors.items()}
        found = {name: values.shape[1:] for name, values in draws.items()}
        sites = {name: value.shape for name, value in model.initial_values().items()}
        if found != sites:
            wrong = min(name for name in {*found, *sites} if found.get(name) != sites.get(name))
            shapes = [tuple(at[wrong]) if wrong in at else "none" for at in (found, sites)]
            raise LookupError(f"draws of {wrong} have shape {shapes[0]}: expected {shapes[1]}")
        return cls(model, draws)
