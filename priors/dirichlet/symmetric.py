r"""The divergence from symmetric Dirichlet rows, whose concentrations are all equal, by sums that a draw has anyway.

.. math:: \mathrm{KL} = \sum_j \kappa(c_j) - n\,\kappa(c^0) + c^0 \Big[ n\,\psi(c^0) - \sum_j \psi(c_j) \Big]
    - \big[\kappa(S) - \kappa(S^0)\big] - S^0 \big[\psi(S^0) - \psi(S)\big], \qquad S^0 = n\,c^0

for rows of n valid entries. Unlike `divergence.Divergence` it subtracts sums, and so is exact to
:math:`n\,c^0 |\ln c^0|` roundings of 1 and no better, which matters to nobody unless :math:`c^0` is large and the rows
near; its gradient is as exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .divergence import Scaled
from .gamma_functions import compare, kappa
from .kernels import SMALLEST, RowFunction, flatten, whole


def _symmetric(sums: Tensor, other: Tensor, count: Tensor | int) -> tuple[Tensor, Tensor]:
    """The divergence ``[R, 1]`` and its gradient in the sums ``[R, 3]``."""
    other = other.clamp(min=SMALLEST)
    total, kappas, digammas = sums.split(1, -1)
    total_other = count * other
    if isinstance(count, Tensor):  # a row without valid entries: any number, compared with itself
        total, total_other = torch.where(count > 0, total, 1.0), torch.where(count > 0, total_other, 1.0)
    gap = total_other - total
    of_row, change_of_row, trigamma_of_row = compare(total, total_other.expand(total.shape), gap)
    changes = count * torch.digamma(other) - digammas
    value = kappas - count * kappa(other) + other * changes - of_row - total_other * change_of_row
    in_total = 1 + gap * trigamma_of_row
    ones = torch.ones_like(total)
    return value, torch.cat((in_total, ones, -other * ones), -1)


class SymmetricDivergence(RowFunction):
    """``KL(Dir(c) || Dir(other))``, ``[..., 1]``, with its gradient in the sums, which a caller ignores.

    Of `rows.DrawRows` it takes the sums ``[..., 3]``; ``other`` is ``[..., 1]``, as is the count of valid entries where
    it is not the same number for all rows.
    """

    @staticmethod
    def forward(sums: Tensor, other: Tensor, count: Tensor | int, compile: bool) -> tuple[Tensor, Tensor]:
        shape = sums.shape
        per_row = torch.Size((*shape[:-1], 1))
        flat = [flatten(v, per_row) if isinstance(v, Tensor) else v for v in (other, count)]
        value, slopes = whole(_symmetric, sums.reshape(-1, 3), *flat, compile=compile)
        return value.view(*shape[:-1], 1), slopes.view(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], output[1])

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        sums, slopes_of = ctx.saved_tensors
        found = None if slopes[0] is None else Scaled.apply(slopes[0], slopes_of, sums)
        return found, None, None, None
