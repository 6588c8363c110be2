"""The tail of importance weights: a generalised Pareto distribution fitted to the largest of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

FEWEST = 5
"""A tail of fewer weights is not fitted."""
ROUNDING = math.log(1e-10)
"""Of the largest weight: by so little weights differ that are equal."""


@dataclass(frozen=True, eq=False)
class SmoothedWeights:
    r"""Importance weights whose largest are replaced by quantiles of the distribution fitted to them.

    Args:
        log_weights: Normalised, :math:`\log \tilde w_s` with :math:`\sum_s \tilde w_s = 1`, ``[S]``, float64.
        k_hat: The shape of the tail; minus infinity where the largest weights are all equal.
    """

    log_weights: Tensor
    k_hat: float

    @property
    def num_samples(self) -> int:
        """``S``."""
        return len(self.log_weights)

    @property
    def threshold(self) -> float:
        r"""The shape up to which :math:`S` draws suffice: :math:`\min(1 - 1 / \log_{10} S, 0.7)`."""
        return min(1 - 1 / math.log10(self.num_samples), 0.7)

    @property
    def effective_sample_size(self) -> float:
        r""":math:`1 / \sum_s \tilde w_s^2`, from 1 to :math:`S`; it means something only where `usable` is true."""
        return float(1 / (2 * self.log_weights).exp().sum())

    @property
    def usable(self) -> bool:
        """Whether weighted averages of the draws can be trusted."""
        return self.k_hat <= self.threshold


def fewest_samples() -> int:
    """The smallest number of draws whose tail can be fitted."""
    return 5 * FEWEST - 4


def tail_length(num_samples: int) -> int:
    r"""How many of the largest weights are the tail: :math:`\lceil \min(S / 5, 3 \sqrt S) \rceil`."""
    return math.ceil(min(num_samples / 5, 3 * math.sqrt(num_samples)))


def smoothed(log_ratios: Tensor) -> SmoothedWeights:
    r"""Smooth importance weights by their Pareto tail.

    The :math:`M` largest of the weights :math:`w_s = e^{r_s}` are replaced, in their order, by

    .. math:: \hat w_z = \min\Big(u + F^{-1}\Big(\frac{z - 1/2}{M}\Big), \max_s w_s\Big), \qquad z = 1 \dots M

    where :math:`F` is the generalised Pareto distribution fitted to their excess over the largest of the rest,
    :math:`u`.

    Args:
        log_ratios: :math:`r_s`, ``[S]``, up to a constant; minus infinity is a weight of 0.

    Raises:
        ValueError: There are fewer than 21, or NaN or infinity among them, or no weight above 0.

    Reference:
        Vehtari, Simpson, Gelman, Yao and Gabry, 2024, "Pareto smoothed importance sampling", JMLR 25; the threshold is
        their Eq. 13.
    """
    r = log_ratios.double()
    size = tail_length(len(r))
    if r.dim() != 1 or len(r) < fewest_samples():
        raise ValueError(f"log_ratios have shape {list(r.shape)}: expected [S] with S at least {fewest_samples()}")
    if r.isnan().any() or r.max().isinf():
        raise ValueError("log_ratios hold NaN or infinity, or no weight above 0: expected finite numbers")
    r = r - r.max()
    order = r.argsort()
    tail, cut = order[-size:], r[order[-size - 1]]
    excess = r[tail] + torch.log(-torch.expm1(cut - r[tail]))
    if float(excess[-1]) <= ROUNDING:
        return SmoothedWeights(r.log_softmax(0), -math.inf)
    k, log_sigma = generalized_pareto(excess)
    levels = (torch.arange(size, dtype=r.dtype, device=r.device) + 0.5) / size
    r[tail] = torch.logaddexp(cut, log_quantile(levels, k, log_sigma)).clamp(max=0.0)
    return SmoothedWeights(r.log_softmax(0), k)


def generalized_pareto(log_excess: Tensor) -> tuple[float, float]:
    r"""Shape and logarithm of the scale of a generalised Pareto distribution.

    .. math:: F(x) = 1 - (1 + k x / \sigma)^{-1/k}

    By the profile posterior mean of :math:`b = -k / \sigma` over a grid. The shape is then drawn towards 1/2, as by ten
    observations more. All is done with logarithms: weights of a net's draws differ by hundreds of nats.

    Args:
        log_excess: Logarithms of at least 5 numbers, sorted, not all of them minus infinity.

    Returns:
        :math:`k` and :math:`\ln \sigma`.

    Reference:
        Zhang and Stephens, 2009, "A new and efficient estimation method for the generalized Pareto distribution",
        Technometrics 51, with :math:`k` of the other sign; Vehtari et al., 2024, for the weight on 1/2.
    """
    unit = log_excess[-1].double()
    x = log_excess.double() - unit  # of the numbers over the largest
    n, size = len(x), 30 + math.isqrt(len(x))
    quartile = x[max(int(n / 4 + 0.5), 1) - 1]
    if quartile.isinf():  # ties
        quartile = x[x.isfinite()][0]
    steps = torch.arange(1, size + 1, dtype=x.dtype, device=x.device) - 0.5
    # b = 1 - c, of either sign; where it is below 0 its size may be beyond any float
    log_c = (((size / steps).sqrt() - 1) / 3).log() - quartile
    heavy = log_c > 0
    log_b = log_c.abs() + torch.log(-torch.expm1(-log_c.abs()))
    log_b = torch.where(heavy, log_b, torch.log(-torch.expm1(log_c)))
    shapes = _shape(log_b.unsqueeze(1), heavy.unsqueeze(1), x)
    profile = (n * (log_b - shapes.abs().log() - shapes - 1)).log_softmax(0)
    below, above = (
        (profile + log_b).masked_fill(~where, -math.inf).logsumexp(0) if where.any() else x.new_tensor(-math.inf)
        for where in (heavy, ~heavy)
    )
    mean_heavy = below > above
    high, low = torch.maximum(below, above), torch.minimum(below, above)
    log_mean = high + torch.log(-torch.expm1(low - high))
    k = float(_shape(log_mean, mean_heavy, x))
    log_sigma = math.log(abs(k)) - float(log_mean) + float(unit)
    return (n * k + 10 * 0.5) / (n + 10), log_sigma


def _shape(log_b: Tensor, heavy: Tensor, x: Tensor) -> Tensor:
    r"""The most likely :math:`k` given :math:`b`, :math:`\overline{\ln(1 - b x)}`, from logarithms of both."""
    product = log_b + x
    light = torch.log1p(-product.clamp(max=0.0).exp())
    return torch.where(heavy, torch.nn.functional.softplus(product), light).mean(-1)


def log_quantile(levels: Tensor, k: float, log_sigma: float) -> Tensor:
    """The logarithms of quantiles of a generalised Pareto distribution."""
    t = -torch.log1p(-levels)
    if abs(k) < 1e-9:
        return log_sigma + t.log()
    growth = torch.log(-torch.expm1(-abs(k) * t)) + (k * t if k > 0 else 0.0)
    return log_sigma - math.log(abs(k)) + growth
