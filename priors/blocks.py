"""Independent blocks of a weight, one after another along one of its axes."""

from __future__ import annotations

import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from .base import Distribution


def cut(value: Tensor, count: int, axis: int, dims: int) -> Tensor:
    """Blocks along ``axis`` of the last ``dims`` axes: ``[..., *W]`` as ``[..., count, *block]``."""
    axis -= dims
    return value.unflatten(axis, (count, -1)).movedim(axis - 1, -dims - 1)


def joined(blocks: Tensor, axis: int, dims: int) -> Tensor:
    """The weight that blocks ``[..., count, *block]`` were cut from: the inverse of `cut`."""
    axis -= dims
    return blocks.movedim(-dims - 1, axis - 1).flatten(axis - 1, axis)


class Blocks(TorchDistribution):
    r"""A weight that is made of independent blocks, which follow one another along one axis.

    .. math:: p(W) = \prod_h p_h(W_h)

    Args:
        base: The blocks' distribution over the reals: batch shape ``[..., H]``, event shape that of a block.
        axis: The axis of the weight along which it is cut, from 0.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, base: Distribution, axis: int, validate_args: bool | None = None):
        self.base, self.axis = base, axis
        shape = list(base.event_shape)
        shape[axis] *= base.batch_shape[-1]
        super().__init__(base.batch_shape[:-1], torch.Size(shape), validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:
        return bool(self.base.has_rsample)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> Blocks:
        base = self.base.expand(torch.Size(batch_shape) + self.base.batch_shape[-1:])
        return type(self)(base, self.axis, validate_args=False)

    def _joined(self, blocks: Tensor) -> Tensor:
        return joined(blocks, self.axis, len(self.event_shape))

    @property
    def mean(self) -> Tensor:
        return self._joined(self.base.mean)

    @property
    def variance(self) -> Tensor:
        return self._joined(self.base.variance)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self._joined(self.base.rsample(torch.Size(sample_shape)))

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        return self._joined(self.base.sample(torch.Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob(cut(value, self.base.batch_shape[-1], self.axis, len(self.event_shape))).sum(-1)
