"""Weibull entries, which are normalised to rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import constraints, register_kl

from ..carried import logs_of
from .gamma import MaskedGamma
from .log_normal import MaskedLogNormal
from .masked import MaskedRows

EULER = 0.5772156649015329
ZETA_2 = 1.6449340668482264


class MaskedWeibull(MaskedRows):
    r"""Independent Weibull entries of given means.

    .. math:: \log p(s) = \sum_j \ln k - \ln s_j + k r_j - e^{k r_j}, \qquad
        r_j = \ln s_j - \ln \lambda_j, \quad \lambda_j = e^{\varphi_j} / \Gamma(1 + 1/k)

    Args:
        log_mean: :math:`\varphi`, ``[..., S]``.
        concentration: :math:`k > 0`, broadcastable to it.
        mask: See `MaskedRows`.
    """

    parameters = ("log_mean", "concentration")
    arg_constraints = {"log_mean": constraints.real_vector, "concentration": constraints.positive}
    support = constraints.independent(constraints.nonnegative, 1)

    def __init__(
        self, log_mean: Tensor, concentration: Tensor, mask: Tensor | None = None, validate_args: bool | None = None
    ):
        self.log_mean = log_mean if mask is None else torch.where(mask, log_mean, 0.0)
        self.concentration = concentration
        super().__init__(self.log_mean, mask, validate_args)

    @property
    def log_scale(self) -> Tensor:
        r""":math:`\ln\lambda`."""
        return self.log_mean - self._above

    @property
    def _above(self) -> Tensor:
        """The log-mean less it, found in double precision: a sharp concentration multiplies how it is rounded."""
        return torch.lgamma(1 + 1 / self.concentration.double()).to(self.concentration.dtype)

    @property
    def mean(self) -> Tensor:
        return self.positive(self.log_mean)

    @property
    def plug_in(self) -> Tensor:
        """The mean, which carries its logarithms."""
        return self.mean

    def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:
        log_scale = self.log_scale.expand(self._extended_shape(sample_shape))
        noise = torch.empty_like(log_scale).exponential_().clamp(min=torch.finfo(log_scale.dtype).tiny)
        return self.positive(log_scale + noise.log() / self.concentration)

    def log_prob(self, value: Tensor) -> Tensor:
        k, logs = self.concentration, logs_of(value)
        far = k * (logs - self.log_mean + self._above)
        return self.over(k.log() - logs + far - far.exp())

    def entropy(self) -> Tensor:
        k = self.concentration
        return self.over(EULER * (1 - 1 / k) + self.log_scale - k.log() + 1)


@register_kl(MaskedWeibull, MaskedGamma)
def _kl_gamma(q: MaskedWeibull, p: MaskedGamma) -> Tensor:
    """In the mean of the Weibull variable; Fan et al., 2020."""
    k, a, b = q.concentration, p.concentration, p.rate
    against = EULER * a / k - a * q.log_scale + b * q.log_mean.exp() - a * b.log() + torch.lgamma(a)
    return q.over(against + k.log() - EULER - 1)


@register_kl(MaskedWeibull, MaskedLogNormal)
def _kl_log_normal(q: MaskedWeibull, p: MaskedLogNormal) -> Tensor:
    """By the mean and the variance of the logarithm of a Weibull variable."""
    log_mean = q.log_scale - EULER / q.concentration
    variance = ZETA_2 / q.concentration**2
    return q.over(p.expected_cost(log_mean, variance)) - q.entropy()
