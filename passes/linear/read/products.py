"""Every way to write a linear map of features, read as the same elements."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.weights import matrix
from ..algebra.elements import Apply, Element, Scale, Shift
from ..algebra.values import Value, readable
from .convolutions import CONVOLUTIONS, read_convolution

aten = torch.ops.aten
Map = tuple[Value, int, tuple[Element, ...]]  # the value read, the axis of the result, what happens to it


def read_map(node: fx.Node, fixed: Collection[fx.Node]) -> Map | None:
    """Read a node as a map of features; None where it is not a product with a weight.

    Args:
        node: the node.
        fixed: the nodes that depend on weights alone.

    Returns:
        The value that it reads, the feature axis of its result, and the elements.
    """
    reader = _READERS.get(packet(node))
    found = reader(node, named_arguments(node), fixed) if reader else None
    if found is None or found[0].node in fixed or not readable(*_pair(found[0])):
        return None
    return found


def _pair(value: Value) -> tuple[fx.Node, int]:
    return value.node, value.axis


def _apply(
    operand: Any, weight: Any, *, transposed: bool, axis: int = -1, result: int | None = None
) -> Map | None:
    if not isinstance(operand, fx.Node) or not isinstance(weight, fx.Node):
        return None
    rank = val(operand).dim()
    if val(weight).dim() != 2 or rank == 0 or not all(isinstance(size, int) for size in val(weight).shape):
        return None
    place = axis % rank
    return Value(operand, place), place if result is None else result, (Apply(matrix(weight, transposed)),)


def _linear(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Map | None:
    found = _apply(given["input"], given["weight"], transposed=False)
    if found is None or given["bias"] is None:
        return found
    return found[0], found[1], (*found[2], Shift(given["bias"]))


def _matmul(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Map | None:
    left, right = given["self"], given["other"] if "other" in given else given["mat2"]
    if left in fixed and right not in fixed and val(left).dim() == 2:
        rank = val(right).dim()
        return _apply(right, left, transposed=False, axis=-1 if rank == 1 else -2)
    if val(left).dim() == 2 and val(right).dim() == 1:
        return _apply(right, left, transposed=False)
    return _apply(left, right, transposed=True)


def _mv(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Map | None:
    return _apply(given["vec"], given["self"], transposed=False)


def _addmm(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Map | None:
    left, right = given["mat1"], given["mat2"]
    if left in fixed and right not in fixed:
        found = _apply(right, left, transposed=False, axis=0)
    else:
        found = _apply(left, right, transposed=True)
    if found is None:
        return None
    elements = found[2]
    if given["alpha"] != 1:
        elements = (*elements, Scale(float(given["alpha"])))
    if given["beta"] != 0:
        elements = (*elements, Shift(given["self"], float(given["beta"])))
    return found[0], found[1], elements


def _tensordot(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Map | None:
    operand, weight = given["self"], given["other"]
    if len(given["dims_self"]) != 1 or not isinstance(weight, fx.Node):
        return None
    axis, of_weight = given["dims_self"][0] % val(operand).dim(), given["dims_other"][0] % 2
    return _apply(operand, weight, transposed=of_weight == 0, axis=axis, result=val(operand).dim() - 1)


def _einsum(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Map | None:
    """A contraction of one letter of the value with one of a matrix, in any letters and either order."""
    operands = given["tensors"]
    parts = given["equation"].replace(" ", "").split("->")
    terms = parts[0].split(",")
    if len(parts) != 2 or len(terms) != 2 or len(operands) != 2 or given.get("path"):
        return None
    for (value, weight), (rows, columns) in ((operands, terms), (operands[::-1], terms[::-1])):
        letters = rows.replace("...", "")
        if len(columns) != 2 or len(set(columns)) != 2 or len(set(letters)) != len(letters):
            continue
        for inner, outer in (columns, columns[::-1]):
            if not inner.isalpha() or inner not in letters or outer in letters:
                continue
            if parts[1] != rows.replace(inner, outer):
                continue
            behind = rows.index(inner) > rows.find("...") >= 0
            axis = letters.index(inner) - (len(letters) if behind else 0)
            return _apply(value, weight, transposed=columns == inner + outer, axis=axis)
    return None


def _convolve(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Map | None:
    return read_convolution(node, given)


_READERS: dict[Any, Callable[[fx.Node, dict[str, Any], Collection[fx.Node]], Map | None]] = {
    aten.linear: _linear,
    aten.matmul: _matmul,
    aten.mm: _matmul,
    aten.mv: _mv,
    aten.addmm: _addmm,
    aten.tensordot: _tensordot,
    aten.einsum: _einsum,
    **dict.fromkeys(CONVOLUTIONS, _convolve),
}
