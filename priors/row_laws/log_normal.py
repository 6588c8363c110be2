"""Log-normal entries, which are normalised to rows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

from ..base import Distribution
from ..carried import logs_of
from ..centers import ContextualCenter, RowCenter
from ..settings import check_positive
from .base import RowLaw
from .gamma import MaskedGamma
from .masked import MaskedRows

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


class MaskedLogNormal(MaskedRows):
    r"""Independent log-normal entries.

    .. math:: \log p(s) = -\sum_j \ln s_j + \ln\sigma + \tfrac12 \ln 2\pi + \frac{(\ln s_j - \mu_j)^2}{2\sigma^2}

    Args:
        loc: :math:`\mu`, ``[..., S]``.
        scale: :math:`\sigma > 0`, broadcastable to it.
        mask: See `MaskedRows`.
    """

    parameters = ("loc", "scale")
    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.positive}
    support = constraints.independent(constraints.nonnegative, 1)

    def __init__(self, loc: Tensor, scale: Tensor, mask: Tensor | None = None, validate_args: bool | None = None):
        self.loc = loc if mask is None else torch.where(mask, loc, 0.0)
        self.scale = scale
        super().__init__(self.loc, mask, validate_args)

    @property
    def mean(self) -> Tensor:
        return self.positive(self.loc + self.scale.square() / 2)

    @property
    def plug_in(self) -> Tensor:
        """The mean, which carries its logarithms."""
        return self.mean

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        loc = self.loc.expand(self._extended_shape(sample_shape))
        return self.positive(loc + self.scale * torch.randn_like(loc))

    def log_prob(self, value: Tensor) -> Tensor:
        return -self.over(self.expected_cost(logs_of(value), 0.0))

    def entropy(self) -> Tensor:
        return self.over(self.loc + self.scale.log() + HALF_LOG_2PI + 0.5)

    def expected_cost(self, log_mean: Tensor, log_variance: Tensor | float) -> Tensor:
        """Minus the expected log-density of each entry, for any variable whose logarithm has these moments."""
        squares = (log_variance + (log_mean - self.loc).square()) / (2 * self.scale.square())
        return log_mean + self.scale.log() + HALF_LOG_2PI + squares


@register_kl(MaskedLogNormal, MaskedLogNormal)
def _kl_log_normal(q: MaskedLogNormal, p: MaskedLogNormal) -> Tensor:
    """That of the normal variables, their logarithms."""
    ratio = q.scale / p.scale
    squares = ratio.square() + ((q.loc - p.loc) / p.scale).square()
    return q.over(squares / 2 - ratio.log() - 0.5)


@register_kl(MaskedLogNormal, MaskedGamma)
def _kl_gamma(q: MaskedLogNormal, p: MaskedGamma) -> Tensor:
    a, b = p.concentration, p.rate
    mean = (q.loc + q.scale.square() / 2).exp()
    return q.over(torch.lgamma(a) - a * b.log() - a * q.loc + b * mean - q.scale.log() - HALF_LOG_2PI - 0.5)


@dataclass(frozen=True, kw_only=True)
class LogNormalRows(RowLaw):
    r"""Log-normal entries around a center, normalised to rows.

    .. math:: \ln S_{ij} \sim \mathcal N(\ln m_{ij},\, s_p^2), \qquad A_{ij} = S_{ij} / \textstyle\sum_k S_{ik}

    The sample site is :math:`S`, the prior of `LogNormalRows` and of `WeibullRows` in a guide.

    Args:
        scale: :math:`s_p > 0`, default 1.
        center: See `RowLaw`; default ``contextual``.
        kl_weight, kl_normalization: See `RowPrior`; the default normalization is ``entries``.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Fan et al., 2020, "Bayesian attention modules".
    """

    space: ClassVar[Literal["simplex", "positive"]] = "positive"

    scale: float = 1.0
    center: RowCenter = field(default_factory=ContextualCenter)
    kl_normalization: Literal["none", "entries"] = "entries"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "scale")

    def around(self, log_weights: Tensor, shape: torch.Size, mask: Tensor | None) -> Distribution:
        loc = log_weights.expand(shape)
        return MaskedLogNormal(loc, loc.new_tensor(self.scale), mask, validate_args=False)
