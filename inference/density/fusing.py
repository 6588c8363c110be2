"""Graphs as a compiler makes quick work of them: few and larger matrix products, and plain operations around them.

Each product of small matrices costs about the same whatever it does, and a compiler fuses what is elementwise, but not
into products.
"""

from __future__ import annotations

import copy
import functools
import itertools
import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from .cleaning import RESHAPES, cleaned, values_of

aten = torch.ops.aten

LARGEST = 256
"""Products over more than this are large enough by themselves."""

SHORT = 16
"""Fewer columns than this are a short row."""

DENSE: dict[str, Any] = {"memory_format": torch.contiguous_format}
"""As products are, for the views that follow."""

Shapes = dict[Any, torch.Size]


def fused(graph: GraphModule, *examples: Tensor) -> GraphModule:
    """The same function to rounding, of tensors of the shapes of the examples.

    Args:
        graph: What `cleaned` gave; it is copied.
        examples: Arguments.
    """
    graph = copy.deepcopy(graph)
    for change in (_plain_norms, _biases_outside, _shared_factors, _sums_of_products, _long_rows):
        shapes = {n: v.shape for n, v in values_of(graph, examples).items() if isinstance(v, Tensor)}
        change(graph.graph, shapes)
        _put_in_order(graph.graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return cleaned(graph, *examples)


def _put_in_order(graph: Graph) -> None:
    """Move every node behind what it is computed from, and otherwise leave it where it is."""
    order: list[Node] = []
    done: set[Node] = set()
    for last in list(graph.nodes):
        ahead = [last]
        while ahead:
            node = ahead[-1]
            waiting = [source for source in node.all_input_nodes if source not in done]
            ahead += reversed(waiting)
            if not waiting:
                ahead.pop()
                if node not in done:
                    done.add(node)
                    order.append(node)
    for before, node in itertools.pairwise(order):
        before.append(node)


def _calls(graph: Graph, target: Any) -> list[Node]:
    return [node for node in graph.nodes if node.op == "call_function" and node.target is target]


def _plain_norms(graph: Graph, shapes: Shapes) -> None:
    """Layer normalisation by means, which are quicker here than a running variance."""
    for node in _calls(graph, aten.native_layer_norm.default):
        x, over, weight, bias, eps = node.args
        axes = list(range(-len(over), 0))  # type: ignore[arg-type]
        with graph.inserting_before(node):
            mean = graph.call_function(aten.mean.dim, (x, axes, True))
            centred = graph.call_function(aten.sub.Tensor, (x, mean))
            square = graph.call_function(aten.mul.Tensor, (centred, centred))
            variance = graph.call_function(aten.mean.dim, (square, axes, True))
            inverse = graph.call_function(aten.rsqrt.default, (graph.call_function(aten.add.Tensor, (variance, eps)),))
            found = graph.call_function(aten.mul.Tensor, (centred, inverse))
            for target, factor in ((aten.mul.Tensor, weight), (aten.add.Tensor, bias)):
                found = found if factor is None else graph.call_function(target, (found, factor))
        for user in list(node.users):
            user.replace_all_uses_with((found, mean, inverse)[user.args[1]])  # type: ignore[index]


def _biases_outside(graph: Graph, shapes: Shapes) -> None:
    """Add a bias behind the view of a product, where it is part of what follows, and not within the product."""
    for node in _calls(graph, aten.addmm.default):
        bias, one, other = node.args
        if node.kwargs or len(shapes[bias]) != 1:
            continue
        width, views = shapes[bias].numel(), list(node.users)
        inner = {view: _last(shapes[view], width) for view in views if view.target in RESHAPES}
        if len(inner) < len(views) or None in inner.values():
            continue
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_function(aten.mm.default, (one, other)))
        for view in views:
            with graph.inserting_after(view):
                moved = graph.call_function(aten.add.Tensor, (view, None))
            view.replace_all_uses_with(moved, delete_user_cb=functools.partial(operator.is_not, moved))
            with graph.inserting_before(moved):
                shaped = graph.call_function(aten.view.default, (bias, inner[view]))
            moved.args = (view, shaped)


def _last(shape: torch.Size, width: int) -> list[int] | None:
    """The last axes of a shape that together hold so many numbers; None if there are none such."""
    for count in range(1, len(shape) + 1):
        if shape[-count:].numel() == width:
            return list(shape[-count:])
    return None


