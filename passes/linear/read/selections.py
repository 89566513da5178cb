"""Features picked, repeated, padded or averaged along their own axis: maps that need no weight."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ...graph.arguments import is_operator, named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import expression
from ..algebra.elements import Pick, Structure
from ..algebra.readings import Maps, Moves
from ..algebra.values import Value, readable

aten = torch.ops.aten
_SPLITS = (aten.split, aten.split_with_sizes, aten.chunk)
# A matrix made from nothing must not outgrow what it stands for.
_WIDEST = 8192


def read_selection(node: fx.Node, axis: int) -> Maps | Moves | None:
    """Read a node as a fixed map along `axis` of its result; None where it does nothing along that axis."""
    if node.target is operator.getitem:
        return _part(node, axis)
    if not is_operator(node):
        return None
    given = named_arguments(node)
    source = given.get("self")
    if not isinstance(source, fx.Node):
        return None
    if packet(node) is aten.slice and given["dim"] % val(source).dim() == axis:
        return _slice(node, source, axis, given["start"], given["end"], given["step"])
    if packet(node) is aten.narrow and given["dim"] % val(source).dim() == axis:
        start = given["start"]
        stop = (
            start + given["length"] if isinstance(start, int) and isinstance(given["length"], int) else None
        )
        return _slice(node, source, axis, start, stop, 1) if isinstance(stop, int) else None
    if not _along_features(node, source, axis, given):
        return None
    return _structure(node, source, axis)


def _slice(node: fx.Node, source: fx.Node, axis: int, start: Any, stop: Any, step: Any) -> Maps | None:
    if not readable(source, axis) or not all(
        value is None or isinstance(value, int) for value in (start, stop, step)
    ):
        return None
    chosen = range(int(val(source).shape[axis]))[slice(start, stop, step)]
    if not len(chosen) or len(chosen) != val(node).shape[axis]:
        return None
    pick = Pick(chosen.start, chosen.stop, chosen.step)
    return Maps(node, Value(source, axis), (pick,))


def _part(node: fx.Node, axis: int) -> Maps | Moves | None:
    """One of the pieces of a split, along the features or along another axis."""
    split, index = node.args
    if not isinstance(split, fx.Node) or packet(split) not in _SPLITS or not isinstance(index, int):
        return None
    given = named_arguments(split)
    source = given["self"]
    dim = given["dim"] % val(source).dim()
    pieces = split.meta["val"]
    sizes = [expression(piece.shape[dim]) for piece in pieces]
    if not readable(source, axis) or not all(isinstance(size, int) for size in sizes):
        return None
    index %= len(sizes)
    start = sum(sizes[:index])
    stop = start + sizes[index]
    if dim == axis:
        return _slice(node, source, axis, start, stop, 1)

    def replay(emit: Any, tensor: fx.Node, width: int) -> fx.Node:
        return emit.call(aten.slice.Tensor, {"self": tensor, "dim": dim, "start": start, "end": stop})

    return Moves(node, Value(source, axis), replay)


def _along_features(node: fx.Node, source: fx.Node, axis: int, given: dict[str, Any]) -> bool:
    """Whether a node does something along `axis`, something that is fixed, and nothing along any other."""
    rank = val(source).dim()
    if rank < 2 or val(node).dim() != rank or not readable(source, axis):
        return False
    if max(int(val(source).shape[axis]), int(val(node).shape[axis])) > _WIDEST:
        return False
    if packet(node) is aten.avg_pool1d:
        return axis == rank - 1
    if packet(node) in (aten.constant_pad_nd, aten.pad):
        pads = list(given["pad"])
        place = rank - 1 - axis
        others = pads[: 2 * place] + pads[2 * place + 2 :]
        inner = pads[2 * place : 2 * place + 2]
        plain = all(isinstance(size, int) for size in pads) and not any(others) and any(inner)
        return (
            plain
            and given.get("mode", "constant") in ("constant", "replicate", "reflect", "circular")
            and not (given.get("mode", "constant") == "constant" and (given.get("value") or 0) != 0)
        )
    if packet(node) is aten.repeat:
        repeats = given["repeats"]
        return all(
            (count != 1) if place == axis else (count == 1)
            for place, count in enumerate(repeats)
            if isinstance(count, int)
        ) and isinstance(repeats[axis], int)
    if packet(node) is aten.expand:
        return val(source).shape[axis] == 1 and all(
            expression(before) == expression(after)
            for place, (before, after) in enumerate(zip(val(source).shape, val(node).shape, strict=True))
            if place != axis
        )
    if packet(node) is aten.flip:
        return [dim % rank for dim in given["dims"]] == [axis]
    if packet(node) is aten.roll:
        return [dim % rank for dim in given["dims"]] == [axis]
    return False


def _structure(node: fx.Node, source: fx.Node, axis: int) -> Maps | None:
    inputs, outputs = int(val(source).shape[axis]), int(val(node).shape[axis])
    rank = val(source).dim()
    if val(node).dtype != val(source).dtype:
        return None
    sources = (
        _windows(node, inputs, outputs) if packet(node) is aten.avg_pool1d else _places(node, inputs, axis)
    )
    matrix = _matrix(node, inputs, rank, axis)
    return Maps(node, Value(source, axis), (Structure(inputs, outputs, sources, matrix),))


def _places(node: fx.Node, inputs: int, axis: int) -> list[tuple[int, ...]]:
    """Where each feature comes from: what the operator makes of the features' own numbers, counted from 1."""
    given = dict(named_arguments(node))
    shape = [1] * val(node).dim()
    shape[axis] = inputs
    given["self"] = torch.arange(1, inputs + 1, dtype=torch.float64, device="cpu").reshape(shape)
    if packet(node) is aten.expand:
        given["size"] = [*shape[:axis], int(val(node).shape[axis]), *shape[axis + 1 :]]
    numbers = node.target(**given).flatten().tolist()  # type: ignore[operator]
    return [(int(number) - 1,) if number else () for number in numbers]


def _windows(node: fx.Node, inputs: int, outputs: int) -> list[tuple[int, ...]]:
    """The features that each average is taken of."""
    given = named_arguments(node)
    (size,), (padding,) = given["kernel_size"], given["padding"]
    (step,) = given["stride"] or (size,)
    starts = [place * step - padding for place in range(outputs)]
    return [tuple(range(max(start, 0), min(start + size, inputs))) for start in starts]


def _matrix(node: fx.Node, inputs: int, rank: int, axis: int) -> Callable[[Any], fx.Node]:
    """The map's matrix: what the operator makes of the identity, one basis vector a row."""

    def emit_matrix(emit: Any) -> fx.Node:
        basis = 0 if axis else rank - 1
        shape = [inputs if place in (basis, axis) else 1 for place in range(rank)]
        eye = emit(aten.eye.default, inputs, dtype=torch.float64, device=val(node).device)
        given = dict(named_arguments(node))
        given["self"] = emit(aten.reshape.default, eye, shape)
        if packet(node) is aten.expand:
            given["size"] = [*shape[:axis], int(val(node).shape[axis]), *shape[axis + 1 :]]
        result = emit.call(node.target, given)
        outputs = int(val(result).shape[axis])
        if basis > axis:
            return emit(aten.reshape.default, result, [outputs, inputs])
        return emit(aten.t.default, emit(aten.reshape.default, result, [inputs, outputs]))

    return emit_matrix
