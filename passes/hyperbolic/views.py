"""Operators that change no value: copies, casts, and the reshapes of row scalars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from ..graph.shapes import same_size, same_sizes
from .values import Layout, NotRowwise, Value, tensor

if TYPE_CHECKING:
    from .evaluate import Evaluator


def _identity(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    value = evaluator.value(given["self"])
    if not tensor(node).is_floating_point() or not tensor(given["self"]).is_floating_point():
        raise NotRowwise("a conversion to or from integers")
    return value


def _detach(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    value = _identity(evaluator, node, given)
    if value.form.number is None and "vector" not in evaluator.algebra.kinds(value.form):
        # To look through it would let a gradient reach the curvature that the user stopped.
        raise NotRowwise("a row scalar cut off from the gradient")
    return value


def _unsqueeze(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    value = evaluator.value(given["self"])
    rank = tensor(node).ndim
    position = given["dim"] % rank
    if position == 0 and not (value.layout is Layout.BATCH and rank == 1):
        return value
    if value.layout is Layout.CONSTANT:
        return value
    if value.layout is Layout.BATCH and position == rank - 1:
        return Value(value.form, Layout.ROW)
    raise NotRowwise("a dimension is inserted between the batch dimensions")


def _squeeze(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    return _reshaped(evaluator.value(given["self"]), given["self"], node)


def _reshape(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    return _reshaped(evaluator.value(given["self"]), given["self"], node)


def _reshaped(value: Value, source: fx.Node, node: fx.Node) -> Value:
    """The value under its new shape, where that adds or drops the last dimension of a row scalar."""
    before, after = tensor(source).shape, tensor(node).shape
    if value.layout is Layout.CONSTANT or same_sizes(before, after):
        return value
    if value.layout is Layout.BATCH and same_sizes((*before, 1), after):
        return Value(value.form, Layout.ROW)
    if value.layout is Layout.ROW and before and same_size(before[-1], 1) and same_sizes(before[:-1], after):
        return Value(value.form, Layout.BATCH)
    raise NotRowwise("a reshape that regroups the rows")


def _expand(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    value = evaluator.value(given["self"])
    vectors = any(evaluator.algebra.degree(monomial) for monomial, _ in value.form)
    if vectors and not same_size(tensor(node).shape[-1], tensor(given["self"]).shape[-1]):
        raise NotRowwise("the entries of the rows are repeated")
    return value


def _slice(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    value = evaluator.value(given["self"])
    if given["step"] != 1 or not same_sizes(tensor(given["self"]).shape, tensor(node).shape):
        raise NotRowwise("a part of the rows")
    return value


VIEWS = {
    **dict.fromkeys(
        ("alias", "clone", "contiguous", "lift_fresh", "lift_fresh_copy", "positive", "to"), _identity
    ),
    **dict.fromkeys(("_to_copy", "type_as"), _identity),
    "detach": _detach,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "view_as", "reshape_as"), _reshape),
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
    "slice": _slice,
}
