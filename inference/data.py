"""Arrays that a driver learns from, checked before any work is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Inputs = Tensor | tuple[Tensor, ...]


class DataError(ValueError):
    """Data that cannot be learnt from: empty, of different lengths, or holding NaN or infinity."""


def first(x: Inputs) -> Tensor:
    """The tensor that tells the number of examples."""
    return x[0] if isinstance(x, tuple) else x


def take(x: Inputs, index: Tensor | slice) -> Inputs:
    """Some examples."""
    return tuple(part[index] for part in x) if isinstance(x, tuple) else x[index]


def move_one(part: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A tensor on a device, and in a dtype if it holds real numbers."""
    return part.to(device, dtype) if part.is_floating_point() else part.to(device)


def move(x: Inputs, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Inputs on a device, real ones in a dtype."""
    return tuple(move_one(part, device, dtype) for part in x) if isinstance(x, tuple) else move_one(x, device, dtype)


def check_finite(name: str, values: Inputs) -> None:
    """Raise a `DataError` that names the first example holding NaN or infinity."""
    for part in values if isinstance(values, tuple) else (values,):
        if part.is_floating_point() and not torch.isfinite(part).all():
            bad = (~torch.isfinite(part)).reshape(len(part), -1).any(1).nonzero().flatten()
            value = part[bad[0]][~torch.isfinite(part[bad[0]])].flatten()[0].item()
            raise DataError(
                f"{name}: example {int(bad[0])} holds {value} ({len(bad)} of {len(part)} examples do): "
                "expected finite numbers"
            )


def _check(name: str, x: Inputs | None, y: Tensor | None) -> None:
    parts = x if isinstance(x, tuple) else (x,)
    for part in (*parts, y):
        if not isinstance(part, Tensor) or not part.dim():
            raise DataError(f"{name} holds a {type(part).__name__}: expected torch.Tensors [N, ...]")
    assert x is not None and y is not None
    if any(len(part) != len(y) for part in parts if part is not None):
        raise DataError(f"{name}: {len(first(x))} inputs but {len(y)} observations: expected as many of each")
    if not len(y):
        raise DataError(f"{name}: no examples")
    check_finite(f"{name} x", x)
    check_finite(f"{name} y", y)


@dataclass(frozen=True, eq=False)
class Data:
    """Training examples, and validation examples if there are any.

    Args:
        x: Inputs ``[N, ...]``, a tensor or a tuple of tensors (the net's positional arguments).
        y: What is observed, ``[N, ...]``.
        x_validation, y_validation: Examples to choose checkpoints by; None (default) for none.

    Raises:
        DataError: Lengths differ, nothing is there, or a number is not finite.
    """

    x: Inputs
    y: Tensor
    x_validation: Inputs | None = None
    y_validation: Tensor | None = None

    def __post_init__(self) -> None:
        _check("train", self.x, self.y)
        if self.x_validation is not None or self.y_validation is not None:
            _check("validation", self.x_validation, self.y_validation)

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device, dtype: torch.dtype) -> Data:
        """The same data on a device, real numbers in a dtype."""
        y = move_one(self.y, device, dtype)
        x_validation = None if self.x_validation is None else move(self.x_validation, device, dtype)
        y_validation = None if self.y_validation is None else move_one(self.y_validation, device, dtype)
        return replace(self, x=move(self.x, device, dtype), y=y, x_validation=x_validation, y_validation=y_validation)

    def example(self) -> tuple[Inputs]:
        """Arguments for one run of a model, to build guides with."""
        return (take(self.x, slice(0, 2)),)

    def batches(self, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Inputs, Tensor]]:
        """One epoch in a random order: indices, inputs and observations of each minibatch.

        The last batch is smaller when ``size`` does not divide the number of examples.
        """
        order = torch.randperm(len(self), generator=generator).to(self.y.device)
        for index in order.split(size):
            yield index, take(self.x, index), self.y[index]
