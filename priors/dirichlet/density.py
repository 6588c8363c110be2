r"""The log-density of Dirichlet rows given by their logarithms, by terms that do not cancel.

.. math:: \log p(a) = \sum_j \Big[ c_j \big(\psi(S) - \psi(c_j) + \ln a_j\big) + \kappa(c_j) - \kappa(S) - \ln a_j \Big]
    + (n - 1)\,\kappa(S)

over the n valid entries. Its gradient is :math:`\psi(S) - \psi(c_j) + \ln a_j` in :math:`c_j` and :math:`c_j - 1` in
:math:`\ln a_j`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .divergence import Scaled
from .gamma_functions import compare, kappa
from .kernels import RowFunction, flatten, only, run, valid


def _density(c: Tensor, logs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The log-density ``[R, 1]`` and its gradients in c and in the logarithms."""
    c, logs = valid(c, mask), only(logs, mask)
    total = only(c, mask).sum(-1, keepdim=True)
    count: Tensor | int = c.shape[-1]
    if mask is not None:
        total = torch.where(total > 0, total, 1.0)
        count = torch.ones_like(c).where(mask, 0.0).sum(-1, keepdim=True)
    of_entries, change, _ = compare(c, total, total - c)
    change = only(change + logs, mask)
    value = only(c * change + of_entries - logs, mask).sum(-1, keepdim=True)
    of_row = (count - 1) * kappa(total)
    if isinstance(count, Tensor):
        of_row = torch.where(count > 0, of_row, 0.0)
    return value + of_row, change, only(c - 1, mask)


class Density(RowFunction):
    """``log p``, ``[..., 1]``, of rows with the given logarithms, with its gradients, which a caller ignores."""

    @staticmethod
    def forward(c: Tensor, logs: Tensor, mask: Tensor | None, compile: bool) -> tuple[Tensor, Tensor, Tensor]:
        shape = c.shape
        flat = c.reshape(-1, shape[-1]), logs.reshape(-1, shape[-1]), flatten(mask, shape)
        value, in_c, in_logs = run(_density, *flat, compile=compile)
        return value.view(*shape[:-1], 1), in_c.view(shape), in_logs.view(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, in_c, in_logs = output
        ctx.mark_non_differentiable(in_c, in_logs)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[:2], in_c, in_logs)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        incoming = slopes[0]
        if incoming is None:
            return None, None, None, None
        c, logs, in_c, in_logs = ctx.saved_tensors
        needs_c, needs_logs, *_ = ctx.needs_input_grad
        to_c = Scaled.apply(incoming, in_c, c) if needs_c else None
        to_logs = Scaled.apply(incoming, in_logs, logs) if needs_logs else None
        return to_c, to_logs, None, None
