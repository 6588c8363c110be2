"""Functions of tensors, compiled where a compiler is found."""

from __future__ import annotations

import copy
import functools
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

_told = threading.Event()


def _tell(error: Exception) -> None:
    """Say once a process that functions run uncompiled."""
    if not _told.is_set():
        _told.set()
        reason = "".join(str(error).strip().splitlines()[:1])
        warnings.warn(
            f"running uncompiled, since compiling failed: {type(error).__name__} {reason}".rstrip(),
            RuntimeWarning,
            stacklevel=4,
        )


class Compiled:
    """A function of tensors that is compiled when it is called; where that fails it runs as it is.

    Args:
        function: Pure: tensors, numbers or None to a tuple of tensors. It returns no booleans, which slow the whole
            kernel down. A graph of operations is a function of tensors of one shape each.
        dynamic: Whether the first axis of its tensors may change its length from call to call without compiling anew,
            default True; of no account for a graph.
    """

    def __init__(self, function: Callable[..., Any], dynamic: bool = True):
        self.function, self.dynamic = function, dynamic
        self._compiled: Callable[..., Any] | None = None
        self._failed = False
        self._first = threading.Lock()

    def __call__(self, *arguments: Any) -> Any:
        if self._failed:
            return self.function(*arguments)
        if self._compiled is not None:
            return self._tried(self._compiled, arguments)
        with self._first:  # who waited here finds it compiled, or failed
            compiling = self._compiled or self._compiler()
            found = self.function(*arguments) if self._failed else self._tried(compiling, arguments)
            self._compiled = None if self._failed else compiling
            return found

    def _tried(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """Run a compiled function, which other dtypes or widths compile anew; where that fails, the plain one."""
        try:
            return self._run(function, arguments)
        except Exception as error:
            found = self.function(*arguments)  # raises where the arguments are at fault
            self._failed = True
            _tell(error)
            return found

    def _compiler(self) -> Callable[..., Any]:
        if isinstance(self.function, GraphModule):
            return _OfGraph(self.function)
        return torch.compile(self.function) if self.dynamic else torch.compile(self.function, dynamic=False)

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        import torch._dynamo  # takes seconds: only where something is compiled

        for argument in arguments if self.dynamic else ():
            if isinstance(argument, Tensor) and argument.dim() and argument.shape[0] > 1:
                torch._dynamo.maybe_mark_dynamic(argument, 0)
        return function(*arguments)


class _OfGraph:
    """A graph, compiled at the first call, which has nothing else to look at in later ones.

    Args:
        graph: It.
    """

    def __init__(self, graph: GraphModule):
        self.graph = graph
        self.run: Callable[..., Any] | None = None

    def __call__(self, *arguments: Tensor) -> Any:
        dense: list[Any] = [argument.contiguous() for argument in arguments]  # the layout is part of what is compiled
        if self.run is None:
            import torch._inductor as inductor  # takes seconds: only where something is compiled

            self.run = inductor.compile(copy.deepcopy(self.graph), dense)
        return self.run(*dense)


@functools.cache
def compiled(function: Callable[..., Any]) -> Compiled:
    """The compiled form of a function, the same one whoever asks."""
    return Compiled(function)
