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
Powers = Tensor | tuple[Tensor, ...]


def padded(*rows: tuple[float, ...]) -> Table:
    """Coefficients of several polynomials, all of the highest degree among them."""
    length = max(map(len, rows))
    return tuple((*row, *(0.0,) * (length - len(row))) for row in rows)


def inverse_powers(c: Tensor, shift: float = 1.0, degree: int = 6) -> Powers:
    """The powers of w = shift / (c + shift) from 0 to an even degree; no more than 0 to 2 where that is compiled."""
    if torch.compiler.is_compiling():
        w = shift / (c + shift)
        return torch.ones_like(w), w, w * w
    powers = empty(c, degree + 1, c.numel()).view(-1, *c.shape)
    powers[0].fill_(1.0)
    torch.add(c, shift, out=powers[1]).reciprocal_()
    if shift != 1:
        powers[1].mul_(shift)
    torch.mul(powers[1], powers[1], out=powers[2])
    for k in range(3, degree, 2):
        torch.mul(powers[k - 2 : k], powers[2], out=powers[k : k + 2])
    return powers


def polynomials(table: Table, powers: Powers) -> tuple[Tensor, ...]:
    """Many polynomials of the same tensor: as one product of matrices, or by Horner's rule where that is compiled."""
    if not isinstance(powers, Tensor):
        return tuple(_horner(row, powers[1]) for row in table)
    used = powers[: len(table[0])]
    values = empty(used, len(table), used[0].numel())
    torch.mm(_matrix(table, used.dtype, used.device), used.view(len(used), -1), out=values)
    return values.view(len(table), *used.shape[1:]).unbind(0)


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
        (series,) = polynomials((KAPPA,), inverse_powers(c))
        return torch.log(c) - 0.5 * torch.log(c + 1) + series
    inverse = 1 / c.clamp(min=1e3)
    asymptotic = 0.5 * (torch.log(c) - math.log(2 * math.pi * math.e)) - inverse / 6 + inverse**3 / 90
    return torch.where(c > 1e3, asymptotic, c * torch.digamma(c) - torch.lgamma(c) - c)


def trigamma(c: Tensor) -> Tensor:
    r""":math:`\psi_1(c)` in double precision, where torch's own is good to 1e-8 only."""
    return torch.special.zeta(torch.full_like(c, 2.0), c)


def trigamma_of_series(series: Tensor, powers: Powers, inverse: Tensor) -> Tensor:
    r""":math:`\psi_1(c) = c^{-2} + w + w^2 t(w)` in single precision."""
    return torch.addcmul(powers[1], powers[2], series).addcmul_(inverse, inverse)


def tetragamma(c: Tensor) -> Tensor:
    r""":math:`\psi_2(c)`, the derivative of :math:`\psi_1`; it is below 0."""
    if c.dtype == torch.float64:
        return -2 * torch.special.zeta(torch.full_like(c, 3.0), c)
    powers = inverse_powers(c, degree=8)
    (series,) = polynomials((_TETRAGAMMA,), powers)
    return -(2 / c**3 + powers[2] * series)


def compare(c: Tensor, other: Tensor, gap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Two concentrations: :math:`\kappa(c) - \kappa(c_0)`, :math:`\psi(c_0) - \psi(c)` and :math:`\psi_1(c)`.

    Where the two are near, the difference is found from their gap, not by subtracting large logarithms.

    Args:
        c: Concentrations.
        other: Others, which broadcast to them.
        gap: ``other - c``, possibly known better than by subtraction.
    """
    if c.dtype == torch.float64:
        return kappa(c) - kappa(other), torch.digamma(other) - torch.digamma(c), trigamma(c)
    powers, powers_other = inverse_powers(c), inverse_powers(other)
    digamma, series, series_trigamma = polynomials(_FUNCTIONS, powers)
    digamma_other, series_other, _ = polynomials(_FUNCTIONS, powers_other)
    inverse = 1 / c
    log = torch.maximum(powers[1], powers_other[1]).mul_(gap.abs()).log1p_().copysign_(gap)  # ln (c0 + 1) - ln (c + 1)
    kappas = torch.log(c).add_(series).sub_(torch.log(other) + series_other).add_(log, alpha=0.5)
    psi = log.sub_(digamma).add_(digamma_other).addcmul_(gap, inverse / other)
    return kappas, psi, trigamma_of_series(series_trigamma, powers, inverse)