def _independent(nodes: list[Node]) -> bool:
    """Whether none of some nodes is computed from another."""
    wanted, seen, ahead = set(nodes), set(nodes), [source for node in nodes for source in node.all_input_nodes]
    while ahead:
        node = ahead.pop()
        if node in wanted:
            return False
        if node not in seen:
            seen.add(node)
            ahead += node.all_input_nodes
    return True


def _shared_factors(graph: Graph, shapes: Shapes) -> None:
    """One product in the place of several that have a factor in common: `A B_i`, and `A_i B`."""
    for place in (0, 1):
        axis, groups = 1 - place, dict[Any, list[Node]]()
        for node in _calls(graph, aten.mm.default):
            if node.users and node in shapes and shapes[node][axis] <= LARGEST:
                groups.setdefault(node.args[place], []).append(node)
        for nodes in groups.values():
            if len(nodes) > 1 and _independent(nodes):
                with graph.inserting_before(nodes[0]):
                    others = _beside(graph, [node.args[1 - place] for node in nodes], axis)
                    factors = (nodes[0].args[0], others) if place == 0 else (others, nodes[0].args[1])
                    whole = graph.call_function(aten.mm.default, factors)
                    sizes = [shapes[node][axis] for node in nodes]
                    parts = graph.call_function(aten.split_with_sizes.default, (whole, sizes, axis))
                    for index, node in enumerate(nodes):
                        part = graph.call_function(operator.getitem, (parts, index))
                        node.replace_all_uses_with(graph.call_function(aten.clone.default, (part,), DENSE))


def _beside(graph: Graph, matrices: list[Any], axis: int) -> Node:
    """Matrices next to each other; transposed ones are put together as they lie, which another product may share."""
    if all(each.target is aten.t.default for each in matrices):
        return graph.call_function(aten.t.default, (_beside(graph, [each.args[0] for each in matrices], 1 - axis),))
    return graph.call_function(aten.cat.default, (matrices, axis))


def _sums_of_products(graph: Graph, shapes: Shapes) -> None:
    r""":math:`A_1 B_1 + A_2 B_2 = [A_1, A_2] [B_1; B_2]`, also behind views."""
    for node in reversed(_calls(graph, aten.add.Tensor)):
        products: list[Node] = []
        others: list[Node] = []
        ahead = [node]
        while ahead:
            found = ahead.pop()
            if _is_sum(found) and (found is node or len(found.users) == 1) and shapes[found] == shapes[node]:
                ahead += reversed(found.args)  # type: ignore[arg-type]
            else:
                (products if _product(found, shapes) is not None else others).append(found)
        if len(products) < 2 or len({shapes[_product(each, shapes)] for each in products}) > 1:
            continue
        factors = [_product(each, shapes).args for each in products]  # type: ignore[union-attr]
        with graph.inserting_before(node):
            left = _beside(graph, [one for one, _ in factors], 1)
            right = _beside(graph, [other for _, other in factors], 0)
            whole = graph.call_function(aten.mm.default, (left, right))
            total = graph.call_function(aten.view.default, (whole, list(shapes[node])))
            for other in others:
                total = graph.call_function(aten.add.Tensor, (total, other))
        node.replace_all_uses_with(total)


def _long_rows(graph: Graph, shapes: Shapes) -> None:
    r""":math:`A B = (B^\top A^\top)^\top` where rows of the result are short: many small ones take half the time."""
    for node in _calls(graph, aten.bmm.default):
        rows, columns = shapes[node][1:]
        if columns < min(rows, SHORT):
            with graph.inserting_before(node):
                one, other = (graph.call_function(aten.transpose.int, (each, 1, 2)) for each in node.args)
                turned = graph.call_function(aten.bmm.default, (other, one))
                back = graph.call_function(aten.transpose.int, (turned, 1, 2))
                node.replace_all_uses_with(graph.call_function(aten.clone.default, (back,), DENSE))


def _is_sum(node: Node) -> bool:
    return node.target is aten.add.Tensor and not node.kwargs and all(isinstance(each, Node) for each in node.args)


def _product(node: Node, shapes: Shapes) -> Node | None:
    """The small product that a node is or shows in another shape, and nothing else uses; None if it is none such."""
    while node.target in RESHAPES and len(node.users) == 1:
        node = node.args[0]  # type: ignore[assignment]
    if node.target is not aten.mm.default or len(node.users) != 1:
        return None
    return node if shapes[node.args[0]][1] <= LARGEST else None
