"""A function of tensors as the graph of the tensor operations that it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule


class NotTraceable(RuntimeError):
    """A function is no fixed sequence of tensor operations."""


def traced(function: Callable[..., Any], *examples: Tensor) -> GraphModule:
    """The operations of a function, seen while it runs on examples; of other shapes it knows nothing.

    Each example is copied first: a tensor that stands in two places would be taken for one argument, and the graph
    would silently use the first for both.

    Args:
        function: Pure: tensors to a tensor, or a tuple of tensors.
        examples: Its arguments.

    Raises:
        NotTraceable: It looks at values of tensors, or draws random numbers.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # takes a second: only where something is traced

    def plain(*arguments: Tensor) -> Any:  # of a method `make_fx` counts the owner too
        return function(*arguments)

    try:
        graph = make_fx(plain)(*(example.detach().clone() for example in examples))
    except Exception as error:
        reason = str(error).strip().splitlines()
        if reason and "get value out of a tracing tensor" in reason[0]:
            raise NotTraceable("what it does depends on values of tensors") from error
        raise NotTraceable(f"{type(error).__name__} {reason[0] if reason else ''}".rstrip()) from error
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise NotTraceable(f"it draws random numbers, by {node.target}")
    return graph
