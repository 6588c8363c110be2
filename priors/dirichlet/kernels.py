"""Running a function of rows: over pieces that stay in the processor's cache, or compiled; and under `torch.func.vmap`.

A kernel takes tensors ``[R, T]`` (rows and entries; either may be 1 where it broadcasts), numbers and None, and returns
a tuple of tensors with R rows. It is written once, without regard to how it runs.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import repeat
from typing import Any

import torch
from torch import Tensor

from ..compiling import compiled

Kernel = Callable[..., tuple[Tensor, ...]]
PIECE = 400_000  # bytes of one tensor: some ten of them fit a cache, and their work outweighs the calls
SMALLEST = 1e-6  # what smaller concentrations count as


def run(kernel: Kernel, *arguments: Any, compile: bool = False, into: Sequence[Tensor] = ()) -> tuple[Tensor, ...]:
    """Apply a kernel to all rows.

    Args:
        kernel: See above.
        arguments: Its arguments; at least one tensor has all rows.
        compile: Compile it, if a compiler is found, and run it once over everything.
        into: Tensors ``[R, T]`` that nobody needs any more, arguments among them, which may hold the first results:
            to write to memory that is fresh costs more than much of what is computed.
    """
    if torch.compiler.is_compiling():  # as part of another
        return kernel(*arguments)
    if compile:
        return whole(kernel, *arguments, compile=True)
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    count = max(len(t) for t in tensors)
    step = _rows(max(t[:1].nbytes for t in tensors))
    if count <= step:
        return kernel(*arguments)
    results: tuple[Tensor, ...] = ()
    with _Workspace.kept() as workspace:
        pieces = [a.split(step) if isinstance(a, Tensor) and len(a) == count else repeat(a) for a in arguments]
        targets: list[tuple[Tensor, ...]] = []
        for index, piece in zip(range(-(-count // step)), zip(*pieces, strict=False), strict=False):
            workspace.taken = 0
            found = kernel(*piece)
            if not results:
                fresh = (f.new_empty((count, *f.shape[1:])) for f in found[len(into) :])
                results = (*into, *fresh)
                targets = [target.split(step) for target in results]
            for target, values in zip(targets, found, strict=True):
                target[index].copy_(values)
    return results


def whole(function: Kernel, *arguments: Any, compile: bool) -> tuple[Tensor, ...]:
    """Apply a function to all rows at once; uncompiled it may `run` kernels of its own."""
    if not compile:
        return function(*arguments)
    # Dynamo looks at the gradients of what it is given, and saved tensors that are no leaves warn about it.
    return compiled(function)(*(a.detach() if isinstance(a, Tensor) else a for a in arguments))


class _Workspace:
    """The large temporaries of one run, which every piece uses anew: to allocate them costs more than to fill them."""

    current = threading.local()

    def __init__(self) -> None:
        self.taken = 0
        self.buffers: list[Tensor] = []

    @classmethod
    @contextmanager
    def kept(cls) -> Iterator[_Workspace]:
        cls.current.workspace = cls()
        try:
            yield cls.current.workspace
        finally:
            cls.current.workspace = None

    def take(self, like: Tensor, shape: tuple[int, int]) -> Tensor:
        index, self.taken = self.taken, self.taken + 1
        if index == len(self.buffers):
            self.buffers.append(like.new_empty(shape))
        elif self.buffers[index].shape != shape:
            self.buffers[index] = like.new_empty(shape)
        return self.buffers[index]


@functools.cache
def keep_freed_memory() -> None:
    """Have the allocator keep what is freed, or every large tensor costs as much to get as several passes over it.

    glibc gives back what exceeds twice the largest block that was ever freed, up to blocks of 32 MiB (mallopt(3),
    M_MMAP_THRESHOLD): this one is, and nobody touches it. Other allocators do not mind.
    """
    torch.empty(32_000_000, dtype=torch.uint8)


def empty(like: Tensor, *shape: int) -> Tensor:
    """A tensor to be filled, which within a kernel is overwritten when the next piece is run."""
    workspace: _Workspace | None = getattr(_Workspace.current, "workspace", None)
    return like.new_empty(shape) if workspace is None else workspace.take(like, (shape[0], shape[1]))


def cut(value: Tensor) -> tuple[Tensor, ...]:
    """The pieces in which a kernel sees it."""
    return value.split(_rows(value[:1].nbytes))


def _rows(width: int) -> int:
    """The number of rows of a piece, of which the widest tensor has ``width`` bytes a row."""
    return max(1, PIECE * _parallel() // max(width, 1))


def _parallel() -> int:
    """How much larger pieces are so that every thread has one: torch divides only what is larger than 32768 entries."""
    threads = torch.get_num_threads()
    return 1 if threads == 1 else 4 * threads


def once(value: Tensor) -> Tensor:
    """The tensor with 1 for the length of every axis along which it repeats the same numbers."""
    for axis, stride in enumerate(value.stride()):
        if stride == 0 and value.shape[axis] > 1:
            value = value.narrow(axis, 0, 1)
    return value


def flatten(value: Tensor | None, shape: torch.Size) -> Tensor | None:
    """``[R, T]`` of a tensor that broadcasts to ``shape``, with 1 for R or T where it repeats the same numbers."""
    if value is None:
        return None
    value = once(value.expand(shape))
    last = value.shape[-1]
    if value.numel() == last:
        return value.reshape(1, last)
    return value.expand(*shape[:-1], last).reshape(-1, last)


def valid(concentration: Tensor, mask: Tensor | None) -> Tensor:
    """Concentrations at which every function is finite: what stands in masked entries counts as 1."""
    given = concentration if mask is None else torch.where(mask, concentration, 1.0)
    return given.clamp(min=SMALLEST)


def only(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values with 0 in masked entries."""
    return values if mask is None else torch.where(mask, values, 0.0)


class RowFunction(torch.autograd.Function):
    """A function of rows that treats leading axes alike, so that an axis of `torch.func.vmap` is one more of them.

    All tensors among its arguments have the same number of axes.
    """

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        def lead(argument: Any, axis: int | None) -> Any:
            if not isinstance(argument, Tensor):
                return argument
            if axis is None:
                return argument.unsqueeze(0).expand(info.batch_size, *argument.shape)
            return argument.movedim(axis, 0)

        found = cls.apply(*map(lead, arguments, in_dims))
        return found, tuple(0 for _ in found) if isinstance(found, tuple) else 0

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> Any:
        raise NotImplementedError("Dirichlet rows have first derivatives only: their gradient was differentiated again")
