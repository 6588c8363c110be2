"""What a prior is: over one weight of a net, or over the rows of an attention layer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin as Distribution
from torch import Tensor, nn

from .settings import check, check_option


@dataclass(frozen=True, eq=False)
class Site:
    """A parameter of a net, as a prior sees it.

    Args:
        name: The parameter's name in the net, which is also the name of the sample site.
        value: Its value in the net, any shape.
        fan_in: How many inputs its layer sums over; a bias has its layer's fan-in.
        center: Where shrinkage should lead: 1 for the gain of a normalisation layer, else 0. Gains shrunk to 0 leave
            a net that can learn nothing.
    """

    name: str
    value: Tensor
    fan_in: int = 1
    center: float = 0.0

    @property
    def loc(self) -> Tensor:
        """The centre, in the parameter's shape."""
        return torch.full_like(self.value, self.center)


class Prior(ABC):
    """A prior over one parameter of a net; it has the shape of that parameter as its event."""

    @abstractmethod
    def distribution(self, site: Site) -> Distribution:
        """The prior of ``site``: batch shape (), event shape ``site.value.shape``."""

    def __call__(self, name: str, parameter: Tensor) -> Distribution:
        """The prior of a bare tensor: fan-in from its last axis, centre 0."""
        fan_in = parameter.shape[-1] if parameter.dim() > 1 else 1
        return self.distribution(Site(name, parameter.detach(), fan_in))


class PointEstimate(ABC):
    """No prior: the parameter stays a number and is no sample site."""

    @property
    @abstractmethod
    def trained(self) -> bool:
        """Whether a driver that optimises may change it."""


SCALINGS = ("absolute", "fan_in")


@dataclass(frozen=True, kw_only=True)
class ScaledPrior(Prior):
    r"""A prior with a scale, absolute or relative to the fan-in.

    .. math:: s = \text{scale} \quad\text{or}\quad s = \text{scale}\,\sqrt{2 / \text{fan\_in}}

    Args:
        scale: Above 0, default 1.
        scaling: ``absolute`` (default) or ``fan_in``.

    Raises:
        SettingError: ``scale`` is not above 0, or ``scaling`` is unknown.
    """

    scale: float = 1.0
    scaling: str = "absolute"

    def __post_init__(self) -> None:
        check(self, "scale", 0 < self.scale < math.inf, "a number above 0")
        check_option(self, "scaling", SCALINGS)

    def scale_of(self, site: Site) -> Tensor:
        """The scale of every entry of ``site``, in its shape."""
        factor = math.sqrt(2 / site.fan_in) if self.scaling == "fan_in" else 1.0
        return torch.full_like(site.value, self.scale * factor)


@dataclass(frozen=True, kw_only=True)
class RowPrior(ABC):
    r"""A prior over the rows of an attention layer, given the layer's activations.

    Args:
        kl_weight: The weight :math:`\lambda \ge 0` of the rows' log-density and KL, default 1 (the evidence lower
            bound). It scales the sample site inside the model, so that every objective respects it; 0 masks the site.

    Raises:
        SettingError: ``kl_weight`` is negative.
    """

    kl_weight: float = 1.0

    def __post_init__(self) -> None:
        check(self, "kl_weight", 0 <= self.kl_weight < math.inf, "a number of at least 0")

    @abstractmethod
    def build(self, head_dim: int) -> RowPriorModule:
        """The prior as a module of one attention layer with heads of width ``head_dim``."""


class RowPriorModule(nn.Module):
    """Turns the activations of one attention layer into the prior of its rows."""

    def forward(self, scores: Tensor, keys: Tensor, mask: Tensor | None) -> Distribution:
        """The prior over rows.

        Args:
            scores: ``[..., B, H, T, T]``, the scaled products of queries and keys.
            keys: ``[..., B, H, T, d]``.
            mask: Valid entries of the rows, broadcastable to the scores, or None when all are.

        Returns:
            A distribution with event shape ``[T]`` and batch shape ``[..., B, H, T]``.
        """
        raise NotImplementedError
