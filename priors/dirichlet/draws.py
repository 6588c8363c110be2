r"""Logarithms of gamma variables by one normal and one uniform number each, all at once.

.. math:: x = d\,v\,u'^{1/c}, \qquad v = (1 + s)^3, \quad s = \frac{n}{3\sqrt d}, \quad d = c + \tfrac23

:math:`d v` is a draw of Gamma(c + 1) if :math:`\ln u < E = \tfrac12 n^2 + d\,(1 - v + \ln v)`, of which

.. math:: E = 3 d\,\big(\ln(1 + s) - s + \tfrac12 s^2 - \tfrac13 s^3\big)

has no large terms that cancel. Given acceptance :math:`u' = u e^{-E}` is uniform and independent of n, so that it also
serves for the power that turns Gamma(c + 1) into Gamma(c). What is rejected, some 4 in 100 at most, is drawn again.

Reference: Marsaglia and Tsang, 2000, "A simple method for generating gamma variables".
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .kernels import cut, empty, run, valid


def propose(c: Tensor, mask: Tensor | None, normal: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """``ln(x / d)``, and the logarithm of u', which is below 0 where the proposal is accepted."""
    c = valid(c, mask)
    nine_d = torch.rsub(c, 6, alpha=-9)
    # Below -1 + a little the acceptance is less than the least uniform number: clamped proposals are rejected.
    s = nine_d.rsqrt().mul_(normal).clamp_(min=-1 + 8 * torch.finfo(c.dtype).eps)
    log = torch.log1p(s)
    excess = (log - s).addcmul_(s * s, torch.rsub(s, 0.5, alpha=1 / 3))
    level = torch.log(uniform).addcmul_(excess, nine_d, value=-1 / 3)
    return log.mul_(3).addcdiv_(level, c), level


def noise(like: Tensor) -> tuple[Tensor, Tensor]:
    """One standard normal and one uniform number above 0 an entry, by torch's generator, in the order of the pieces."""
    lowest = torch.finfo(like.dtype).eps / 4
    normal, uniform = empty(like, *like.shape), empty(like, *like.shape)
    for one, other in zip(cut(normal), cut(uniform), strict=True):
        one.normal_()
        other.uniform_(lowest, 1.0)
    return normal, uniform


def _propose_anew(c: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    return propose(c, mask, *noise(c))


def draw(c: Tensor, mask: Tensor | None, compile: bool) -> tuple[Tensor, Tensor]:
    """``ln(x / d)`` for x of Gamma(c), of any c above 0; and memory of the same shape to be used for something else.

    Args:
        c: ``[R, T]``.
        mask: Valid entries, which broadcast to it, or None. The others are drawn too, at c = 1.
        compile: See `run`.
    """
    if compile:  # which knows no generators
        found, level = run(propose, c, mask, *noise(c), compile=True)
    else:
        found, level = run(_propose_anew, c, mask)
    values, flat = found.view(-1), (c if mask is None else valid(c, mask)).reshape(-1)
    left = _rejected(level.view(-1))
    while len(left):
        again, of_again = _propose_anew(flat.index_select(0, left), None)
        values.index_copy_(0, left, again)
        left = left[_rejected(of_again)]
    return found, level


def _rejected(level: Tensor) -> Tensor:
    if level.device.type == "cpu":  # by numpy, several times as fast
        return torch.from_numpy(np.flatnonzero(level.numpy() >= 0))
    return (level >= 0).nonzero().squeeze(-1)
