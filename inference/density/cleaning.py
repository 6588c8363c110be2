"""Graphs of tensor operations without what they need not do."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

aten = torch.ops.aten

VIEWS = {
    aten.alias.default,
    aten.detach.default,
    aten.expand.default,
    aten.permute.default,
    aten.squeeze.dim,
    aten.t.default,
    aten.transpose.int,
    aten.unsqueeze.default,
    aten.view.default,
    aten._unsafe_view.default,
}
"""What shows the whole of its argument, from the same place in memory on, in another shape."""
COPIES = {aten.clone.default, aten._to_copy.default, aten.lift_fresh_copy.default}
SHAPED = {
    aten.full_like.default,
    aten.new_full.default,
    aten.new_ones.default,
    aten.new_zeros.default,
    aten.ones_like.default,
    aten.zeros_like.default,
}
"""What looks at the shape of its argument alone."""
RESHAPES = {aten.view.default, aten._unsafe_view.default}


def is_pure(graph: GraphModule) -> bool:
    """Whether every operation is known to change nothing in place."""
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            schema = getattr(node.target, "_schema", None)
            if schema is None or schema.is_mutable:
                return False
    return all(node.op in ("placeholder", "get_attr", "call_function", "output") for node in graph.graph.nodes)


def cleaned(graph: GraphModule, *examples: Tensor) -> GraphModule:
    """The same function of tensors of the shapes of the examples, with fewer operations.

    What depends on no argument is computed once, and kept; equal operations are done once; views that lead back to
    where they began, copies in the same layout and what nobody asks for are left out. The graph is changed in place,
    and left alone when an operation changes something in place.

    Args:
        graph: What `traced` gave.
        examples: Arguments.
    """
    if not is_pure(graph):
        return graph
    values = values_of(graph, examples)
    _fold(graph, values)
    _drop_dead(graph)
    _share(graph)
    values = values_of(graph, examples)
    _shorten_views(graph, values)
    _drop_dead(graph)
    _share(graph)
    _drop_dead(graph)
    graph.graph.lint()
    graph.recompile()
    return graph


def values_of(graph: GraphModule, examples: tuple[Tensor, ...]) -> dict[Node, Any]:
    """What every node gives at the examples."""
    run = Interpreter(graph, garbage_collect_values=False)
    with torch.no_grad():
        run.run(*examples)
    return run.env


def _drop_dead(graph: GraphModule) -> None:
    for node in reversed(list(graph.graph.nodes)):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.graph.erase_node(node)


def fixed_nodes(graph: GraphModule) -> set[Node]:
    """What depends on no argument and on nothing random."""
    fixed: set[Node] = set()
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            continue
        if node.op == "get_attr" or (
            node.op == "call_function" and (node.target in SHAPED or all(n in fixed for n in node.all_input_nodes))
        ):
            fixed.add(node)
    return fixed


def _fold(graph: GraphModule, values: dict[Node, Any]) -> None:
    """Keep what depends on no argument as a buffer."""
    fixed = fixed_nodes(graph)
    kept = [
        n for n in graph.graph.nodes if n in fixed and isinstance(values[n], Tensor) and not n.users.keys() <= fixed
    ]
    for index, node in enumerate(kept):
        name = f"kept_{index}"
        graph.register_buffer(name, values[node].detach())
        with graph.graph.inserting_before(node):
            constant = graph.graph.get_attr(name)
        values[constant] = values[node]
        node.replace_all_uses_with(constant)


def _share(graph: GraphModule) -> None:
    """Do equal operations once."""
    seen: dict[Any, Node] = {}
    for node in list(graph.graph.nodes):
        if node.op not in ("call_function", "get_attr"):
            continue
        first = seen.setdefault((node.op, node.target, _key(node.args), _key(node.kwargs)), node)
        if first is not node:
            node.replace_all_uses_with(first)
            graph.graph.erase_node(node)


def _key(argument: Any) -> Any:
    """An argument as a key: 1, 1.0 and True are equal but not the same."""
    if isinstance(argument, list | tuple):
        return tuple(_key(each) for each in argument)
    if isinstance(argument, dict):
        return tuple((name, _key(each)) for name, each in argument.items())
    if isinstance(argument, float):
        return ("float", argument.hex())
    return argument if isinstance(argument, Node) else (type(argument), argument)


def _shorten_views(graph: GraphModule, values: dict[Node, Any]) -> None:
    """Take the first of equal views of one tensor, the argument for a copy that looks like it, and one view for two."""
    root: dict[Node, Node] = {}
    seen: dict[Any, Node] = {}

    def look(node: Node) -> Any:
        value = values[node]
        return value.shape, value.stride(), value.dtype, value.device

    for node in list(graph.graph.nodes):
        if not isinstance(values.get(node), Tensor) or node.op == "output":
            continue
        source = node.args[0] if node.op == "call_function" and node.args else None
        if isinstance(source, Node) and node.target in COPIES and look(source) == look(node):
            node.replace_all_uses_with(source)
            continue
        if isinstance(source, Node) and node.target in RESHAPES and source.target in RESHAPES:
            node.update_arg(0, source.args[0])
            source = source.args[0]
        root[node] = root[source] if isinstance(source, Node) and node.target in VIEWS else node
        first = seen.setdefault((root[node], look(node)), node)
        if first is not node:
            node.replace_all_uses_with(first)
