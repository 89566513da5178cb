"""Operators that change no value: copies, casts, and what moves, adds or drops dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import fx

from ...graph.shapes import same_size, same_sizes
from .values import Axes, Label, NotRowwise, Value, tensor

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


def _full(axes: Axes, node: fx.Node) -> list[Label]:
    """One label for each dimension: a constant has none of its own."""
    return [None] * (tensor(node).ndim - len(axes)) + list(axes)


def _unsqueeze(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    value = evaluator.value(given["self"])
    axes = _full(value.axes, given["self"])
    axes.insert(given["dim"] % tensor(node).ndim, None)
    return Value(value.form, tuple(axes))


def _reshape(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    """The value under its new shape, where that adds or drops dimensions of size 1."""
    value, source = evaluator.value(given["self"]), given["self"]
    before, after = tensor(source).shape, tensor(node).shape
    if value.form.number is not None or same_sizes(before, after):
        return Value(value.form, () if value.form.number is not None else value.axes)
    axes = _full(value.axes, source)
    sizes = [(size, label) for size, label in zip(before, axes, strict=True) if not same_size(size, 1)]
    if not same_sizes([size for size, _ in sizes], [size for size in after if not same_size(size, 1)]):
        raise NotRowwise("a reshape that regroups the rows")
    kept = iter(sizes)
    return Value(value.form, tuple(None if same_size(size, 1) else next(kept)[1] for size in after))


def _permuted(value: Value, source: fx.Node, order: Sequence[int]) -> Value:
    axes = _full(value.axes, source)
    return Value(value.form, tuple(axes[dim] for dim in order))


def _transpose(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    source, rank = given["self"], tensor(given["self"]).ndim
    order = list(range(rank))
    if rank > 1:
        first, second = given.get("dim0", -1) % rank, given.get("dim1", -2) % rank
        order[first], order[second] = order[second], order[first]
    return _permuted(evaluator.value(source), source, order)


def _permute(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    source, rank = given["self"], tensor(given["self"]).ndim
    return _permuted(evaluator.value(source), source, [dim % rank for dim in given["dims"]])


def _movedim(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    source, rank = given["self"], tensor(given["self"]).ndim
    moved, places = ([given[k]] if isinstance(given[k], int) else given[k] for k in ("source", "destination"))
    targets = dict(zip((p % rank for p in places), (d % rank for d in moved), strict=True))
    rest = iter(dim for dim in range(rank) if dim not in targets.values())
    return _permuted(
        evaluator.value(source), source, [targets[d] if d in targets else next(rest) for d in range(rank)]
    )


def _expand(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    value = evaluator.value(given["self"])
    axes, source = _full(value.axes, given["self"]), tensor(given["self"]).shape
    after = tensor(node).shape[tensor(node).ndim - len(source) :]
    for label, old, new in zip(axes, source, after, strict=True):
        if label is not None and not same_size(old, new):
            raise NotRowwise("the entries of the rows are repeated")
    return Value(value.form, tuple(axes))


VIEWS = {
    **dict.fromkeys(
        ("alias", "clone", "contiguous", "lift_fresh", "lift_fresh_copy", "positive", "to"), _identity
    ),
    **dict.fromkeys(("_to_copy", "type_as"), _identity),
    "detach": _detach,
    "unsqueeze": _unsqueeze,
    **dict.fromkeys(
        ("view", "reshape", "_unsafe_view", "view_as", "reshape_as", "squeeze", "unflatten"), _reshape
    ),
    **dict.fromkeys(("transpose", "swapaxes", "t", "mT", "adjoint", "numpy_T"), _transpose),
    "permute": _permute,
    "movedim": _movedim,
    **dict.fromkeys(("expand", "expand_as", "broadcast_to"), _expand),
}
