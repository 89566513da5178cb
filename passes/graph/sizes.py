"""Sizes that a graph reads off an intermediate of a region, read off what the region is given instead."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from .arguments import named_arguments, packet
from .nodes import val
from .shapes import expression, is_row_major, product

aten = torch.ops.aten
# These read the sizes of their only operand, or of `other`, and perhaps its dtype and device.
_LIKE = (aten.zeros_like, aten.ones_like, aten.full_like, aten.empty_like)
_NEW = (aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty)
_AS = {aten.expand_as: aten.expand.default, aten.view_as: aten.view.default}
_MADE = {
    aten.zeros_like: aten.new_zeros.default,
    aten.ones_like: aten.new_ones.default,
    aten.full_like: aten.new_full.default,
    aten.empty_like: aten.new_empty.default,
}


def is_size(node: fx.Node, of: fx.Node | None = None) -> bool:
    """Whether a node only reads sizes, of `of` where it reads something else too: a size, or zeros of that shape."""
    if packet(node) is aten.sym_size or packet(node) in _NEW:
        return True
    if packet(node) in _LIKE:
        return named_arguments(node).get("memory_format") in (None, torch.preserve_format)
    return packet(node) in _AS and of is not None and node.args[0] is not of


def unfindable(nodes: Iterable[fx.Node], given: Sequence[fx.Node]) -> fx.Node | None:
    """The first size read off one of `nodes` that the sizes of `given` do not tell; None if they tell all."""
    for node in nodes:
        for user in node.users:
            if is_size(user, node) and not _tells(user, node, given):
                return user
    return None


def _tells(user: fx.Node, node: fx.Node, given: Sequence[fx.Node]) -> bool:
    if packet(user) is aten.sym_size:
        return _find(user.meta["val"], user, given) is not None
    if packet(user) not in _AS and _alike(user, node, given) is None:
        return False
    if packet(user) in _NEW:
        return True
    if packet(user) in _LIKE and not is_row_major(val(user)):
        return False
    sizes = [size for size in val(node).shape if not isinstance(expression(size), int)]
    return all(_find(size, user, given) is not None for size in sizes)


def _alike(user: fx.Node, node: fx.Node, given: Sequence[fx.Node]) -> fx.Node | None:
    """A given value of the same dtype on the same device, which is there before `user`."""
    for other in given:
        same = val(other).dtype == val(node).dtype and val(other).device == val(node).device
        if other < user and same:
            return other
    return None


def move(nodes: Iterable[fx.Node], given: Sequence[fx.Node]) -> None:
    """Let every size that is read off one of `nodes` be read off `given` instead; it keeps its name."""
    for node in nodes:
        for user in list(node.users):
            if is_size(user, node):
                _move(user, node, given)


def _move(user: fx.Node, node: fx.Node, given: Sequence[fx.Node]) -> None:
    if packet(user) is aten.sym_size:
        _move_size(user, given)
        return
    other = _alike(user, node, given)
    named = named_arguments(user)
    if packet(user) in _NEW:
        assert other is not None
        user.args = (other, *user.args[1:])
        return
    sizes = [_emit(size, user, given) for size in val(node).shape]
    if packet(user) in _AS:
        user.target, user.args, user.kwargs = _AS[packet(user)], (user.args[0], sizes), {}
        return
    assert other is not None
    filled = [named["fill_value"]] if "fill_value" in named else []
    kept = {name: value for name, value in user.kwargs.items() if name != "memory_format"}
    user.target, user.args, user.kwargs = _MADE[packet(user)], (other, sizes, *filled), kept


def _emit(size: Any, user: fx.Node, given: Sequence[fx.Node]) -> Any:
    """A size as a number, or as a node in front of `user` that reads it off a given value."""
    if isinstance(expression(size), int):
        return expression(size)
    with user.graph.inserting_before(user):
        read = user.graph.call_function(aten.sym_size.int, (given[0], 0))
    read.meta["val"] = size
    _move_size(read, given)
    return read


def _move_size(node: fx.Node, given: Sequence[fx.Node]) -> None:
    found = _find(node.meta["val"], node, given)
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


def _find(size: Any, user: fx.Node, given: Sequence[fx.Node]) -> tuple[fx.Node, int, int] | None:
    """A given value, and the neighbouring axes of it whose sizes multiply to a size that a node reads."""
    wanted = expression(size)
    for operand in given:
        if not operand < user:  # it is computed only later
            continue
        shape = val(operand).shape
        for length in range(1, len(shape) + 1):
            for start in range(len(shape) - length + 1):
                if product(shape[start : start + length]) == wanted:
                    return operand, start, start + length
    return None
