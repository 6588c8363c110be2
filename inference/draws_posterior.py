"""A posterior represented by draws."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..models import BayesianModel
from .files import read_tensors, write_tensors
from .posterior import Posterior
from .stored_draws import StoredDraws, part_file


class DrawsPosterior(Posterior):
    r"""A posterior represented by draws, as samplers give them.

    .. math:: p(w \mid y) \approx \frac1S \sum_s \delta(w - w_s)

    Args:
        model: The model.
        draws: ``[S, ...]`` by site, one chain after another: ``S`` is ``K`` times ``S'``. A `StoredDraws` stays in its
            files, of which a prediction reads the draws that it takes.
        info: See `Posterior`.
        chains: ``K``, default 1.
        statistics: What the sampler tells of each draw, ``[K, S']`` each, default nothing: ``log_density`` (of the
            unconstrained numbers, tempered), ``log_likelihood``, ``energy``, ``acceptance``, ``divergent``, ``steps``,
            ``depth``, ``step_size``.

    Raises:
        ValueError: Chains are not all of one length, or a statistic is not one for each draw.
    """

    def __init__(
        self,
        model: BayesianModel,
        draws: Mapping[str, Tensor],
        info: Mapping[str, Any] | None = None,
        *,
        chains: int = 1,
        statistics: Mapping[str, Tensor] | None = None,
    ):
        super().__init__(model, info)
        self.draws, self.chains, self.statistics = draws, chains, dict(statistics or {})
        total = self.num_samples
        assert total is not None
        if chains < 1 or total % chains:
            raise ValueError(f"{total} draws: expected as many of each of {chains} chains")
        for name, values in self.statistics.items():
            if values.shape != (chains, total // chains):
                raise ValueError(f"{name} is {tuple(values.shape)}: expected {(chains, total // chains)}")

    @property
    def num_samples(self) -> int | None:
        if isinstance(self.draws, StoredDraws):
            return self.draws.num_samples
        return len(next(iter(self.draws.values())))

    def by_chain(self, *sites: str) -> dict[str, Tensor]:
        """The draws ``[K, S', ...]`` of some sites, default all, by site."""
        return {name: self.draws[name].unflatten(0, (self.chains, -1)) for name in sites or self.draws}

    def chunks(self, num_samples: int, most: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        total = self.num_samples
        assert total is not None
        kept = torch.arange(num_samples) * total // num_samples  # evenly spaced, or each as often as the others
        for index in kept.split(most):
            yield len(index), self._taken(index)

    def _taken(self, index: Tensor) -> dict[str, Tensor]:
        if isinstance(self.draws, StoredDraws):
            found = self.draws.rows(index)
        else:
            found = {name: values[index] for name, values in self.draws.items()}
        device = next(self.model.parameters()).device
        return {name: values.to(device) for name, values in found.items()}

    def tensors(self) -> dict[str, Tensor]:
        in_memory = {} if isinstance(self.draws, StoredDraws) else self.draws
        return {
            **{f"draws.{name}": values for name, values in in_memory.items()},
            **{f"statistics.{name}": values for name, values in self.statistics.items()},
        }

    def structure(self) -> dict[str, Any]:
        parts = len(self.draws.parts) if isinstance(self.draws, StoredDraws) else 0
        return {"chains": self.chains, "parts": parts}

    def write(self, folder: Path) -> None:
        super().write(folder)
        for index, part in enumerate(self.draws.parts if isinstance(self.draws, StoredDraws) else ()):
            write_tensors(part_file(folder, index), part)

    @classmethod
    def restored(cls, model: BayesianModel, structure: dict[str, Any], tensors: dict[str, Tensor]) -> Posterior:
        count = structure.get("parts", 0)
        stored = StoredDraws([read_tensors(part_file(structure["path"], i)) for i in range(count)]) if count else None
        plain = {name.removeprefix("draws."): t for name, t in tensors.items() if name.startswith("draws.")}
        draws = plain if stored is None else stored
        found = {name: values.shape[1:] for name, values in plain.items()}
        if stored is not None:
            found = {name: values.shape[2:] for name, values in stored.parts[0].items()}
        sites = {name: value.shape for name, value in model.initial_values().items()}
        if found != sites:
            wrong = min(name for name in {*found, *sites} if found.get(name) != sites.get(name))
            shapes = [tuple(at[wrong]) if wrong in at else "none" for at in (found, sites)]
            raise LookupError(f"draws of {wrong} have shape {shapes[0]}: expected {shapes[1]}")
        statistics = {n.removeprefix("statistics."): t for n, t in tensors.items() if n.startswith("statistics.")}
        return cls(model, draws, chains=structure.get("chains", 1), statistics=statistics)
