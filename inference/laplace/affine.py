"""Which weights a net uses in affine maps alone, and what goes through these maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..data import Inputs
from .functions import Functions, Weights

ROUNDING = 1e-3
"""Two sums of the same terms in float32 differ by less than this share of the sum of their sizes."""


@dataclass(frozen=True, eq=False)
class Call:
    """One affine map ``y = x W^T + b`` in a run of a net.

    Args:
        weight, bias: The names of those of its parameters that are looked at, or None.
        x: Inputs ``[B, ..., D]``.
        y: Outputs ``[B, ..., E]``, part of the graph.
    """

    weight: str | None
    bias: str | None
    x: Tensor
    y: Tensor


class Watching(TorchFunctionMode):
    """Keeps the affine maps that are run inside with these weights.

    Those of this package's layers and of `torch.nn.Linear` both end in torch's own function, so that is where they are
    seen. `torch.nn.MultiheadAttention` hides its maps in one function of its own.
    """

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        self.names = {id(value): name for name, value in weights.items()}
        self.calls: list[Call] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is F.linear:
            given = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **(kwargs or {})}
            weight, bias = (self.names.get(id(given.get(key))) for key in ("weight", "bias"))
            if weight or bias:
                self.calls.append(Call(weight, bias, given["input"].detach(), result))
        return result


def watched(functions: Functions, x: Inputs) -> tuple[Tensor, list[Call], Weights]:
    """Run a net: its outputs, its affine maps, and the weights that it ran with, as leaves of the graph."""
    weights = {name: value.clone().requires_grad_() for name, value in functions.mode.items()}
    with torch.enable_grad(), Watching(weights) as watching:
        outputs = functions(weights, x)
    return outputs, watching.calls, weights


def affine(functions: Functions, x: Inputs) -> list[str]:
    """The weights all of whose gradient comes through affine maps, seen on some examples."""
    outputs, calls, weights = watched(functions, x)
    cotangent = torch.linspace(0.5, 1.5, outputs.numel()).view(outputs.shape).to(outputs)
    results = [call.y for call in calls]
    gradients = torch.autograd.grad(outputs, [*weights.values(), *results], cotangent, allow_unused=True)
    direct = dict(zip(weights, gradients, strict=False))
    explained = {name: torch.zeros_like(value) for name, value in weights.items()}
    sizes = {name: torch.zeros_like(value) for name, value in weights.items()}
    for call, through in zip(calls, gradients[len(weights) :], strict=True):
        if through is None:
            continue
        g, a = through.flatten(0, -2), call.x.flatten(0, -2)
        for name, left, right in ((call.weight, g, a), (call.bias, g, None)):
            if name is not None:
                explained[name] += left.sum(0) if right is None else left.mT @ right
                sizes[name] += left.abs().sum(0) if right is None else left.abs().mT @ right.abs()
    seen = {name for call in calls for name in (call.weight, call.bias) if name is not None}
    return [
        name
        for name, gradient in direct.items()
        if name in seen
        and gradient is not None
        and ((gradient - explained[name]).abs() <= ROUNDING * sizes[name].max()).all()
    ]
