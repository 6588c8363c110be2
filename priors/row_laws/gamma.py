"""Gamma entries, which are normalised to rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.distributions import constraints

from ..base import Distribution
from ..carried import logs_of
from ..centers import ContextualCenter, RowCenter
from ..settings import check, check_positive
from .base import RowLaw, check_floor
from .masked import MaskedRows


class MaskedGamma(MaskedRows):
    r"""Independent gamma entries.

    .. math:: \log p(s) = \sum_j a_j \ln b - \ln\Gamma(a_j) + (a_j - 1) \ln s_j - b s_j

    Args:
        concentration: :math:`a`, ``[..., S]``, above 0 where valid.
        rate: :math:`b > 0`, broadcastable to it.
        mask: See `MaskedRows`.
    """

    parameters = ("concentration", "rate")
    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.independent(constraints.nonnegative, 1)

    def __init__(
        self, concentration: Tensor, rate: Tensor, mask: Tensor | None = None, validate_args: bool | None = None
    ):
        # a masked entry gets a concentration of its own only so that every special function below stays finite
        self.concentration = concentration if mask is None else torch.where(mask, concentration, 1.0)
        self.rate = rate
        super().__init__(self.concentration, mask, validate_args)

    @property
    def mean(self) -> Tensor:
        return self.entries(self.concentration / self.rate)

    @property
    def variance(self) -> Tensor:
        return self.entries(self.concentration / self.rate**2)

    @property
    def plug_in(self) -> Tensor:
        """The mean, which carries its logarithms."""
        return self.positive(self.concentration.log() - self.rate.log())

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        concentration = self.concentration.expand(self._extended_shape(sample_shape))
        tiny = torch.finfo(concentration.dtype).tiny
        # Gamma(a) is Gamma(a + 1) times u^(1/a), whose logarithm never leaves the dtype
        above = torch._standard_gamma(concentration + 1).clamp(min=tiny).log()
        boost = torch.rand_like(concentration).clamp(min=tiny).log() / concentration
        return self.positive(above + boost - self.rate.log())

    def log_prob(self, value: Tensor) -> Tensor:
        a, logs = self.concentration, logs_of(value)
        return self.over(a * self.rate.log() - torch.lgamma(a) + (a - 1) * logs - self.rate * value)

    def entropy(self) -> Tensor:
        a = self.concentration
        return self.over(a - self.rate.log() + torch.lgamma(a) + (1 - a) * torch.digamma(a))


@dataclass(frozen=True, kw_only=True)
class GammaRows(RowLaw):
    r"""Gamma entries around a center, normalised to rows.

    .. math:: S_{ij} \sim \mathrm{Gamma}(a_0 m_{ij} + \epsilon,\, b), \qquad A_{ij} = S_{ij} / \textstyle\sum_k S_{ik}

    The sample site is :math:`S`, the prior of `WeibullRows` and of `LogNormalRows` in a guide. Without a guide the rows
    are those of `DirichletRows` with the same numbers, whatever the rate.

    Args:
        concentration: :math:`a_0 > 0`, default 30.
        rate: :math:`b > 0`, or None (default): the sum of a row's concentrations, with which the mean row sums to 1.
        floor: :math:`\epsilon \ge 0`, default 0.01; above 0 unless the center is ``flat``, ``matched_uniform`` or
            ``learned``, whose weights cannot vanish.
        center: See `RowLaw`; default ``contextual``.
        kl_weight, kl_normalization: See `RowPrior`; the default normalization is ``entries``.

    Raises:
        SettingError: A setting is out of range.

    Reference:
        Fan et al., 2020, "Bayesian attention modules" (the numbers are ours).
    """

    space: ClassVar[Literal["simplex", "positive"]] = "positive"

    concentration: float = 30.0
    rate: float | None = None
    floor: float = 0.01
    center: RowCenter = field(default_factory=ContextualCenter)
    kl_normalization: Literal["none", "entries"] = "entries"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "concentration")
        check(self, "rate", self.rate is None or 0 < self.rate < float("inf"), "a number above 0, or null")
        check_floor(self)

    def around(self, log_weights: Tensor, shape: torch.Size, mask: Tensor | None) -> Distribution:
        concentration = (self.concentration * log_weights.exp() + self.floor).expand(shape)
        if self.rate is not None:
            rate = concentration.new_tensor(self.rate)
        else:
            valid = concentration if mask is None else torch.where(mask, concentration, 0.0)
            rate = valid.sum(-1, keepdim=True)
            rate = rate if mask is None else torch.where(rate > 0, rate, 1.0)
        return MaskedGamma(concentration, rate, mask, validate_args=False)
