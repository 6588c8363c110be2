r"""The Kullback-Leibler divergence between Dirichlet rows, by terms that do not cancel.

.. math:: \mathrm{KL} = \sum_j \Big[ \kappa(c_j) - \kappa(c^0_j) + c^0_j \big(\Delta_j - \Delta_S\big) \Big]
    - \big[\kappa(S) - \kappa(S^0)\big], \qquad \Delta_j = \psi(c^0_j) - \psi(c_j), \quad \Delta_S = \psi(S^0) - \psi(S)

with :math:`\kappa(c) = c\,\psi(c) - \ln\Gamma(c) - c` and sums S over the valid entries of a row. Its gradient is
:math:`(c_j - c^0_j)\,\psi_1(c_j) - (S - S^0)\,\psi_1(S)` in :math:`c_j` and :math:`\Delta_j - \Delta_S` in
:math:`c^0_j`, which the value has as a by-product.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .gamma_functions import compare
from .kernels import SMALLEST, RowFunction, flatten, only, run, valid, whole


def _divergence(c: Tensor, other: Tensor, mask: Tensor | None, learned: bool) -> tuple[Tensor, ...]:
    """The divergence ``[R, 1]`` and its gradients in c and, if ``learned``, in the other concentrations.

    The sums are compared for all rows at once, since pieces of them would be too small to be worth their calls.
    """
    total, total_other, total_gap = run(_totals, c, other, mask)
    of_row, change_of_row, trigamma_of_row = compare(total, total_other, total_gap)
    value, *slopes = run(_entries, c, other, mask, change_of_row, total_gap * trigamma_of_row, learned)
    return value - of_row, *slopes


def _totals(c: Tensor, other: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The sums of both and of their gap: the two are rounded by more than nearby rows differ."""
    c, other = valid(c, mask), other.clamp(min=SMALLEST)
    total, total_other, total_gap = (
        only(values, mask).sum(-1, keepdim=True) for values in (c, other.expand(c.shape), other - c)
    )
    if mask is not None:  # a row without valid entries: any number, compared with itself
        some = total > 0
        total, total_other = torch.where(some, total, 1.0), torch.where(some, total_other, 1.0)
    return total, total_other, total_gap


def _entries(
    c: Tensor, other: Tensor, mask: Tensor | None, change_of_row: Tensor, slope_of_row: Tensor, learned: bool
) -> tuple[Tensor, ...]:
    """What entries add to the divergence, ``[R, 1]``, and its gradients."""
    c, other = valid(c, mask), other.clamp(min=SMALLEST)
    gap = other - c
    of_entries, change, trigamma = compare(c, other, gap)
    change = change.sub_(change_of_row)
    value = only(of_entries.addcmul_(other, change), mask).sum(-1, keepdim=True)
    slope = only(torch.addcmul(slope_of_row, gap, trigamma, value=-1), mask)
    return (value, slope, only(change, mask)) if learned else (value, slope)


class Scaled(RowFunction):
    """The gradient of every row times what arrives at its value.

    It is given its source too, so that it counts as a function of it, and refuses to be differentiated again.
    """

    @staticmethod
    def forward(incoming: Tensor, slope: Tensor, source: Tensor) -> Tensor:
        return incoming * slope


class Divergence(RowFunction):
    """``KL(Dir(c) || Dir(other))``, ``[..., 1]``, with its gradients, which a caller ignores.

    ``other`` and ``mask`` are expanded to the shape of c, ``[..., T]``; ``learned`` says that ``other`` has a gradient.
    """

    @staticmethod
    def forward(c: Tensor, other: Tensor, mask: Tensor | None, learned: bool, compile: bool) -> tuple[Tensor, ...]:
        shape = c.shape
        flat = c.reshape(-1, shape[-1]), flatten(other, shape), flatten(mask, shape)
        value, *slopes = whole(_divergence, *flat, learned, compile=compile)
        return value.view(*shape[:-1], 1), *(slope.view(shape) for slope in slopes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, *slopes = output
        ctx.mark_non_differentiable(*slopes)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:2], *slopes)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        incoming = slopes[0]
        if incoming is None:
            return None, None, None, None, None
        c, other, *slopes_of = ctx.saved_tensors
        found = [Scaled.apply(incoming, *pair) for pair in zip(slopes_of, (c, other), strict=False)]
        return found[0], found[1] if len(found) > 1 else None, None, None, None
