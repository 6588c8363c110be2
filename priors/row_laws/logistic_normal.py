"""Logistic-normal rows."""

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
from ..dirichlet import MaskedDirichlet
from ..settings import check_positive
from .base import RowLaw
from .masked import MaskedRows


class MaskedLogisticNormal(MaskedRows):
    r"""Softmax of independent normal logits of one scale.

    .. math:: \log p(a) = -\tfrac{n - 1}2 \ln 2\pi\sigma^2 - \tfrac12 \ln n - \sum_j \ln a_j
        - \frac{\lVert C (\ln a - \mu) \rVert^2}{2 \sigma^2}

    for ``n`` valid entries, with :math:`C` subtracting the mean. It is the density of the first ``n - 1`` entries,
    as for Dirichlet rows; what is added to all of :math:`\mu` changes nothing.

    Args:
        loc: :math:`\mu`, ``[..., S]``.
        scale: :math:`\sigma > 0`, broadcastable to ``[..., 1]``: one for all entries of a row.
        mask: See `MaskedRows`.
    """

    parameters = ("loc", "scale")
    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.positive}
    support = constraints.simplex

    def __init__(self, loc: Tensor, scale: Tensor, mask: Tensor | None = None, validate_args: bool | None = None):
        self.loc = loc if mask is None else torch.where(mask, loc, 0.0)
        self.scale = scale
        super().__init__(self.loc, mask, validate_args)

    @property
    def row_scale(self) -> Tensor:
        """The scale of every row, broadcastable to ``[...]``."""
        return self.scale.squeeze(-1) if self.scale.dim() else self.scale

    @property
    def plug_in(self) -> Tensor:
        """The row without noise, which carries its logarithms."""
        return self.on_simplex(self.loc)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        loc = self.loc.expand(self._extended_shape(sample_shape))
        return self.on_simplex(loc + self.scale * torch.randn_like(loc))

    def log_prob(self, value: Tensor) -> Tensor:
        logs = logs_of(value)
        return -self.expected_cost(logs, 0.0)

    def expected_cost(self, log_mean: Tensor, variances: Tensor | float) -> Tensor:
        """Minus the expected log-density of rows whose logarithms have this mean, and these variances off their own
        mean over the row, summed over it."""
        n, scale = self.count, self.row_scale
        squares = self.residual_squares(log_mean - self.loc) + variances
        free = (n - 1) * (scale.log() + 0.5 * math.log(2 * math.pi))
        return self.where_any(free + n.clamp(min=1).log() / 2 + self.over(log_mean) + squares / (2 * scale.square()))


@register_kl(MaskedLogisticNormal, MaskedLogisticNormal)
def _kl(q: MaskedLogisticNormal, p: MaskedLogisticNormal) -> Tensor:
    """That of normal variables in the n - 1 dimensions in which rows differ."""
    ratio = q.row_scale / p.row_scale
    free = (q.count - 1) * (ratio.square() / 2 - ratio.log() - 0.5)
    return q.where_any(free + q.residual_squares(q.loc - p.loc) / (2 * p.row_scale.square()))


@register_kl(MaskedDirichlet, MaskedLogisticNormal)
def _kl_from_dirichlet(q: MaskedDirichlet, p: MaskedLogisticNormal) -> Tensor:
    """By the mean and the covariance of the logarithms of Dirichlet entries."""
    log_mean, own = q.log_moments()
    spread = (1 - 1 / p.count.clamp(min=1)) * p.over(own)
    return p.expected_cost(log_mean, spread) - q.entropy()


@dataclass(frozen=True, kw_only=True)
class LogisticNormalRows(RowLaw):
    r"""Logistic-normal rows around a center.

    .. math:: A_i = \mathrm{softmax}(\ln m_i + s_p\, \varepsilon), \qquad \varepsilon \sim \mathcal N(0, I)

    Args:
        scale: :math:`s_p > 0`, default 1.
        center: See `RowLaw`; default ``contextual``; any but ``learned``, of which this law would see nothing.
        kl_weight, kl_normalization: See `RowPrior`; the default normalization is ``entries``.

    Raises:
        SettingError: A setting is out of range, or the center is ``learned``.

    Reference:
        Aitchison and Shen, 1980, "Logistic-normal distributions: some properties and uses".
    """

    sees_level: ClassVar[bool] = False

    scale: float = 1.0
    center: RowCenter = field(default_factory=ContextualCenter)
    kl_normalization: Literal["none", "entries"] = "entries"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "scale")

    def around(self, log_weights: Tensor, shape: torch.Size, mask: Tensor | None) -> Distribution:
        loc = log_weights.expand(shape)
        return MaskedLogisticNormal(loc, loc.new_tensor(self.scale), mask, validate_args=False)
