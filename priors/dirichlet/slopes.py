r"""Slopes of gamma draws: how a draw at a fixed quantile moves with its concentration.

.. math:: \frac{d \ln x}{d c} = -\frac{\partial F_c(x) / \partial c}{x f_c(x)}

With :math:`a = c + 1`, and because :math:`F_c(x) = F_{c + m}(x) + \frac{x^c e^{-x}}{\Gamma(a)} \sum_{k < m} t_k`,
:math:`t_k = x^k / (a)_k`, it is exactly

.. math:: \frac{d \ln x}{d c} = \frac1c \Big( t_{m-1} v + \sum_{k < m} t_k \big(\psi(a) - \ln x + h_k\big) \Big),
    \qquad h_k = \sum_{i=1}^{k} \frac{1}{c + i}

where :math:`v = dx/db` belongs to the shape :math:`b = c + m`, and is smooth down to :math:`c = 0`. It is a polynomial
in :math:`(x/a)^{1/3} - 1` and :math:`1/a`: m = 2 in single precision; more steps and terms in double precision.

Reference: Figurnov, Mohamed and Mnih, 2018, "Implicit reparameterization gradients", Eq. 6.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .coefficients import DIGAMMA, FINE_SHIFT, FINE_SLOPE, KAPPA, LOG_RATIO, SLOPE, TRIGAMMA
from .gamma_functions import inverse_powers, kappa, padded, polynomials, trigamma, trigamma_of_series

_FINE = padded(*FINE_SLOPE)


def _plus(row: tuple[float, ...], other: tuple[float, ...], factor: float) -> tuple[float, ...]:
    return tuple(a + factor * b for a, b in zip(*padded(row, other), strict=True))


# Digamma and kappa are taken relative to ln d, d = c + 2/3, which the draws need: their series are to ln a.
_SERIES = padded(
    *(_plus(SLOPE[0], (0.0, 1.0), 1.0), *SLOPE[1:]),  # v + w
    LOG_RATIO,  # ln (d / a)
    _plus(DIGAMMA, LOG_RATIO, -1.0),
    _plus(KAPPA, LOG_RATIO, 0.5),
    TRIGAMMA,
)


class Drawn(NamedTuple):
    """Functions of gamma draws and of their concentrations."""

    logs: Tensor
    r""":math:`\ln x`"""
    slopes: Tensor
    r""":math:`d \ln x / dc`"""
    kappas: Tensor
    digammas: Tensor
    trigammas: Tensor


def logs_of_draws(c: Tensor, relative: Tensor) -> Tensor:
    """``ln x`` alone, from ``ln(x / d)``."""
    return torch.add(c, 2 / 3).log_().add_(relative)


def functions_of_draws(c: Tensor, relative: Tensor) -> Drawn:
    """What gradients and divergences are made of, from concentrations and ``ln(x / d)``, d = c + 2/3."""
    return _fine(c, relative) if c.dtype == torch.float64 else _single(c, relative)


def _single(c: Tensor, relative: Tensor) -> Drawn:
    powers = inverse_powers(c)
    *rows, ratio, digamma, series, series_trigamma = polynomials(_SERIES, powers)
    root = ratio.add_(relative).mul_(1 / 3).exp_()  # (x / a)^(1/3)
    rho = (root * root).mul_(root)
    gap = digamma - relative  # psi(a) - ln x
    inverse = 1 / c
    slopes = torch.addcmul(gap, _in_root(rows, root.sub_(1)).add_(gap), rho).mul_(inverse)
    log_d = torch.add(c, 2 / 3).log_()
    kappas = series.add_(torch.log(c)).sub_(log_d, alpha=0.5)
    digammas = digamma.add_(log_d).sub_(inverse)
    trigammas = trigamma_of_series(series_trigamma, powers, inverse)
    return Drawn(log_d.add_(relative), slopes, kappas, digammas, trigammas)


def _fine(c: Tensor, relative: Tensor) -> Drawn:
    a, b = c + 1, c + FINE_SHIFT
    log = relative + torch.log1p(-1 / (3 * a))  # ln (x / a)
    x, digamma = a * torch.exp(log), torch.digamma(a)
    gap = digamma - torch.log(a) - log
    term, harmonic, total = torch.ones_like(c), torch.zeros_like(c), gap
    for k in range(1, FINE_SHIFT):
        term, harmonic = term * x / (c + k), harmonic + 1 / (c + k)
        total = total + term * (gap + harmonic)
    rows = polynomials(_FINE, inverse_powers(c, FINE_SHIFT, len(_FINE[0]) - 1))
    slopes = (total + term * _in_root(list(rows), torch.expm1((log + torch.log(a / b)) / 3))) / c
    return Drawn(logs_of_draws(c, relative), slopes, kappa(c), digamma - 1 / c, trigamma(c))


def _in_root(rows: list[Tensor], r: Tensor) -> Tensor:
    """The polynomial in r of which each row is a coefficient, made in their place."""
    value = rows[-1]
    for row in rows[-2::-1]:
        value = row.addcmul_(value, r)
    return value
