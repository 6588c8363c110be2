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

import torch
from torch import Tensor

from .coefficients import DIGAMMA, FINE_SHIFT, FINE_SLOPE, LOG_RATIO, SLOPE
from .gamma_functions import padded, polynomials

_SERIES = padded(*SLOPE, DIGAMMA, LOG_RATIO)
_FINE = padded(*FINE_SLOPE)


def log_slopes(c: Tensor, relative: Tensor) -> tuple[Tensor, Tensor]:
    """``ln x`` and ``d ln x / dc``.

    Args:
        c: Concentrations.
        relative: ``ln(x / (c + 2/3))``.
    """
    return _fine(c, relative) if c.dtype == torch.float64 else _single(c, relative)


def _single(c: Tensor, relative: Tensor) -> tuple[Tensor, Tensor]:
    a = c + 1
    w = 1 / a
    *rows, digamma, ratio = polynomials(_SERIES, w)
    log = ratio.add_(relative)  # ln(x / a)
    root = (log / 3).exp_()
    rho = (root * root).mul_(root)
    slope = _in_root(rows, root.sub_(1)).add_(w).mul_(rho)
    slope = slope.addcmul_(digamma.sub_(log), rho.add_(1)).div_(c)
    return a.log_().add_(log), slope


def _fine(c: Tensor, relative: Tensor) -> tuple[Tensor, Tensor]:
    a, b = c + 1, c + FINE_SHIFT
    log = relative + torch.log1p(-1 / (3 * a))
    x = a * torch.exp(log)
    gap = torch.digamma(a) - torch.log(a) - log
    term, harmonic, total = torch.ones_like(c), torch.zeros_like(c), gap
    for k in range(1, FINE_SHIFT):
        term, harmonic = term * x / (c + k), harmonic + 1 / (c + k)
        total = total + term * (gap + harmonic)
    rows = polynomials(_FINE, FINE_SHIFT / b)
    slope = _in_root(list(rows), torch.expm1((log + torch.log(a / b)) / 3))
    return log + torch.log(a), (total + term * slope) / c


def _in_root(rows: list[Tensor], r: Tensor) -> Tensor:
    """The polynomial in r of which each row is a coefficient, made in their place."""
    value = rows[-1]
    for row in rows[-2::-1]:
        value = row.addcmul_(value, r)
    return value
