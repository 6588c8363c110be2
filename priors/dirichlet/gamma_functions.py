r"""Digamma and its kin of concentrations, in forms that do not cancel.

Single precision uses polynomials in :math:`w = 1/(c + 1)`, which cost a few multiplications where torch's ``digamma``
and ``lgamma`` cost more than everything else about a row; double precision uses torch's own functions.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from .coefficients import DIGAMMA, KAPPA, TRIGAMMA
from .kernels import empty

Table = tuple[tuple[float, ...], ...]


def padded(*rows: tuple[float, ...]) -> Table:
    """Coefficients of several polynomials, all of the highest degree among them."""
    length = max(map(len, rows))
    return tuple((*row, *(0.0,) * (length - len(row))) for row in rows)


def polynomials(table: Table, w: Tensor) -> tuple[Tensor, ...]:
    """Many polynomials of the same tensor: as one product of matrices, or by Horner's rule where that is compiled."""
    if torch.compiler.is_compiling():
        return tuple(_horner(row, w) for row in table)
    powers, values = empty(w, len(table[0]), w.numel()), empty(w, len(table), w.numel())
    powers[0].fill_(1.0)
    powers[1].copy_(w.reshape(-1))
    torch.mul(powers[1], powers[1], out=powers[2])
    for k in range(3, len(powers), 2):
        higher = powers[k : k + 2]
        torch.mul(powers[k - 2 : k][: len(higher)], powers[2], out=higher)
    return torch.mm(_matrix(table, w.dtype, w.device), powers, out=values).view(len(table), *w.shape).unbind(0)


@functools.cache
def _matrix(table: Table, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(table, dtype=dtype, device=device)


def _horner(row: tuple[float, ...], w: Tensor) -> Tensor:
    while len(row) > 1 and row[-1] == 0:
        row = row[:-1]
    value = torch.full_like(w, row[-1])
    for coefficient in row[-2::-1]:
        value = value * w + coefficient
    return value


_FUNCTIONS = padded(DIGAMMA, KAPPA, TRIGAMMA)
_TETRAGAMMA = (1.0, *((k + 2) * value for k, value in enumerate(TRIGAMMA)))  # of the derivative of w + w^2 t(w)


def kappa(c: Tensor) -> Tensor:
    r""":math:`\kappa(c) = c\,\psi(c) - \ln\Gamma(c) - c`, which grows only like :math:`\tfrac12 \ln c`."""
    if c.dtype != torch.float64:
        (series,) = polynomials((KAPPA,), 1 / (c + 1))
        return torch.log(c) - 0.5 * torch.log(c + 1) + series
    inverse = 1 / c.clamp(min=1e3)
    asymptotic = 0.5 * (torch.log(c) - math.log(2 * math.pi * math.e)) - inverse / 6 + inverse**3 / 90
    return torch.where(c > 1e3, asymptotic, c * torch.digamma(c) - torch.lgamma(c) - c)


def tetragamma(c: Tensor) -> Tensor:
    r""":math:`\psi_2(c)`, the derivative of :math:`\psi_1`; it is below 0."""
    if c.dtype == torch.float64:
        return -2 * torch.special.zeta(torch.full_like(c, 3.0), c)
    w = 1 / (c + 1)
    (series,) = polynomials((_TETRAGAMMA,), w)
    return -(2 / c**3 + w.square() * series)


def compare(c: Tensor, other: Tensor, gap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Two concentrations: :math:`\kappa(c) - \kappa(c_0)`, :math:`\psi(c_0) - \psi(c)` and :math:`\psi_1(c)`.

    Where the two are near, the difference is found from their gap, not by subtracting large logarithms.

    Args:
        c: Concentrations.
        other: Others, which broadcast to them.
        gap: ``other - c``, possibly known better than by subtraction.
    """
    if c.dtype == torch.float64:
        two = torch.full_like(c, 2.0)
        return kappa(c) - kappa(other), torch.digamma(other) - torch.digamma(c), torch.special.zeta(two, c)
    w, w_other = (c + 1).reciprocal_(), 1 / (other + 1)
    digamma, series, trigamma = polynomials(_FUNCTIONS, w)
    digamma_other, series_other, _ = polynomials(_FUNCTIONS, w_other)
    inverse = 1 / c
    log = torch.maximum(w, w_other).mul_(gap.abs()).log1p_().copysign_(gap)  # ln (c0 + 1) - ln (c + 1)
    kappas = torch.log(c).add_(series).sub_(torch.log(other) + series_other).add_(log, alpha=0.5)
    psi = log.sub_(digamma).add_(digamma_other).addcmul_(gap, inverse / other)
    return kappas, psi, trigamma.mul_(w).add_(1).mul_(w).addcmul_(inverse, inverse)
