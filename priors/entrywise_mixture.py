"""A finite mixture of distributions of one number, drawn for every entry on its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import Categorical, Independent, constraints

from .base import Distribution


def entries(prior: Distribution) -> Distribution:
    """A prior over independent entries with these as its batch.

    Raises:
        ValueError: The entries are not independent.
    """
    found = prior
    while isinstance(found, Independent):
        found = found.base_dist
    if found.event_shape:
        raise ValueError(f"{type(found).__name__} has the event shape {tuple(found.event_shape)}: expected ()")
    return found


class EntrywiseMixture(TorchDistribution):
    r"""Each entry comes from one of several components.

    .. math:: p(x) = \sum_k \pi_k\, p_k(x)

    Draws are not reparameterised; the density is differentiable.

    Args:
        weights: :math:`\pi`, ``[K]``, summing to 1.
        components: ``K`` distributions with batch shapes that broadcast and event shape ().
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, weights: Tensor, components: Sequence[Distribution], validate_args: bool | None = None):
        shape = torch.broadcast_shapes(*(component.batch_shape for component in components))
        self.weights = weights
        self.components = tuple(c if c.batch_shape == shape else c.expand(shape) for c in components)
        super().__init__(shape, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> EntrywiseMixture:
        components = [component.expand(torch.Size(batch_shape)) for component in self.components]
        return type(self)(self.weights, components, validate_args=False)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """The reals, or the widest interval when all components are bounded."""
        found = [component.support for component in self.components]
        if not all(isinstance(each, constraints.interval) for each in found):
            return constraints.real
        low = torch.stack([each.lower_bound for each in found]).amin(0)
        return constraints.interval(low, torch.stack([each.upper_bound for each in found]).amax(0))

    @property
    def mean(self) -> Tensor:
        return torch.stack([component.mean for component in self.components], -1) @ self.weights

    @property
    def variance(self) -> Tensor:
        squares = torch.stack([c.variance + c.mean.square() for c in self.components], -1) @ self.weights
        return squares - self.mean.square()

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        which = Categorical(self.weights, validate_args=False).sample(shape)
        draws = torch.stack([component.sample(torch.Size(sample_shape)) for component in self.components], -1)
        return draws.gather(-1, which.unsqueeze(-1)).squeeze(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        logs = torch.stack([component.log_prob(value) for component in self.components], -1)
        return (logs + self.weights.log()).logsumexp(-1)
