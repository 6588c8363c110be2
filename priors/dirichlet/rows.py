"""Draws of Dirichlet rows with their exact logarithms, and the gradient of both."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .draws import draw
from .kernels import RowFunction, flatten, only, run, valid
from .slopes import log_slopes

# Of the logarithm of an entry below the largest of its row. Smaller numbers, or their products with gradients, would be
# denormal, which is slow.
FAINTEST = {torch.float32: -40.0, torch.float64: -300.0}


def _normalized(c: Tensor, mask: Tensor | None, relative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, their logarithms and the slopes of the gamma draws, from ``ln(x / d)``."""
    logs, slopes = log_slopes(valid(c, mask), relative)
    finfo = torch.finfo(logs.dtype)
    if mask is not None:
        logs = torch.where(mask, logs, finfo.min)
    logs = logs.sub_(logs.amax(-1, keepdim=True))
    rows = only(logs.clamp(min=FAINTEST.get(logs.dtype, -10.0)).exp_(), mask)
    total = rows.sum(-1, keepdim=True).clamp_(min=finfo.tiny)
    logs = logs.sub_(torch.log(total))
    if mask is not None:
        logs = torch.where(mask, logs, math.log(finfo.tiny))
    return rows.div_(total), logs, only(slopes, mask)


def _pulled(
    rows: Tensor, slopes: Tensor, mask: Tensor | None, on_rows: Tensor | None, on_logs: Tensor | None
) -> tuple[Tensor]:
    r"""The gradient in the concentrations, :math:`V_j \sum_i g_i\, \partial(\cdot)_i / \partial \ln x_j`."""
    found: Tensor | None = None
    if on_rows is not None:
        found = rows * on_rows
        found = found.addcmul_(rows, found.sum(-1, keepdim=True), value=-1)
    if on_logs is not None:
        on_logs = only(on_logs.expand(rows.shape), mask)  # it may be one number a row, which the sum counts T times
        direct = torch.addcmul(on_logs, rows, on_logs.sum(-1, keepdim=True), value=-1)
        found = direct if found is None else found + direct
    assert found is not None
    return (found.mul_(slopes),)


class _Gradient(RowFunction):
    @staticmethod
    def forward(
        rows: Tensor,
        slopes: Tensor,
        mask: Tensor | None,
        on_rows: Tensor | None,
        on_logs: Tensor | None,
        compile: bool,
    ) -> Tensor:
        shape = rows.shape
        flat = (flatten(value, shape) for value in (rows, slopes, mask, on_rows, on_logs))
        return run(_pulled, *flat, compile=compile)[0].view(shape)


class DrawRows(RowFunction):
    """Rows ``[..., T]``, their logarithms, and the slopes of the gamma draws that they were made of."""

    @staticmethod
    def forward(concentration: Tensor, mask: Tensor | None, compile: bool) -> tuple[Tensor, Tensor, Tensor]:
        shape = concentration.shape
        c, mask = concentration.reshape(-1, shape[-1]).contiguous(), flatten(mask, shape)
        relative, spare = draw(c, mask, compile)
        rows, logs, slopes = run(_normalized, c, mask, relative, compile=compile, into=(spare, relative))
        return rows.view(shape), logs.view(shape), slopes.view(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        rows, _, slopes = output
        _, mask, ctx.compile = inputs
        ctx.mark_non_differentiable(slopes)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(rows, slopes, mask)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        on_rows, on_logs, _ = slopes
        if on_rows is None and on_logs is None:
            return None, None, None
        return _Gradient.apply(*ctx.saved_tensors, on_rows, on_logs, ctx.compile), None, None

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        if info.randomness != "different":
            raise RuntimeError(f"vmap(randomness={info.randomness!r}) of Dirichlet rows: expected 'different'")
        return super().vmap(info, in_dims, *arguments)
