"""Draws of Dirichlet rows with their exact logarithms, and the gradient of both.

Where gradients are asked for a draw also has the sums over each row that divergences are made of, since it computes
digamma and its kin of every concentration for its own gradient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .draws import draw
from .kernels import RowFunction, flatten, keep_freed_memory, only, run, valid
from .slopes import functions_of_draws, logs_of_draws

# Of the logarithm of an entry below the largest of its row. Smaller numbers, or their products with gradients, would be
# denormal, which is slow.
FAINTEST = {torch.float32: -40.0, torch.float64: -300.0}


def _drawn(c: Tensor, mask: Tensor | None, relative: Tensor, sloped: bool) -> tuple[Tensor, ...]:
    """Rows and their logarithms from ``ln(x / d)``; if ``sloped`` also what `DrawRows` has for gradients."""
    c = valid(c, mask)
    if not sloped:
        return _normalized(logs_of_draws(c, relative), mask)
    found = functions_of_draws(c, relative)
    parts = (only(values, mask).sum(-1, keepdim=True) for values in (c, found.kappas, found.digammas))
    return (
        *_normalized(found.logs, mask),
        torch.cat(tuple(parts), -1),
        only(found.slopes, mask),
        only(found.trigammas, mask),
    )


def _normalized(logs: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Rows and their logarithms, from logarithms that are overwritten."""
    finfo = torch.finfo(logs.dtype)
    if mask is not None:
        logs = torch.where(mask, logs, finfo.min)
    logs = logs.sub_(logs.amax(-1, keepdim=True))
    rows = only(logs.clamp(min=FAINTEST.get(logs.dtype, -10.0)).exp_(), mask)
    total = rows.sum(-1, keepdim=True).clamp_(min=finfo.tiny)
    logs = logs.sub_(torch.log(total))
    if mask is not None:
        logs = torch.where(mask, logs, math.log(finfo.tiny))
    return rows.div_(total), logs


def _pulled(
    c: Tensor,
    mask: Tensor | None,
    rows: Tensor,
    slopes: Tensor,
    trigammas: Tensor,
    on_rows: Tensor | None,
    on_logs: Tensor | None,
    on_sums: Tensor | None,
) -> tuple[Tensor]:
    r"""The gradient in the concentrations, :math:`V_j \sum_i g_i\, \partial(\cdot)_i / \partial \ln x_j` of the draw,
    and of the sums by :math:`\kappa'(c) = c\,\psi_1(c) - 1`."""
    found: Tensor | None = None
    if on_rows is not None:
        found = rows * on_rows
        found = found.addcmul_(rows, found.sum(-1, keepdim=True), value=-1)
    if on_logs is not None:
        on_logs = only(on_logs.expand(rows.shape), mask)  # it may be one number a row, which the sum counts T times
        direct = torch.addcmul(on_logs, rows, on_logs.sum(-1, keepdim=True), value=-1)
        found = direct if found is None else found + direct
    found = torch.zeros_like(rows) if found is None else found.mul_(slopes)
    if on_sums is not None:
        on_total, on_kappa, on_digamma = on_sums.split(1, -1)
        found = found.addcmul_(valid(c, mask).mul(on_kappa).add_(on_digamma), trigammas)
        found = only(found.add_(on_total - on_kappa), mask)
    return (found,)


class _Gradient(RowFunction):
    @staticmethod
    def forward(
        c: Tensor,
        mask: Tensor | None,
        rows: Tensor,
        slopes: Tensor,
        trigammas: Tensor,
        on_rows: Tensor | None,
        on_logs: Tensor | None,
        on_sums: Tensor | None,
        compile: bool,
    ) -> Tensor:
        shape = rows.shape
        flat = [flatten(value, shape) for value in (c, mask, rows, slopes, trigammas, on_rows, on_logs)]
        of_sums = None if on_sums is None else flatten(on_sums, on_sums.shape)
        return run(_pulled, *flat, of_sums, compile=compile)[0].view(shape)


class DrawRows(RowFunction):
    r"""Rows ``[..., T]`` and their logarithms; if ``sloped``, for there to be gradients, also more.

    These are the sums over a row of :math:`c_j`, :math:`\kappa(c_j)` and :math:`\psi(c_j)`, ``[..., 3]``, and, as
    numbers without gradients, the slopes of the gamma draws that rows were made of and :math:`\psi_1(c_j)`.
    """

    @staticmethod
    def forward(concentration: Tensor, mask: Tensor | None, sloped: bool, compile: bool) -> tuple[Tensor, ...]:
        shape = concentration.shape
        c, mask = concentration.reshape(-1, shape[-1]).contiguous(), flatten(mask, shape)
        keep_freed_memory()
        relative, spare = draw(c, mask, compile)
        found = run(_drawn, c, mask, relative, sloped, compile=compile, into=(spare, relative))
        return tuple(values.view(*shape[:-1], values.shape[-1]) for values in found)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        concentration, mask, sloped, ctx.compile = inputs
        if not sloped:
            return
        rows, _, _, slopes, trigammas = output
        ctx.mark_non_differentiable(slopes, trigammas)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(concentration, mask, rows, slopes, trigammas)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        incoming = slopes[:3]
        if all(slope is None for slope in incoming):
            return None, None, None, None
        return _Gradient.apply(*ctx.saved_tensors, *incoming, ctx.compile), None, None, None

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        if info.randomness != "different":
            raise RuntimeError(f"vmap(randomness={info.randomness!r}) of Dirichlet rows: expected 'different'")
        # Within vmap tensors do not say whether gradients are asked for; what they are made of does.
        concentration, mask, sloped, compile = arguments
        return super().vmap(info, in_dims, concentration, mask, sloped or concentration.requires_grad, compile)
