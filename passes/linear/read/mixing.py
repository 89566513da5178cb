"""Carries by a value that is computed at run time: masks and scales by position, matrices from the other side."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import expression, same_size, same_sizes
from ..algebra.readings import Moves, Narrow
from ..algebra.values import Value
from .spread import narrow
from .views import again

aten = torch.ops.aten
_ZEROS = (aten.zeros, aten.zeros_like, aten.new_zeros)


def is_zero(value: Any) -> bool:
    """Whether an argument is 0, or a tensor of nothing else."""
    if not isinstance(value, fx.Node):
        return isinstance(value, int | float) and value == 0
    if packet(value) in (aten.full, aten.full_like, aten.new_full, aten.scalar_tensor):
        numbers = [each for each in value.args if isinstance(each, int | float)]
        return len(numbers) == 1 and numbers[0] == 0
    return packet(value) in _ZEROS


def _is_tensor(value: Any) -> bool:
    return isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.Tensor)


def _behind(value: fx.Node, node: fx.Node, axis: int) -> int:
    """The axis of a value that is broadcast along axis `axis` of a node's; negative where it has none."""
    return axis - (val(node).dim() - val(value).dim())


def _is_along(value: Any, node: fx.Node, axis: int) -> bool:
    """Whether a value has the features of a node's value."""
    place = _behind(value, node, axis) if _is_tensor(value) else -1
    return place >= 0 and same_size(val(value).shape[place], val(node).shape[axis])


def _beside(value: Any, node: fx.Node, axis: int) -> Narrow | None:
    """A value that is the same for all features, as it comes with one of them; None for any other value."""
    if isinstance(value, fx.Node) and isinstance(value.meta.get("val"), torch.SymInt):
        return Narrow(
            lambda emit: value, (), ()
        )  # what reads a size off a region's value may read it off another
    return narrow(value, _behind(value, node, axis)) if _is_tensor(value) else None


