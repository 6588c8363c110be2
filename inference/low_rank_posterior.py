"""A normal posterior whose covariance is diagonal plus low rank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ..models import BayesianModel
from .posterior import Posterior
from .unconstrained import Unconstrained


class LowRankPosterior(Posterior):
    r"""A normal posterior whose covariance is diagonal plus low rank, on the unconstrained space of the sites.

    .. math:: u = m + s \odot z_1 + F^\top z_2, \qquad z_1, z_2 \sim \mathcal N(0, I), \qquad
              \mathrm{Cov}[u] = \mathrm{diag}(s^2) + F^\top F

    Args:
        model: The model.
        mean: :math:`m`, ``[P]``, in the order of `Unconstrained`.
        scale: :math:`s`, ``[P]``, at least 0.
        factor: :math:`F`, ``[K, P]``.
        info: See `Posterior`.
    """

    def __init__(
        self,
        model: BayesianModel,
        mean: Tensor,
        scale: Tensor,
        factor: Tensor,
        info: Mapping[str, Any] | None = None,
    ):
        super().__init__(model, info)
        self.mean, self.scale, self.factor = mean, scale, factor
        self.sites = Unconstrained(model)

    @property
    def num_samples(self) -> int | None:
        return None

    def chunks(self, num_samples: int, most: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        return self._in_blocks(num_samples, most, self._fresh)

    def _fresh(self, size: int) -> dict[str, Tensor]:
        vectors = self.mean + self.scale * self._noise(size, len(self.mean))
        return self.sites.values(vectors + self._noise(size, len(self.factor)) @ self.factor)

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(shape, dtype=self.mean.dtype, device=self.mean.device)

    def tensors(self) -> dict[str, Tensor]:
        return {"normal.mean": self.mean, "normal.scale": self.scale, "normal.factor": self.factor}

    def structure(self) -> dict[str, Any]:
        return {}

    @classmethod
    def restored(cls, model: BayesianModel, structure: dict[str, Any], tensors: dict[str, Tensor]) -> Posterior:
        mean, scale, factor = (tensors[f"normal.{name}"] for name in ("mean", "scale", "factor"))
        found = cls(model, mean, scale, factor)
        size = found.sites.size
        shapes = (tuple(mean.shape), tuple(scale.shape), tuple(factor.shape[1:]))
        if set(shapes) != {(size,)}:
            raise LookupError(f"mean, scale and factor are over {shapes}: expected {size} numbers each")
        return found
