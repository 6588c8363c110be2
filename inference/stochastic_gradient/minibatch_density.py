"""The log-density of several chains, each estimated from a minibatch of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ...models import BayesianModel
from ..data import Data, take
from ..density import Layout
from ..density.batching import batchable, without_mutation
from ..density.cleaning import cleaned
from ..density.flat_density import agree
from ..density.joint import Joint
from ..density.tracing import LOOKS, NotTraceable, traced, warn_of_running


class Estimate(NamedTuple):
    """What minibatches say of the density, for ``K`` chains.

    Args:
        log_prob: The log-density, ``[K]``.
        log_likelihood: Of all data, ``[K]``.
        gradient: Of the log-density, ``[K, D]``.
    """

    log_prob: Tensor
    log_likelihood: Tensor
    gradient: Tensor


class Terms(Joint):
    """A log-density that keeps its log-likelihood, as of the last call."""

    log_likelihood: Tensor

    def _log_joint(self, nodes: Mapping[str, Any], z: Tensor) -> Tensor:
        site = nodes["obs"]
        log_prob = scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"], site["mask"])
        self.log_likelihood = log_prob.sum()
        return super()._log_joint(nodes, z)


class MinibatchDensity:
    r"""An unbiased estimate of the log-density, and of its gradient, from a minibatch for each chain.

    .. math:: \ln \hat\pi(z) = \frac1T \Big(\frac NB \sum_{i \in \mathcal B} \ln p(y_i \mid x_i, w) + \ln p(w)\Big)
              + \ln \left| \det \frac{\partial w}{\partial z} \right|, \qquad w = t(z)

    The likelihood counts :math:`N / B` times, the prior once. What the model does is written down and batched over the
    chains where that can be done, and done anew for every chain where not; see `FlatDensity`.

    Args:
        model: The model; nets are evaluated, not trained: without dropout.
        data: All data.
        batch_size: ``B``.
        chains: ``K``.
        temperature: :math:`T`.
        trace: Whether operations are written down, which takes seconds and then makes every evaluation quicker.

    Attributes:
        layout: Where each site stands in the vector.
        traced: Whether operations were written down.
    """

    def __init__(
        self, model: BayesianModel, data: Data, *, batch_size: int, chains: int, temperature: float, trace: bool
    ):
        self.model, self.temperature, self.total = model, temperature, len(data)
        self.several_inputs = isinstance(data.x, tuple)
        self.parts = (*data.x, data.y) if isinstance(data.x, tuple) else (data.x, data.y)
        self.layout = Layout(model, (take(data.x, slice(0, 2)), data.y[:2]))
        self._run: Callable[..., tuple[Tensor, ...]] = self._looped
        self.traced = False
        if trace:
            with torch.random.fork_rng(devices=[]):
                self._trace(batch_size, chains)

    def __call__(self, z: Tensor, index: Tensor) -> Estimate:
        """The estimates at ``z`` ``[K, D]``, each from the examples of its row of ``index`` ``[K, B]``."""
        with torch.no_grad():
            return Estimate(*self._run(z, *(part[index] for part in self.parts)))

    def _single(self, z: Tensor, *parts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The estimate for one chain, by running the model on its minibatch."""
        x = parts[:-1] if self.several_inputs else parts[0]
        terms = Terms(self.model, (x, parts[-1], self.total), {}, self.layout, self.temperature)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = terms(z)
            (gradient,) = torch.autograd.grad(value, z)
        return value.detach(), terms.log_likelihood.detach(), gradient

    def _looped(self, z: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        each = [self._single(z[chain], *(part[chain] for part in parts)) for chain in range(len(z))]
        return tuple(torch.stack(values) for values in zip(*each, strict=True))

    def _trace(self, batch_size: int, chains: int) -> None:
        """Write the operations down; they have to give what the model gives, also where they were not seen."""
        start, generator = self.layout.start(), torch.Generator().manual_seed(0)
        orders = [torch.randperm(self.total, generator=generator)[:batch_size] for _ in range(chains)]
        index = torch.stack(orders).to(start.device)
        noise = torch.randn(chains, len(start), generator=generator, dtype=torch.float64)
        z, parts = start + 0.1 * noise.to(start), [part[index] for part in self.parts]
        try:
            first = [part[:batch_size] for part in self.parts]
            graph = without_mutation(traced(self._single, start, *first), start, *first)
            graph = cleaned(graph, start, *first)
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message=".*batching rule.*")  # it would be a loop, a slow one
                several = cleaned(traced(torch.func.vmap(batchable(graph)), z, *parts), z, *parts)
            with torch.no_grad():
                found, two = several(z, *parts), self._looped(z[:2], *(part[:2] for part in parts))
            if not agree(tuple(values[:2] for values in found), two):
                raise NotTraceable(LOOKS)
        except NotTraceable as error:
            return warn_of_running(error, "for every gradient of every chain")
        self._run, self.traced = several, True
