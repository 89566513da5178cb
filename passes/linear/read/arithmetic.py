"""Shifts and scales of features, in additions, multiplications and normalisations by stored statistics."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx

from ...graph.arguments import is_operator, named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import expression, same_size, same_sizes
from ..algebra.elements import Deviation, Element, Scale, Shift, feature_value
from ..algebra.readings import Adds, Maps
from ..algebra.values import LABELLED, Value, readable

aten = torch.ops.aten
_ARITHMETIC = (aten.add, aten.sub, aten.rsub, aten.mul, aten.div, aten.neg)
_BATCH_NORMS = (aten.batch_norm, aten._native_batch_norm_legit_no_training)


def read_affine(node: fx.Node, axis: int, fixed: Collection[fx.Node]) -> Maps | Adds | None:
    """Read a node as a shift or scale of features, or as a sum of values; None where it is neither.

    Args:
        node: the node.
        axis: the feature axis of its result.
        fixed: the nodes that depend on weights alone.
    """
    if packet(node) not in _ARITHMETIC:
        return None
    given = named_arguments(node)
    if given.get("rounding_mode") is not None:
        return None
    left: Any = given["self"]
    right: Any = given.get("other")
    alpha = given.get("alpha", 1)
    if isinstance(alpha, fx.Node):
        return None
    if packet(node) is aten.neg:
        return _maps(node, axis, fixed, left, Scale(-1.0))
    if _continues(left, fixed) and _continues(right, fixed):
        return _sum(node, axis, left, right, alpha)
    if _continues(left, fixed):
        return _maps(node, axis, fixed, left, *_with_value_on_the_left(node, right, alpha))
    if _continues(right, fixed):
        return _maps(node, axis, fixed, right, *_with_value_on_the_right(node, left, alpha))
    return None


def read_batch_norm(node: fx.Node, axis: int) -> Maps | None:
    """Read a batch norm that uses its running statistics: `(x - mean) / sqrt(variance + eps) * weight + bias`."""
    if packet(node) not in _BATCH_NORMS or axis != 1:
        return None
    given = named_arguments(node)
    mean, variance = given.get("running_mean"), given.get("running_var")
    if given.get("training", False) or mean is None or variance is None:
        return None
    elements: list[Element] = [
        Shift(mean, -1.0),
        Scale(Deviation(variance, float(given["eps"])), inverse=True),
    ]
    if given["weight"] is not None:
        elements.append(Scale(given["weight"]))
    if given["bias"] is not None:
        elements.append(Shift(given["bias"]))
    return Maps(node, Value(given["input"], axis), tuple(elements))


def _with_value_on_the_left(node: fx.Node, other: Any, alpha: Any) -> tuple[Element, ...]:
    if packet(node) is aten.add:
        return (Shift(other, float(alpha)),)
    if packet(node) is aten.sub:
        return (Shift(other, -float(alpha)),)
    if packet(node) is aten.rsub:  # other - alpha * self
        return (Scale(-float(alpha)), Shift(other))
    return (Scale(other, inverse=packet(node) is aten.div),)


def _with_value_on_the_right(node: fx.Node, other: Any, alpha: Any) -> tuple[Element, ...]:
    if packet(node) is aten.add:
        return (Scale(float(alpha)), Shift(other))
    if packet(node) is aten.sub:
        return (Scale(-float(alpha)), Shift(other))
    if packet(node) is aten.mul:
        return (Scale(other),)
    return ()  # other / value, and other's rsub, are not affine in value


def read_table_sum(node: fx.Node, axis: int, is_table: Callable[[Value], bool]) -> Adds | None:
    """Read the sum of a value and of one that comes from weights alone, perhaps with fewer rows: positions, say.

    Args:
        node: the node.
        axis: the feature axis of its result.
        is_table: whether a value comes from weights alone.
    """
    if packet(node) not in (aten.add, aten.sub) or axis == LABELLED:
        return None
    given = named_arguments(node)
    places, alpha = [given["self"], given["other"]], given.get("alpha", 1)
    if isinstance(alpha, fx.Node) or not all(
        isinstance(each, fx.Node) and isinstance(each.meta.get("val"), torch.Tensor) for each in places
    ):
        return None
    shape = val(node).shape
    values = [Value(each, axis - (len(shape) - val(each).dim())) for each in places]
    for full, table in (values, values[::-1]):
        whole = same_sizes(val(full.node).shape, shape)
        if not whole or table.axis < 0 or not readable(table.node, table.axis):
            continue
        if table.width != full.width:
            continue
        behind = shape[len(shape) - table.tensor.dim() :]
        fits = (
            expression(size) == 1 or same_size(size, wanted)
            for size, wanted in zip(table.tensor.shape, behind, strict=True)
        )
        if all(fits) and is_table(table) and full.node != table.node:
            return Adds(
                node, tuple(values), (1.0, float(alpha) if packet(node) is aten.add else -float(alpha))
            )
    return None


def _sum(node: fx.Node, axis: int, left: fx.Node, right: fx.Node, alpha: Any) -> Adds | None:
    shape = val(node).shape
    if not (same_sizes(val(left).shape, shape) and same_sizes(val(right).shape, shape)):
        return None
    factors = {
        aten.add: (1.0, float(alpha)),
        aten.sub: (1.0, -float(alpha)),
        aten.rsub: (-float(alpha), 1.0),
    }.get(packet(node))
    if factors is None:
        return None
    return Adds(node, (Value(left, axis), Value(right, axis)), factors)


def _maps(
    node: fx.Node, axis: int, fixed: Collection[fx.Node], operand: fx.Node, *elements: Element
) -> Maps | None:
    tensor = val(operand)
    if not elements or not same_sizes(tensor.shape, val(node).shape):
        return None
    values = [element.value for element in elements if isinstance(element, Shift | Scale)]
    if not all(feature_value(value, tensor, axis, fixed) for value in values):
        return None
    if axis == LABELLED and any(isinstance(each, Scale) and not _is_number(each) for each in elements):
        return None
    kept = tuple(element for element in elements if element != Scale(1.0))
    return Maps(node, Value(operand, axis), kept)


def _is_number(scale: Scale) -> bool:
    return isinstance(scale.value, int | float) and (scale.value != 0 or not scale.inverse)


def _continues(value: Any, fixed: Collection[fx.Node]) -> bool:
    tensor = isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor)
    return (
        tensor and value not in fixed and (is_operator(value) or value.op in ("placeholder", "call_function"))
    )
