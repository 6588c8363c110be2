"""A function of tensors as the graph of the tensor operations that it does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.overrides import TorchFunctionMode

LOOKS = "what it does depends on values of tensors"


class NotTraceable(RuntimeError):
    """A function is no fixed sequence of tensor operations."""


def warn_of_running(error: NotTraceable, what: str = "for every gradient") -> None:
    """Say that a model is slower than it could be, and why; of whoever made the density that calls this."""
    said = f"the model runs anew {what}, since its operations could not be written down: {error}"
    warnings.warn(said, RuntimeWarning, stacklevel=4)


class NoLooking(TorchFunctionMode):
    """Refuses to hand values of tensors to numpy: what is computed there would be taken for a constant."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.numpy, torch.Tensor.__array__):
            raise NotTraceable(LOOKS)
        return func(*args, **(kwargs or {}))


def traced(function: Callable[..., Any], *examples: Tensor, random: bool = False) -> GraphModule:
    """The operations of a function, seen while it runs on examples; of other shapes it knows nothing.

    Each example is copied first: a tensor that stands in two places would be taken for one argument, and the graph
    would silently use the first for both.

    Args:
        function: Pure: tensors to a tensor, or a tuple of tensors.
        examples: Its arguments.
        random: Whether it may draw random numbers by torch's generator, default False.

    Raises:
        NotTraceable: It looks at values of tensors, or draws random numbers that it may not draw.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # takes a second: only where something is traced

    def plain(*arguments: Tensor) -> Any:  # of a method `make_fx` counts the owner too
        with NoLooking():
            return function(*arguments)

    try:
        graph = make_fx(plain)(*(example.detach().clone() for example in examples))
    except NotTraceable:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()
        if reason and "get value out of a tracing tensor" in reason[0]:
            raise NotTraceable(LOOKS) from error
        raise NotTraceable(f"{type(error).__name__} {reason[0] if reason else ''}".rstrip()) from error
    for node in graph.graph.nodes:
        if not random and torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise NotTraceable(f"it draws random numbers, by {node.target}")
    return graph


def functional(graph: GraphModule, *examples: Tensor) -> GraphModule:
    """The same function without operations in place.

    Raises:
        NotTraceable: It changes something that is no result of its own, such as running statistics.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with torch.no_grad():
            return make_fx(torch.func.functionalize(graph))(*examples)
    except Exception as error:
        raise NotTraceable("it changes tensors in place that are not its own") from error
