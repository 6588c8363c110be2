"""Gumbel-softmax rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from ..base import Distribution
from ..carried import logs_of
from ..settings import check_positive
from .base import RowLaw
from .masked import MaskedRows


class MaskedGumbelSoftmax(MaskedRows):
    r"""Softmax of logits with Gumbel noise: Concrete rows with the logits :math:`\tau\mu`.

    .. math:: \log p(a) = \ln\Gamma(n) + (n - 1) \ln\tau + \sum_j (t_j - \ln a_j) - n \ln \sum_j e^{t_j},
        \qquad t_j = \tau (\mu_j - \ln a_j)

    for ``n`` valid entries, the density of the first ``n - 1``.

    Args:
        loc: :math:`\mu`, ``[..., S]``.
        temperature: :math:`\tau > 0`, broadcastable to ``[..., 1]``: one for all entries of a row. The noise is
            :math:`G / \tau`.
        mask: See `MaskedRows`.
    """

    parameters = ("loc", "temperature")
    arg_constraints = {"loc": constraints.real_vector, "temperature": constraints.positive}
    support = constraints.simplex

    def __init__(self, loc: Tensor, temperature: Tensor, mask: Tensor | None = None, validate_args: bool | None = None):
        self.loc = loc if mask is None else torch.where(mask, loc, 0.0)
        self.temperature = temperature
        super().__init__(self.loc, mask, validate_args)

    @property
    def plug_in(self) -> Tensor:
        """The row without noise, which carries its logarithms."""
        return self.on_simplex(self.loc)

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        loc = self.loc.expand(self._extended_shape(sample_shape))
        noise = torch.empty_like(loc).exponential_().clamp(min=torch.finfo(loc.dtype).tiny)
        return self.on_simplex(loc - noise.log() / self.temperature)

    def log_prob(self, value: Tensor) -> Tensor:
        logs, n = logs_of(value), self.count
        temperature = self.temperature.squeeze(-1) if self.temperature.dim() else self.temperature
        away = self.loc - logs
        # what is added to all of them changes nothing, but a sharp temperature would multiply how it is rounded
        highest = self.where_any(self.entries(away.detach(), -torch.inf).amax(-1))
        t = self.temperature * self.entries(away - highest.unsqueeze(-1))
        total = torch.logsumexp(self.entries(t, torch.finfo(t.dtype).min), -1)
        free = torch.lgamma(n.clamp(min=1)) + (n - 1) * temperature.log()
        return self.where_any(free + self.over(t - logs) - n * total)


@dataclass(frozen=True, kw_only=True)
class GumbelSoftmaxRows(RowLaw):
    r"""Gumbel-softmax (Concrete) rows around a center.

    .. math:: A_i = \mathrm{softmax}\big((\ln m_i + G_i) / \tau\big), \qquad G_{ij} \sim \mathrm{Gumbel}(0, 1)

    Args:
        temperature: :math:`\tau > 0`, default 1: towards 0 rows are one-hot, with the probabilities of the center.
        center: See `RowLaw`; any but ``learned``, of which this law would see nothing.
        kl_weight, kl_normalization: See `RowPrior`.

    Raises:
        SettingError: A setting is out of range, or the center is ``learned``.

    Reference:
        Maddison et al., 2017, "The Concrete distribution"; Jang et al., 2017, "Categorical
        reparameterization with Gumbel-softmax".
    """

    sees_level: ClassVar[bool] = False

    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "temperature")

    def around(self, log_weights: Tensor, shape: torch.Size, mask: Tensor | None) -> Distribution:
        loc, temperature = (log_weights / self.temperature).expand(shape), log_weights.new_tensor(self.temperature)
        return MaskedGumbelSoftmax(loc, temperature, mask, validate_args=False)
