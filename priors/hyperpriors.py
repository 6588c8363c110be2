"""Priors over scales: one level above the priors over weights."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import PowerTransform, constraints

from .base import Distribution
from .settings import check, check_positive


class Hyperprior(ABC):
    r"""A prior over factors :math:`\tau > 0` on the scale of a weight prior; 1 leaves that prior as it is."""

    @abstractmethod
    def distribution(self, like: Tensor) -> Distribution:
        """Independent factors in the shape of ``like`` as one event, with its device and dtype."""

    @abstractmethod
    def start(self, like: Tensor) -> Tensor:
        """Where guides and samplers start, in the shape of ``like``."""


@dataclass(frozen=True, kw_only=True)
class HalfCauchy(Hyperprior):
    r"""Half-Cauchy factors: flat near 0, and a tail that lets single layers be large.

    .. math:: p(\tau) = \frac{2}{\pi A \left(1 + \tau^2 / A^2\right)}, \qquad \tau > 0

    Args:
        scale: :math:`A > 0`, the median, default 1; it is also the start.

    Raises:
        SettingError: ``scale`` is not above 0.

    Reference:
        Gelman, 2006, "Prior distributions for variance parameters in hierarchical models".
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "scale")

    def distribution(self, like: Tensor) -> Distribution:
        return dist.HalfCauchy(torch.full_like(like, self.scale)).to_event(like.dim())

    def start(self, like: Tensor) -> Tensor:
        return torch.full_like(like, self.scale)


@dataclass(frozen=True, kw_only=True)
class Gamma(Hyperprior):
    r"""Gamma factors (on the scale, not on the variance or the precision).

    .. math:: p(\tau) = \frac{b^a}{\Gamma(a)}\, \tau^{a - 1} e^{-b\tau}

    Args:
        concentration: :math:`a > 0`, default 2: above 1 the density vanishes at 0.
        rate: :math:`b > 0`, default 2. The start is the mean :math:`a/b`.

    Raises:
        SettingError: A setting is not above 0.

    Reference:
        Chung et al., 2013, "A nondegenerate penalized likelihood estimator for variance parameters in multilevel
        models", for a = 2; the rate is ours.
    """

    concentration: float = 2.0
    rate: float = 2.0

    def __post_init__(self) -> None:
        check_positive(self, "concentration", "rate")

    def distribution(self, like: Tensor) -> Distribution:
        return dist.Gamma(torch.full_like(like, self.concentration), torch.full_like(like, self.rate)).to_event(
            like.dim()
        )

    def start(self, like: Tensor) -> Tensor:
        return torch.full_like(like, self.concentration / self.rate)


@dataclass(frozen=True, kw_only=True)
class UniformScale(Hyperprior):
    r"""Uniform factors.

    .. math:: \tau \sim \mathcal U(l, h)

    Args:
        low: :math:`l`, at least 0, default 0.
        high: :math:`h`, above ``low``, default 10. The start is 1 where that is inside, else the middle.

    Raises:
        SettingError: ``low`` is negative, or ``high`` is not a number above it.

    Reference:
        Gelman, 2006, "Prior distributions for variance parameters in hierarchical models".
    """

    low: float = 0.0
    high: float = 10.0

    def __post_init__(self) -> None:
        check(self, "low", 0 <= self.low < float("inf"), "a number of at least 0")
        check(self, "high", self.low < self.high < float("inf"), f"a number above low = {self.low}")

    def distribution(self, like: Tensor) -> Distribution:
        return dist.Uniform(torch.full_like(like, self.low), torch.full_like(like, self.high)).to_event(like.dim())

    def start(self, like: Tensor) -> Tensor:
        inside = self.low < 1 < self.high
        return torch.full_like(like, 1.0 if inside else (self.low + self.high) / 2)


class InverseRootGamma(dist.TransformedDistribution):
    """The law of the inverse root of a gamma variable, of any batch shape."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}

    def __init__(self, concentration: Tensor, rate: Tensor, validate_args: bool | None = None):
        root = PowerTransform(concentration.new_tensor(-0.5))
        super().__init__(dist.Gamma(concentration, rate), root, validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: None = None) -> InverseRootGamma:
        return type(self)(self.concentration.expand(batch_shape), self.rate.expand(batch_shape), validate_args=False)

    @property
    def concentration(self) -> Tensor:
        return self.base_dist.concentration

    @property
    def rate(self) -> Tensor:
        return self.base_dist.rate


@dataclass(frozen=True, kw_only=True)
class PrecisionGamma(Hyperprior):
    r"""Factors whose precision :math:`\tau^{-2}` is a gamma variable, which is conjugate to Gaussian weights.

    .. math:: p(\tau) = \frac{2 b^a}{\Gamma(a)}\, \tau^{-2a - 1} e^{-b / \tau^2}

    Normal weights under one such factor are together a multivariate Student-t with :math:`2a` degrees of freedom and
    the scale :math:`\sqrt{b/a}`.

    Args:
        concentration: :math:`a > 0`, default 1.
        rate: :math:`b > 0`, default 1. The start is :math:`\sqrt{b/a}`, at the mean of the precision.

    Raises:
        SettingError: A setting is not above 0.

    Reference:
        Neal, 1996, "Bayesian learning for neural networks"; the defaults are ours.
    """

    concentration: float = 1.0
    rate: float = 1.0

    def __post_init__(self) -> None:
        check_positive(self, "concentration", "rate")

    def distribution(self, like: Tensor) -> Distribution:
        concentration, rate = torch.full_like(like, self.concentration), torch.full_like(like, self.rate)
        return InverseRootGamma(concentration, rate).to_event(like.dim())

    def start(self, like: Tensor) -> Tensor:
        return torch.full_like(like, (self.rate / self.concentration) ** 0.5)
