"""Rows that begin with a time coordinate: taken apart, put together, and changed at one of the two parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import fx

from ...graph.parts import Part, interval
from ...graph.shapes import same_size, same_sizes
from ..rows.forms import ONE, Form
from .values import ROW, WHOLE, Axes, Label, NotRowwise, Value, combine, tensor

if TYPE_CHECKING:
    from .evaluate import Evaluator


def is_time(part: Part) -> bool:
    """Whether a part is the first entry of rows along the last dimension."""
    source, dim, first, last, _ = part
    return dim == tensor(source).ndim - 1 and first == 0 and same_size(last, 1) and _is_long(source)


def is_space(part: Part) -> bool:
    """Whether a part is all but the first entry of rows along the last dimension, two of them at least."""
    source, dim, first, last, _ = part
    size = tensor(source).shape[dim]
    return dim == tensor(source).ndim - 1 and first == 1 and same_size(last, size) and _is_long(source)


def _is_long(node: fx.Node) -> bool:
    """Whether rows have two space components at least: one alone would broadcast."""
    size = tensor(node).shape[-1]
    return not isinstance(size, int) or size > 2


def _full(value: Value, node: fx.Node) -> list[Label]:
    return [None] * (tensor(node).ndim - len(value.axes)) + list(value.axes)


def _part(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    """The time of a row or its space components; all of a value that is constant there."""
    if "self" in given and same_sizes(tensor(given["self"]).shape, tensor(node).shape):
        return evaluator.value(given["self"])
    part = interval(node)
    if part is None:
        raise NotRowwise("a part of the rows")
    source, dim, _, _, keeps = part
    value = evaluator.value(source)
    axes = _full(value, source)
    if axes[dim] is None:
        return Value(value.form, tuple(axes if keeps else axes[:dim] + axes[dim + 1 :]))
    if axes[dim] != WHOLE or not (is_time(part) or is_space(part)):
        raise NotRowwise("a part of the rows")
    time, space = evaluator.algebra.parted(value.form)
    if is_time(part):
        return Value(time, tuple(axes[:dim] + [None] * keeps + axes[dim + 1 :]))
    return Value(space, (*axes[:-1], ROW))


def together(evaluator: Evaluator, time: Value, space: Value) -> tuple[Form, Axes]:
    """The row whose time and space components are given."""
    algebra = evaluator.algebra
    degrees = {algebra.degree(monomial) for monomial, _ in space.form}
    if len(degrees) > 1 or any(algebra.degree(monomial) for monomial, _ in time.form):
        raise NotRowwise("time and space components of no row")
    degree = degrees.pop() if degrees else 1
    axes = combine(time, Value(space.form, tuple(None if a == ROW else a for a in space.axes)))
    if not degree:  # constant along the space components
        if ROW in space.axes:
            raise NotRowwise("a row of numbers")
        form = algebra.multiply(algebra.mask, space.form)
        if len(time.form):
            raise NotRowwise("a row of numbers")
    else:
        unit = algebra.power(algebra.time_axis, degree)
        form = algebra.add(algebra.multiply(unit, time.form) if len(time.form) else time.form, space.form)
    return form, (*axes[:-1], WHOLE)


def _cat(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    parts = given["tensors"]
    rank = tensor(node).ndim
    if len(parts) != 2 or (given.get("dim", -1) % rank) != rank - 1:
        raise NotRowwise("rows put together of other parts than a time and space components")
    first, second = parts
    if not same_size(tensor(first).shape[-1], 1) or not _rest(second):
        raise NotRowwise("rows put together of other parts than a time and space components")
    time, space = _number(evaluator, first), evaluator.value(second)
    if space.form.number is None and space.axes[-1:] != (ROW,):
        raise NotRowwise("rows put together of other parts than a time and space components")
    return Value(*together(evaluator, time, space))


def _rest(node: fx.Node) -> bool:
    return not same_size(tensor(node).shape[-1], 1)


def _number(evaluator: Evaluator, node: fx.Node) -> Value:
    value = evaluator.value(node)
    if any(label in (ROW, WHOLE) for label in value.axes):
        raise NotRowwise("a time that is no number of each row")
    return value


def _pad(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    """One entry in front of each row."""
    if list(given["pad"]) != [1, 0] or given.get("mode", "constant") != "constant":
        raise NotRowwise("a padding that is no time coordinate")
    value = evaluator.value(given["self"])
    if value.axes[-1:] != (ROW,) or not _rest(given["self"]):
        raise NotRowwise("a padding that is no time coordinate")
    fill = evaluator.number(given.get("value")) or 0.0
    return Value(*together(evaluator, Value(evaluator.algebra.scale(ONE, fill)), value))


PARTS: dict[str, Callable[..., Value]] = {
    **dict.fromkeys(("slice", "narrow", "select", "getitem"), _part),
    **dict.fromkeys(("cat", "concat", "concatenate"), _cat),
    "hstack": _cat,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
}
