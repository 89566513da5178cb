"""Carries by indices: look-ups, gathers, and sums of what is sent to each place, as message passing writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.emit import Emitter
from ...graph.nodes import val
from ...graph.shapes import expression
from ..algebra.readings import Moves, Narrow
from ..algebra.values import Value
from .mixing import is_zero
from .spread import narrow
from .views import again, resized

aten = torch.ops.aten
_BASES = (aten.zeros, aten.new_zeros, aten.zeros_like, aten.full, aten.new_full, aten.full_like)
_ADDING = ("sum", "add", "mean")
Emitted = Callable[[Emitter, fx.Node, int], fx.Node]


def _base(node: fx.Node, axis: int, base: Any) -> dict[str, Any] | None:
    """What emits the zeros that something is added to, for features of another width; None where it is no zeros."""
    if not isinstance(base, fx.Node) or packet(base) not in _BASES or not is_zero(base):
        return None
    if val(base).dtype != val(node).dtype:
        return None

    def zeros(emit: Any, tensor: fx.Node, width: int) -> fx.Node:
        sizes = [width if place == axis else _size(emit, base, place) for place in range(val(node).dim())]
        value = val(tensor).new_zeros(resized(node, axis, width))
        return emit.insert(aten.new_zeros.default, (tensor, sizes), {}, value)

    return {"self": zeros}


def _size(emit: Any, base: fx.Node, place: int) -> Any:
    """The size of zeros along an axis, as a number or a node that needs no zeros."""
    size = expression(val(base).shape[place])
    if isinstance(size, int):
        return size
    given = named_arguments(base)
    if "size" in given:
        return given["size"][place]
    value = val(given["self"]).shape[place]
    return emit.insert(aten.sym_size.int, (given["self"], place), {}, value)


def _spread(index: Any, axis: int, node: fx.Node) -> tuple[Narrow, Emitted] | None:
    """Indices that are the same for all features, and what emits them for another width; None where they differ."""
    if not isinstance(index, fx.Node) or axis >= val(index).dim():
        return None
    if expression(val(index).shape[axis]) != expression(val(node).shape[axis]):
        return None
    found = narrow(index, axis)
    if found is None:
        return None
    one = found

    def spread(emit: Emitter, tensor: fx.Node, width: int) -> fx.Node:
        source = one.emit(emit)
        sizes = [width if place == axis else -1 for place in range(val(source).dim())]
        shape, strides = list(val(source).shape), list(val(source).stride())
        shape[axis], strides[axis] = width, 0
        value = val(source).new_empty_strided(shape, strides)
        return emit.insert(aten.expand.default, (source, sizes), {}, value)

    return found, spread


def _gather(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source, index = given["self"], given["index"]
    spread = _spread(index, axis, node)
    if spread is None or given["dim"] % val(source).dim() == axis or given.get("sparse_grad"):
        return None
    narrowed, wide = spread
    replay = again(node, axis, index=wide)
    return Moves(
        node, Value(source, axis), replay, beside=narrowed.bases, through=narrowed.through, looks_up=True
    )


def _scatter(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`zeros.scatter_add(dim, index, value)`, and `scatter_reduce` with a sum or a mean."""
    value, index = given["src"], given["index"]
    base, spread = _base(node, axis, given["self"]), _spread(index, axis, node)
    if base is None or spread is None or given.get("reduce", "sum") not in _ADDING:
        return None
    if not isinstance(value, fx.Node) or given["dim"] % val(value).dim() == axis:
        return None
    narrowed, wide = spread
    replay = again(node, axis, "src", index=wide, **base)
    return Moves(
        node,
        Value(value, axis),
        replay,
        preserves=False,
        beside=narrowed.bases,
        through=narrowed.through,
    )


def _index_add(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`zeros.index_add(dim, index, value)`, and `index_reduce` with a mean."""
    value, index = given["source"], given["index"]
    base = _base(node, axis, given["self"])
    if base is None or given.get("reduce", "sum") not in _ADDING or isinstance(given.get("alpha"), fx.Node):
        return None
    if not isinstance(value, fx.Node) or given["dim"] % val(node).dim() == axis:
        return None
    replay = again(node, axis, "source", **base)
    return Moves(node, Value(value, axis), replay, preserves=False, beside=(index,))


def _segments(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`segment_reduce` with a sum or a mean, along its first axis."""
    value = given["data"]
    if given["reduce"] not in _ADDING or given.get("axis", 0) != 0 or axis == 0:
        return None
    if given.get("initial") is not None:
        return None
    beside = tuple(each for each in map(given.get, ("lengths", "indices", "offsets")) if each is not None)
    # The mean of no entries is NaN.
    return Moves(node, Value(value, axis), again(node, axis, "data"), preserves=False, beside=beside)


def _indexed(indices: Any) -> tuple[list[int], int, bool] | None:
    """The axes that advanced indices are for, the rank of their result, and whether the axes lie side by side."""
    places = [place for place, index in enumerate(indices) if index is not None]
    tensors = [indices[place] for place in places]
    if not places or any(val(each).dtype in (torch.bool, torch.uint8) for each in tensors):
        return None
    together = places == list(range(places[0], places[-1] + 1))
    return places, max(val(each).dim() for each in tensors), together


def _before_indexing(indices: Any, axis: int, rank: int) -> int | None:
    """The axis of what is indexed, of `rank` axes, that an axis of the result is; None for one of the indices' own."""
    found = _indexed(indices)
    if found is None:
        return None
    places, own, together = found
    start = places[0] if together else 0
    if start <= axis < start + own:
        return None
    left = [place for place in range(rank) if place not in places]
    return left[axis if axis < start else axis - own]


def _index(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    source, indices = given["self"], given["indices"]
    before = _before_indexing(indices, axis, val(source).dim())
    if before is None:
        return None
    beside = tuple(index for index in indices if index is not None)
    return Moves(node, Value(source, before), again(node, axis), beside=beside, looks_up=True)


def _index_put(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`zeros.index_put(indices, value, accumulate=True)`."""
    value, indices = given["values"], given["indices"]
    base, found = _base(node, axis, given["self"]), _indexed(indices)
    if base is None or found is None or not given["accumulate"] or axis in found[0]:
        return None
    rank = val(node).dim() - len(found[0]) + found[1]
    if val(value).dim() != rank:
        return None
    inside = [place for place in range(rank) if _before_indexing(indices, place, val(node).dim()) == axis]
    if len(inside) != 1 or expression(val(value).shape[inside[0]]) != expression(val(node).shape[axis]):
        return None
    beside = tuple(index for index in indices if index is not None)
    replay = again(node, axis, "values", **base)
    return Moves(node, Value(value, inside[0]), replay, preserves=False, beside=beside)


def _embedding(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """Rows of a table. What is done to it before is a weight's gradient too, so that its row without one is told."""
    table, row = given["weight"], given["padding_idx"]
    if axis != val(node).dim() - 1:
        return None
    replay = again(node, axis, "weight", padding_idx=lambda emit, tensor, width: -1)
    detached = None if row < 0 else row
    beside = (given["indices"],)
    return Moves(node, Value(table, 1), replay, beside=beside, looks_up=True, detached=detached)


READERS = {
    aten.gather: _gather,
    aten.scatter_add: _scatter,
    aten.scatter_reduce: _scatter,
    aten.index_add: _index_add,
    aten.index_reduce: _index_add,
    aten.segment_reduce: _segments,
    aten.index: _index,
    aten.index_put: _index_put,
    aten.embedding: _embedding,
}
