"""The functions that a prior believes in, before any data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro
from pyro import poutine
from torch import Tensor

from ..models import BayesianModel
from ..priors import SettingError
from ..priors.improper import is_flat
from .data import Inputs, first
from .posterior import NUM_SAMPLES, Posterior
from .prediction import Outputs

FLAT = "proper priors: a flat prior has no predictive, since nothing can be drawn from it"


def flat_sites(model: BayesianModel) -> list[str]:
    """The weights and hyperparameters whose prior is flat, so that its draws mean nothing."""
    weights = zip(model.sites, model.distributions().values(), strict=True)
    return [name for name, prior in (*model.hyper_sites.items(), *weights) if is_flat(prior)]


class PriorFunctions(Posterior):
    r"""The posterior given nothing: draws of all sites from the prior, and what they predict.

    .. math:: w_s \sim p(w), \qquad p(y \mid x) = \tfrac1S \sum_s p(y \mid x, w_s)

    Weights that are fixed or learned are taken as they are in the net; attention rows are drawn from their prior.

    Args:
        model: The model.

    Raises:
        SettingError: A prior is flat, and so has no draws.
    """

    def __init__(self, model: BayesianModel):
        super().__init__(model)
        if flat := flat_sites(model):
            named = ", ".join(flat[:3]) + (f" and {len(flat) - 3} more" if len(flat) > 3 else "")
            raise SettingError("prior", f"a flat prior of {named}", FLAT)

    @property
    def num_samples(self) -> int | None:
        return None

    def chunks(self, num_samples: int, most: int) -> Iterator[tuple[int, dict[str, Tensor]]]:
        return self._in_blocks(num_samples, most, self._fresh)

    def _fresh(self, size: int) -> dict[str, Tensor]:
        with poutine.block(), poutine.trace() as tracer, pyro.plate("draws", size, dim=-2):
            self.model.sample_globals()
        nodes = tracer.trace.nodes
        return {name: nodes[name]["value"].squeeze(1) for name in self.model.initial_values()}  # [S, 1, ...]

    def outputs(self, x: Inputs, num_samples: int = NUM_SAMPLES, *, seed: int = 0, batch_size: int = 256) -> Tensor:
        """What the net returns for each draw, as it is: under a wide prior some functions overflow.

        Args:
            x, num_samples, seed, batch_size: See `Posterior.outputs`.

        Returns:
            ``[S, N, ...]`` on the CPU; a function that overflowed holds NaN or infinity.

        Raises:
            DataError: ``x`` is empty, or holds NaN or infinity.
        """
        return self._gathered(x, num_samples, seed, batch_size, Outputs(len(first(x)), finite=False))

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def structure(self) -> dict[str, Any]:
        return {}

    @classmethod
    def restored(cls, model: BayesianModel, structure: dict[str, Any], tensors: dict[str, Tensor]) -> Posterior:
        return cls(model)
