"""Sizes that a graph reads off an intermediate of a chain, read off the chain's input instead."""

from __future__ import annotations

import operator

import torch
from torch import fx

from ..arguments import packet
from ..rewrite import val
from ..shapes import expression, product

aten = torch.ops.aten


def reads(node: fx.Node, *, of: fx.Node) -> bool:
    """Whether a node only reads a size, and one that the leading dimensions of `of` hold as well."""
    return packet(node) is aten.sym_size and _range(node, of) is not None


def move(node: fx.Node, operand: fx.Node) -> None:
    """Let a size node that satisfies `reads` read the same size off `operand`; it keeps its name."""
    found = _range(node, operand)
    assert found is not None
    start, stop = found
    graph = node.graph
    with graph.inserting_before(node):
        size: fx.Node | None = None
        for axis in range(start, stop - 1):
            read = graph.call_function(aten.sym_size.int, (operand, axis))
            read.meta["val"] = val(operand).shape[axis]
            size = read if size is None else _times(graph, size, read)
        if size is None:
            node.args, node.kwargs = (operand, start), {}
            return
        last = graph.call_function(aten.sym_size.int, (operand, stop - 1))
        last.meta["val"] = val(operand).shape[stop - 1]
    node.target, node.args, node.kwargs = operator.mul, (size, last), {}


def _times(graph: fx.Graph, left: fx.Node, right: fx.Node) -> fx.Node:
    node = graph.call_function(operator.mul, (left, right))
    node.meta["val"] = left.meta["val"] * right.meta["val"]
    return node


def _range(node: fx.Node, operand: fx.Node) -> tuple[int, int] | None:
    """The neighbouring leading dimensions of `operand` whose product is the size that a node reads."""
    wanted = expression(node.meta["val"])
    lead = val(operand).shape[:-1]
    for length in range(1, len(lead) + 1):
        for start in range(len(lead) - length + 1):
            if product(lead[start : start + length]) == wanted:
                return start, start + length
    return None
