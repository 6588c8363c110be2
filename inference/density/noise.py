"""The random numbers of a graph as arguments of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from .cleaning import fixed_nodes, values_of
from .tracing import NotTraceable

aten = torch.ops.aten

Draw = Callable[[], Tensor]

SHAPED = {
    aten.bernoulli.p,
    aten.exponential.default,
    aten.normal_functional.default,
    aten.rand_like.default,
    aten.randint_like.default,
    aten.randn_like.default,
    aten.uniform.default,
}
"""What draws numbers in the shape of its argument, whatever stands in it."""


def is_random(node: Node) -> bool:
    """Whether an operation draws random numbers."""
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def lifted(graph: GraphModule, *examples: Tensor) -> list[Draw]:
    """Make what a graph draws arguments of it, behind the others.

    Drawn in this order by torch's generator they are the numbers that the graph would have drawn. The graph is changed
    in place.

    Args:
        graph: What `traced` gave.
        examples: Arguments.

    Returns:
        What draws each of the new arguments.

    Raises:
        NotTraceable: The law of what is drawn depends on arguments.
    """
    with torch.random.fork_rng(devices=[]):
        values = values_of(graph, examples)
    fixed = fixed_nodes(graph)
    last = [node for node in graph.graph.nodes if node.op == "placeholder"][-1]
    draws: list[Draw] = []
    for node in [node for node in graph.graph.nodes if is_random(node)]:
        if not all(source in fixed for source in node.all_input_nodes) and node.target not in SHAPED:
            raise NotTraceable(f"it draws random numbers whose law depends on others, by {node.target}")

        def given(source: Node, shape_alone: bool = node.target in SHAPED) -> Tensor:
            return torch.empty_like(values[source]) if shape_alone else values[source].detach()

        draws.append(_draw(node, map_arg(node.args, given), map_arg(node.kwargs, given)))
        with graph.graph.inserting_after(last):
            last = graph.graph.placeholder(f"drawn_{len(draws)}")
        node.replace_all_uses_with(last)
        graph.graph.erase_node(node)
    graph.graph.lint()
    graph.recompile()
    return draws


def _draw(node: Node, args: Any, kwargs: Any) -> Draw:
    target = node.target
    assert callable(target)

    def draw() -> Tensor:
        found: Tensor = target(*args, **kwargs)
        return found

    return draw
