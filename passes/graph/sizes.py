"""Sizes that a graph reads off an intermediate of a region, read off what the region is given instead."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence

import torch
from torch import fx

from .arguments import packet
from .nodes import val
from .shapes import expression, product

aten = torch.ops.aten


def is_size(node: fx.Node) -> bool:
    """Whether a node only reads a size."""
    return packet(node) is aten.sym_size


def unfindable(nodes: Iterable[fx.Node], given: Sequence[fx.Node]) -> fx.Node | None:
    """The first size read off one of `nodes` that the sizes of `given` do not tell; None if they tell all."""
    for node in nodes:
        for user in node.users:
            if is_size(user) and _find(user, given) is None:
                return user
    return None


def move(nodes: Iterable[fx.Node], given: Sequence[fx.Node]) -> None:
    """Let every size that is read off one of `nodes` be read off `given` instead; it keeps its name."""
    for node in nodes:
        for user in list(node.users):
            if is_size(user):
                _move(user, given)


def _move(node: fx.Node, given: Sequence[fx.Node]) -> None:
    found = _find(node, given)
    assert found is not None
    operand, start, stop = found
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


def _find(node: fx.Node, given: Sequence[fx.Node]) -> tuple[fx.Node, int, int] | None:
    """A given value, and the neighbouring axes of it whose sizes multiply to the size that a node reads."""
    wanted = expression(node.meta["val"])
    for operand in given:
        if not operand < node:  # it is computed only later
            continue
        shape = val(operand).shape
        for length in range(1, len(shape) + 1):
            for start in range(len(shape) - length + 1):
                if product(shape[start : start + length]) == wanted:
                    return operand, start, start + length
    return None
