r"""Concentrations around softmax attention, in one pass and with one gradient.

.. math:: c = \alpha\,\mathrm{softmax}(Z) + \epsilon
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..rows import masked_softmax
from .kernels import RowFunction, flatten, run


def _around(scores: Tensor, mask: Tensor | None, sharpness: Tensor, floor: float) -> tuple[Tensor]:
    return (masked_softmax(scores, mask).mul_(sharpness).add_(floor),)


def _pulled(incoming: Tensor, concentration: Tensor, sharpness: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Gradients in the scores and, ``[R, 1]``, in the sharpness; masked entries have softmax 0 and so no gradient."""
    above = concentration - floor
    weighted = incoming * above
    total = weighted.sum(-1, keepdim=True) / sharpness
    return weighted.addcmul_(above, total, value=-1), total


class _Gradient(RowFunction):
    @staticmethod
    def forward(
        incoming: Tensor, concentration: Tensor, sharpness: Tensor, floor: float, compile: bool
    ) -> tuple[Tensor, Tensor]:
        shape = concentration.shape
        flat = incoming.reshape(-1, shape[-1]), concentration.reshape(-1, shape[-1]), _per_row(sharpness)
        in_scores, in_sharpness = run(_pulled, *flat, floor, compile=compile)
        return in_scores.view(shape), in_sharpness.view(*shape[:-1], 1)


class AroundSoftmax(RowFunction):
    """Concentrations ``[..., T]`` of scores; the mask is expanded to their shape, the sharpness to ``[..., 1]``."""

    @staticmethod
    def forward(scores: Tensor, mask: Tensor | None, sharpness: Tensor, floor: float, compile: bool) -> Tensor:
        shape = scores.shape
        flat = scores.reshape(-1, shape[-1]), flatten(mask, shape), _per_row(sharpness)
        return run(_around, *flat, floor, compile=compile)[0].view(shape)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _, _, sharpness, ctx.floor, ctx.compile = inputs
        ctx.save_for_backward(output, sharpness)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        in_scores, in_sharpness = _Gradient.apply(slopes[0], *ctx.saved_tensors, ctx.floor, ctx.compile)
        return in_scores, None, in_sharpness, None, None


def _per_row(sharpness: Tensor) -> Tensor:
    return sharpness.reshape(-1, 1)