def _scale(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`value * m` and `value / m`, where `m` varies by position and not along the features, or is a size."""
    if given.get("rounding_mode") is not None:
        return None
    for name, other in (("self", "other"), ("other", "self")):
        if name == "other" and packet(node) is aten.div:
            continue
        found = _beside(given[other], node, axis) if _is_along(given[name], node, axis) else None
        if found is not None:
            return _scaled(node, axis, name, found, **{other: found})
    return None


def _scaled(node: fx.Node, axis: int, name: str, factor: Narrow, **changed: Any) -> Moves:
    """A call that scales each place of its argument `name` by itself, by 0 or 1 or any other factor."""
    value = named_arguments(node)[name]
    return Moves(
        node,
        Value(value, _behind(value, node, axis)),
        again(node, axis, name, **changed),
        preserves=False,
        beside=factor.bases,
        through=factor.through,
        scales=True,
        factor=factor if packet(node) is aten.mul else None,
    )


def _masked_fill(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`value.masked_fill(mask, 0)`, where the mask does not vary along the features."""
    if not is_zero(given["value"]) or not _is_along(given["self"], node, axis):
        return None
    mask = _beside(given["mask"], node, axis)
    return None if mask is None else _scaled(node, axis, "self", mask, mask=mask)


def _where(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`where(mask, value, 0)` or `where(mask, 0, value)`, where the mask does not vary along the features."""
    for name, other in (("self", "other"), ("other", "self")):
        value, zero = given[name], given[other]
        # Zeros of a shape of their own would be left out.
        whole = _is_tensor(value) and same_sizes(val(value).shape, val(node).shape)
        if not whole or not _is_along(value, node, axis) or not is_zero(zero):
            continue
        mask = _beside(given["condition"], node, axis)
        if mask is None:
            return None

        def none(emit: Any, tensor: fx.Node, width: int) -> fx.Node:
            return emit.insert(aten.new_zeros.default, (tensor, []), {}, val(tensor).new_zeros([]))

        changed: dict[str, Any] = {other: none} if isinstance(zero, fx.Node) else {}
        return _scaled(node, axis, name, mask, condition=mask, **changed)
    return None


def _product(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """A product of matrices, of which one holds the features in its rows or columns that are left."""
    first, second, *_ = given
    left, right = given[first], given[second]
    if not _is_tensor(left) or not _is_tensor(right) or not val(left).dim() or not val(right).dim():
        return None
    names = (first, second)
    rows, columns = val(left).dim() > 1, val(right).dim() > 1  # which of them are left
    rank = val(node).dim()
    batch = rank - rows - columns
    if axis < batch:
        found = _of_batch(node, axis, names, (left, right), (rows, columns))
    elif axis == rank - 1 and columns:
        found = names[1], Value(right, val(right).dim() - 1)
    else:
        found = names[0], Value(left, val(left).dim() - 2)
    if found is None:
        return None
    name, operand = found
    other = right if name == names[0] else left
    return _by(node, axis, name, operand, (other,), val(left).shape[-1])


def _of_batch(
    node: fx.Node,
    axis: int,
    names: tuple[str, str],
    operands: tuple[fx.Node, fx.Node],
    left: tuple[bool, bool],
) -> tuple[str, Value] | None:
    """The operand of a product that alone has the axis `axis` of the batches, and the name of the argument."""
    places = [
        axis - (val(node).dim() - sum(left)) + val(each).dim() - (2 if more else 1)
        for each, more in zip(operands, left, strict=True)
    ]
    sizes = [
        1 if place < 0 else expression(val(each).shape[place])
        for each, place in zip(operands, places, strict=True)
    ]
    for mine, others in ((0, 1), (1, 0)):
        if sizes[mine] != 1 and sizes[others] == 1:
            return names[mine], Value(operands[mine], places[mine])
    return None


def _by(
    node: fx.Node, axis: int, name: str, operand: Value, beside: tuple[fx.Node, ...], summed: Any
) -> Moves | None:
    """A product with something else, on which the features do not depend."""
    replay = again(node, axis, name)
    return Moves(node, operand, replay, preserves=False, beside=beside, summed=summed)


def _linear(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """`aten.linear` as a product from the other side: the features are none of those that its matrix mixes."""
    value, matrix = given["input"], given["weight"]
    if given["bias"] is not None or not _is_tensor(matrix) or val(matrix).dim() != 2:
        return None
    if axis == val(node).dim() - 1:
        return _by(node, axis, "weight", Value(matrix, 0), (value,), val(matrix).shape[1])
    return _by(node, axis, "input", Value(value, axis), (matrix,), val(matrix).shape[1])


def _einsum(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """A contraction in which the features are an axis of one operand alone."""
    operands = list(given["tensors"])
    parts = given["equation"].replace(" ", "").split("->")
    terms = parts[0].split(",")
    if len(parts) != 2 or len(terms) != len(operands) or len(operands) < 2 or given.get("path"):
        return None
    rank, letters = val(node).dim(), parts[1].replace("...", "")
    front = parts[1].find("...") if "..." in parts[1] else len(letters)
    if axis < front:
        letter = letters[axis]
    elif rank - axis <= len(letters) - front:
        letter = letters[axis - rank]
    else:
        return None  # one of those that the dots stand for
    holding = [place for place, term in enumerate(terms) if letter in term]
    if len(holding) != 1 or terms[holding[0]].count(letter) != 1:
        return None
    if any(len(set(term.replace("...", ""))) != len(term.replace("...", "")) for term in terms):
        return None
    (place,) = holding
    value, term = operands[place], terms[place]
    dots = term.find("...")
    inner = term.replace("...", "").index(letter)
    behind = 0 <= dots < term.index(letter)
    operand = Value(value, inner - len(term.replace("...", "")) + val(value).dim() if behind else inner)
    beside = tuple(each for index, each in enumerate(operands) if index != place)
    sizes = {
        each: val(tensor).shape[
            index if "..." not in term or index < term.find("...") else index - len(plain)
        ]
        for tensor, term in zip(operands, terms, strict=True)
        for plain in [term.replace("...", "")]
        for index, each in enumerate(plain)
    }
    summed = math.prod(size for each, size in sizes.items() if each not in parts[1])

    def tensors(emit: Any, tensor: fx.Node, width: int) -> list[fx.Node]:
        return [*operands[:place], tensor, *operands[place + 1 :]]

    replay = again(node, axis, "tensors", tensors=tensors)
    return Moves(node, operand, replay, preserves=False, beside=beside, summed=summed)


def _attention(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """Attention as an average of its values along the sequence; the width stays, as fused kernels want it."""
    value = given["value"]
    if axis != val(node).dim() - 1 or given["dropout_p"] != 0 or given["enable_gqa"]:
        return None
    if val(value).dim() != val(node).dim() or value in (given["query"], given["key"]):
        return None
    beside = tuple(given[name] for name in ("query", "key", "attn_mask") if given[name] is not None)
    # A row whose every key is masked is no average.
    return Moves(
        node,
        Value(value, axis),
        again(node, axis, "value"),
        preserves=given["attn_mask"] is None,
        rigid=True,
        beside=beside,
    )


READERS = {
    aten.mul: _scale,
    aten.div: _scale,
    aten.masked_fill: _masked_fill,
    aten.where: _where,
    aten.matmul: _product,
    aten.mm: _product,
    aten.bmm: _product,
    aten.mv: _product,
    aten._sparse_mm: _product,
    aten.linear: _linear,
    aten.einsum: _einsum,
    aten.scaled_dot_product_attention: _attention,
}
