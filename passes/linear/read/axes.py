"""Carries along single axes: parts, repetitions, orders, sums and means."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ...graph.arguments import packet
from ...graph.nodes import val
from ...graph.shapes import expression
from ..algebra.readings import Moves
from ..algebra.values import Value
from .views import again

aten = torch.ops.aten
# On these the feature axis only has to be none of the axes that they name.
_ONE_AXIS = (aten.slice, aten.index_select, aten.narrow, aten.cumsum, aten.repeat_interleave)
_SOME_AXES = (aten.mean, aten.sum, aten.flip)


def _one_axis(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source, dim = given.get("self"), given.get("dim")
    if source is None or dim is None or dim % val(source).dim() == axis:
        return None
    beside = tuple(each for each in (given.get("index"), given.get("repeats")) if isinstance(each, fx.Node))
    preserves = packet(node) is not aten.cumsum
    return Moves(
        node,
        Value(source, axis),
        again(node, axis),
        preserves=preserves,
        beside=beside,
        looks_up=packet(node) is aten.index_select,
    )


def _select(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    dim = given["dim"] % val(source).dim()
    return Moves(node, Value(source, axis + (dim <= axis)), again(node, axis))


def _some_axes(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    rank = val(source).dim()
    dims = given.get("dim", given.get("dims"))
    if not isinstance(dims, list | tuple) or not dims:
        return None
    gone = sorted({dim % rank for dim in dims})
    before = axis
    if packet(node) is not aten.flip and not given.get("keepdim"):
        for dim in gone:
            before += dim <= before
    if before in gone:
        return None
    return Moves(node, Value(source, before), again(node, axis), preserves=packet(node) is not aten.sum)


def _roll(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source, dims = given["self"], given["dims"]
    if not dims or axis in [dim % val(source).dim() for dim in dims]:
        return None
    return Moves(node, Value(source, axis), again(node, axis))


def _expand(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    before = axis - (val(node).dim() - val(source).dim())
    if before < 0 or expression(val(source).shape[before]) != expression(val(node).shape[axis]):
        return None
    sizes = "size" if "size" in given else None
    return Moves(node, Value(source, before), again(node, axis, sizes=sizes))


def _repeat(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source = given["self"]
    before = axis - (val(node).dim() - val(source).dim())
    if before < 0 or given["repeats"][axis] != 1:
        return None
    return Moves(node, Value(source, before), again(node, axis))


READERS = {
    **dict.fromkeys(_ONE_AXIS, _one_axis),
    **dict.fromkeys(_SOME_AXES, _some_axes),
    aten.select: _select,
    aten.roll: _roll,
    aten.expand: _expand,
    aten.repeat: _repeat,
}
