"""Shifts and scales of features, written as additions and multiplications with a weight or a number."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import fx

from ..arguments import is_operator, named_arguments, packet
from ..rewrite import val
from .steps import Scale, Shift, Step, Term

aten = torch.ops.aten


def read_affine(node: fx.Node, fixed: Collection[fx.Node]) -> Step | None:
    """Read a node as a shift or scale of one value's features; None where it is something else.

    Args:
        node: the node.
        fixed: the nodes that depend on weights alone.
    """
    if packet(node) not in (aten.add, aten.sub, aten.rsub, aten.mul, aten.div, aten.neg):
        return None
    given = named_arguments(node)
    if given.get("rounding_mode") is not None:
        return None
    left: Any = given["self"]
    right: Any = given.get("other")
    if packet(node) is aten.neg:
        return _step(node, fixed, left, Scale(-1.0))
    alpha = given.get("alpha", 1)
    if _continues(left, fixed) and not _continues(right, fixed):
        return _step(node, fixed, left, *_with_value_on_the_left(node, right, alpha))
    if _continues(right, fixed) and not _continues(left, fixed):
        return _step(node, fixed, right, *_with_value_on_the_right(node, left, alpha))
    return None


def _with_value_on_the_left(node: fx.Node, other: Any, alpha: Any) -> tuple[Term, ...]:
    if packet(node) is aten.add:
        return (Shift(other, float(alpha)),)
    if packet(node) is aten.sub:
        return (Shift(other, -float(alpha)),)
    if packet(node) is aten.rsub:  # other - alpha * self
        return (Scale(-float(alpha)), Shift(other))
    return (Scale(other, inverse=packet(node) is aten.div),)


def _with_value_on_the_right(node: fx.Node, other: Any, alpha: Any) -> tuple[Term, ...]:
    if packet(node) is aten.add:
        return (Scale(float(alpha)), Shift(other))
    if packet(node) is aten.sub:
        return (Scale(-float(alpha)), Shift(other))
    if packet(node) is aten.mul:
        return (Scale(other),)
    return ()  # other / value, and other's rsub, are not affine in value


def _step(node: fx.Node, fixed: Collection[fx.Node], operand: fx.Node, *terms: Term) -> Step | None:
    values = [term.value for term in terms if isinstance(term, Shift | Scale)]
    if not terms or not all(feature_value(value, val(operand), fixed) for value in values):
        return None
    return Step(node, operand, "affine", tuple(term for term in terms if term != Scale(1.0)))


def _continues(value: Any, fixed: Collection[fx.Node]) -> bool:
    return isinstance(value, fx.Node) and is_operator(value) and value not in fixed


def feature_value(value: Any, operand: torch.Tensor, fixed: Collection[fx.Node]) -> bool:
    """Whether a number or weight adds to (or scales) the features alone, the same way in every row."""
    if not isinstance(value, fx.Node):
        return isinstance(value, int | float) and not isinstance(value, bool)
    shape = val(value).shape if isinstance(value.meta.get("val"), torch.Tensor) else None
    if shape is None or value not in fixed or len(shape) > operand.dim():
        return False
    features = operand.shape[-1]
    return all(size == 1 for size in shape[:-1]) and (not shape or shape[-1] in (1, features))
