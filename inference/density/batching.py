"""Graphs of tensor operations in a form that `torch.func.vmap` can batch."""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from torch.fx import GraphModule

from .cleaning import RESHAPES, is_pure

aten = torch.ops.aten


def without_mutation(graph: GraphModule, *examples: Tensor) -> GraphModule:
    """The same function with nothing changed in place, or the graph itself where that cannot be had.

    The kernels of Dirichlet rows write into memory of their own, in single precision.

    Args:
        graph: What `traced` gave.
        examples: Arguments.
    """
    if is_pure(graph):
        return graph
    from torch.fx.experimental.proxy_tensor import make_fx

    try:
        with torch.no_grad():
            found = make_fx(torch.func.functionalize(graph, remove="mutations"))(*(e.clone() for e in examples))
    except Exception:  # it changes what is not its own
        return graph
    for node in found.graph.nodes:
        if node.target is aten.fill.Scalar:  # has no rule; its argument is looked at for its shape alone
            node.target = aten.full_like.default
    found.recompile()
    return found


def batchable(graph: GraphModule) -> GraphModule:
    """A copy that takes other strides than those that were seen: a batch may lie across the axes that a view joins."""
    found = copy.deepcopy(graph)
    for node in found.graph.nodes:
        if node.target in RESHAPES:
            node.target = aten.reshape.default
    found.recompile()
    return found
