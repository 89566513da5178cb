"""Values that are the same for all features though they hold one for each, computed again for a single feature.

Masks are often expanded to the shape of what they scale before they are converted, summed and clamped. As what carries
features along carries one of them as well, and what is done to each entry by itself gives equal entries for equal
ones, such a value is that of one feature, expanded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ...graph.arguments import is_operator, named_arguments, packet
from ...graph.emit import Emitter
from ...graph.nodes import val
from ...graph.shapes import expression, same_sizes
from ..algebra.readings import Narrow
from . import axes, resampling, views
from .views import resized

aten = torch.ops.aten
# A value that is computed in more steps is left as it is, so that reading takes time in line with the graph.
_MOST = 32
# Each entry comes from the same entry of the operands, as from what torch tags as pointwise.
_BY_ENTRY = (
    aten.to,
    aten._to_copy,
    aten.clone,
    aten.contiguous,
    aten.alias,
    aten.detach,
    aten.where,
    aten.masked_fill,
)
# These compute along axes that they name, and keep the others apart, but are not linear.
_ALONG = {
    **dict.fromkeys((aten.amax, aten.amin, aten.prod), axes.READERS[aten.sum]),
    **dict.fromkeys((aten.softmax, aten.log_softmax, aten.cumprod), axes.READERS[aten.cumsum]),
}
_CARRIES = {**views.READERS, **axes.READERS, **resampling.READERS, **_ALONG}
_ONES = (aten.ones, aten.ones_like, aten.new_ones)
_ZEROS = (aten.zeros, aten.zeros_like, aten.new_zeros)
_FULL = (aten.full, aten.full_like, aten.new_full)

_Place = tuple[fx.Node, int]  # a node and an axis of its value


@dataclass(frozen=True)
class _Step:
    """How a node with one feature comes from operands with one feature, and from what is there."""

    operands: tuple[_Place, ...]
    emit: Callable[[Emitter, dict[_Place, fx.Node]], fx.Node]
    bases: tuple[fx.Node, ...] = ()


def narrow(node: fx.Node, axis: int) -> Narrow | None:
    """A value as it comes with one entry along an axis; None where its entries are not known to be equal there.

    Args:
        node: the value.
        axis: of the value; negative where it has none.
    """
    if _is_narrow((node, axis)):
        return Narrow(lambda emit: node, val(node).shape, (node,))
    steps: dict[_Place, _Step] = {}
    stack: list[_Place] = [(node, axis)]
    while stack:
        place = stack.pop()
        if place in steps:
            continue
        step = _step(*place) if len(steps) < _MOST else None
        if step is None:
            return None
        steps[place] = step
        stack += [each for each in step.operands if not _is_narrow(each)]

    def emitted(emit: Emitter) -> fx.Node:
        made: dict[_Place, fx.Node] = emit.composed.setdefault("narrow", {})
        for place in sorted(steps, key=lambda place: place[0]):  # operands come first in a graph
            if place not in made:
                step = steps[place]
                given = {each: made.get(each, each[0]) for each in step.operands}
                made[place] = step.emit(emit, given)
        return made[node, axis]

    found = [each[0] for step in steps.values() for each in step.operands if _is_narrow(each)]
    bases = [*found, *(each for step in steps.values() for each in step.bases)]
    through = [each for each, _ in steps]
    shape = resized(node, axis, 1)
    return Narrow(emitted, shape, tuple(dict.fromkeys(bases)), tuple(dict.fromkeys(through)))


def _is_narrow(place: _Place) -> bool:
    node, axis = place
    return axis < 0 or expression(val(node).shape[axis]) == 1


def _step(node: fx.Node, axis: int) -> _Step | None:
    if not is_operator(node) or not isinstance(node.meta.get("val"), torch.Tensor):
        return None
    if val(node).layout != torch.strided or node.target._schema.is_mutable:  # type: ignore[union-attr]
        return None
    given = named_arguments(node)
    if packet(node) in (aten.expand, aten.expand_as, aten.repeat, aten.repeat_interleave):
        found = _expanded(node, axis, given)
        if found is not None:
            return found
    if packet(node) in (*_ONES, *_ZEROS, *_FULL):
        return _constant(node, axis, given)
    if packet(node) in _BY_ENTRY or torch.Tag.pointwise in node.target.tags:  # type: ignore[union-attr]
        return _by_entry(node, axis, given)
    reader = _CARRIES.get(packet(node))
    move = reader(node, axis, given) if reader else None
    if move is None:
        return None
    place = move.operand.node, move.operand.axis

    def again(emit: Emitter, operands: dict[_Place, fx.Node]) -> fx.Node:
        return move.replay(emit, operands[place], 1)

    return _Step((place,), again, move.beside)


def _by_entry(node: fx.Node, axis: int, given: dict[str, Any]) -> _Step | None:
    if torch.Tag.nondeterministic_seeded in node.target.tags:  # type: ignore[union-attr]
        return None
    tensors = [each for each in node.all_input_nodes if isinstance(each.meta.get("val"), torch.Tensor)]
    rank = val(node).dim()
    places = {each: (each, axis - rank + val(each).dim()) for each in tensors}

    def again(emit: Emitter, operands: dict[_Place, fx.Node]) -> fx.Node:
        def put(each: fx.Node) -> fx.Node:
            return operands[places[each]] if each in places else each

        shape, arguments = resized(node, axis, 1), fx.node.map_arg(given, put)
        if packet(node) is aten.to:  # it converts, or it would not be there
            kept = {name: arguments.get(name) for name in ("self", "non_blocking", "memory_format")}
            kind = {"dtype": val(node).dtype, "device": val(node).device}
            return emit.call_sized(aten._to_copy.default, {**kept, **kind}, shape)
        return emit.call_sized(node.target, arguments, shape)

    return _Step(tuple(places.values()), again)


def _expanded(node: fx.Node, axis: int, given: dict[str, Any]) -> _Step | None:
    """An expansion along the features, of which the one along other axes is left."""
    source = given.get("self")
    if source is None or (packet(node) is aten.repeat_interleave and not _repeats_along(node, axis, given)):
        return None
    missing = val(node).dim() - val(source).dim()
    if not _is_narrow((source, axis - missing)):
        return None
    shape = resized(node, axis, 1)
    repeats = given.get("repeats") if packet(node) is aten.repeat else None

    def again(emit: Emitter, operands: dict[_Place, fx.Node]) -> fx.Node:
        if same_sizes(val(source).shape, shape):
            return source
        if repeats is not None:
            others = [*repeats[:axis], 1, *repeats[axis + 1 :]]
            return emit.call_sized(aten.repeat.default, {"self": source, "repeats": others}, shape)
        sizes = _sizes(emit, given["size"] if "size" in given else given["other"], axis)
        before = [1] * missing + list(val(source).shape)
        strides = [0] * missing + list(val(source).stride())
        strides = [
            0 if expression(size) == 1 and expression(wanted) != 1 else stride
            for size, wanted, stride in zip(before, shape, strides, strict=True)
        ]
        value = val(source).new_empty_strided(shape, strides)
        return emit.insert(aten.expand.default, (source, sizes), {}, value)

    return _Step((), again, (source,))


def _repeats_along(node: fx.Node, axis: int, given: dict[str, Any]) -> bool:
    dim = given.get("dim")
    return dim is not None and dim % val(node).dim() == axis


def _constant(node: fx.Node, axis: int, given: dict[str, Any]) -> _Step | None:
    """A tensor of one number."""
    number = given.get("fill_value", 1 if packet(node) in _ONES else 0)
    if isinstance(number, fx.Node):
        return None
    tensor = val(node)
    kind = {"dtype": tensor.dtype, "device": tensor.device}

    def again(emit: Emitter, operands: dict[_Place, fx.Node]) -> fx.Node:
        sizes = _sizes(emit, given["size"] if "size" in given else given["self"], axis)
        return emit.insert(aten.full.default, (sizes, number), kind, tensor.new_empty(resized(node, axis, 1)))

    return _Step((), again)


def _sizes(emit: Emitter, of: Any, axis: int) -> list[Any]:
    """Sizes that are given, or those of a value, with one feature."""
    if not isinstance(of, fx.Node):
        return [*of[:axis], 1, *of[axis + 1 :]]
    found: list[Any] = []
    for place, size in enumerate(val(of).shape):
        known = 1 if place == axis else expression(size)
        if not isinstance(known, int):
            known = emit.insert(aten.sym_size.int, (of, place), {}, size)
        found.append(known)
    return found
