r"""Logarithms of gamma variables by one normal and one uniform number each, all at once.

.. math:: x = d\,v\,u'^{1/c}, \qquad v = (1 + s)^3, \quad s = \frac{n}{3\sqrt d}, \quad d = c + \tfrac23

:math:`d v` is a draw of Gamma(c + 1) if :math:`\ln u < E = \tfrac12 n^2 + d\,(1 - v + \ln v)`, of which

.. math:: E = 3 d\,\big(\ln(1 + s) - s + \tfrac12 s^2 - \tfrac13 s^3\big)

has no large terms that cancel. Given acceptance :math:`u' = u e^{-E}` is uniform and independent of n, so that it also
serves for the power that turns Gamma(c + 1) into Gamma(c). What is rejected, some 4 in 100 at most, is drawn again.

Reference: Marsaglia and Tsang, 2000, "A simple method for generating gamma variables".
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import run, valid


def propose(c: Tensor, mask: Tensor | None, normal: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """``ln(x / d)``, and the logarithm of u', which is below 0 where the proposal is accepted."""
    c = valid(c, mask)
    d = c + 2 / 3
    # Below -1 + a little the acceptance is less than the least uniform number: clamped proposals are rejected.
    s = (9 * d).rsqrt_().mul_(normal).clamp_(min=-1 + 8 * torch.finfo(c.dtype).eps)
    log = torch.log1p(s)
    first_terms = (s / 3).sub_(0.5).mul_(s).add_(1).mul_(s)
    level = torch.log(uniform).addcmul_(log - first_terms, d, value=-3)
    return log.mul_(3).addcdiv_(level, c), level


def noise(like: Tensor) -> tuple[Tensor, Tensor]:
    """One standard normal and one uniform number above 0 an entry, by torch's generator."""
    lowest = torch.finfo(like.dtype).eps / 4
    return torch.randn_like(like), torch.empty_like(like).uniform_(lowest, 1.0)


def draw(c: Tensor, mask: Tensor | None, compile: bool) -> Tensor:
    """``ln(x / d)`` for x of Gamma(c), of any c above 0.

    Args:
        c: ``[R, T]``.
        mask: Valid entries, which broadcast to it, or None. The others are drawn too, at c = 1.
        compile: See `run`.
    """
    found, level = run(propose, c, mask, *noise(c), compile=compile)
    found, flat = found.view(-1), valid(c, mask).view(-1)
    left = _rejected(level.view(-1))
    while len(left):
        again = flat[left]
        values, level = propose(again, None, *noise(again))
        found[left] = values
        left = left[_rejected(level)]
    return found.view(c.shape)


def _rejected(level: Tensor) -> Tensor:
    return (level >= 0).nonzero().squeeze(-1)
