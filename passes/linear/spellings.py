"""Every way to write a linear map along the last axis, read as the same terms."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import fx

from ..arguments import named_arguments, packet
from ..rewrite import val
from .steps import Apply, Scale, Shift, Step, Term
from .weights import matrix

aten = torch.ops.aten
Reading = tuple[fx.Node, tuple[Term, ...]]  # the value continued, and what happens to it


def read_map(node: fx.Node, fixed: Collection[fx.Node]) -> Step | None:
    """Read a node as a map of its operand's last axis; None where it is not a matrix product of that kind.

    Args:
        node: the node.
        fixed: the nodes that depend on weights alone.
    """
    reader = _READERS.get(packet(node))
    reading = reader(named_arguments(node)) if reader else None
    if reading is None or reading[0] in fixed:
        return None
    operand, terms = reading
    step = Step(node, operand, "map", terms)
    static = all(isinstance(size, int) for size in val(step.matrix.node).shape)
    return step if static else None


def _apply(operand: Any, weight: Any, *, transposed: bool) -> Reading | None:
    if not isinstance(operand, fx.Node) or not isinstance(weight, fx.Node):
        return None
    if val(weight).dim() != 2 or val(operand).dim() == 0:
        return None
    return operand, (Apply(matrix(weight, transposed)),)


def _linear(given: dict[str, Any]) -> Reading | None:
    reading = _apply(given["input"], given["weight"], transposed=False)
    if reading is None or given["bias"] is None:
        return reading
    return reading[0], (*reading[1], Shift(given["bias"]))


def _matmul(given: dict[str, Any]) -> Reading | None:
    left, right = given["self"], given["other"] if "other" in given else given["mat2"]
    if val(left).dim() == 2 and val(right).dim() == 1:
        return _apply(right, left, transposed=False)
    return _apply(left, right, transposed=True)


def _mv(given: dict[str, Any]) -> Reading | None:
    return _apply(given["vec"], given["self"], transposed=False)


def _addmm(given: dict[str, Any]) -> Reading | None:
    reading = _apply(given["mat1"], given["mat2"], transposed=True)
    if reading is None:
        return None
    terms = reading[1]
    if given["alpha"] != 1:
        terms = (*terms, Scale(float(given["alpha"])))
    if given["beta"] != 0:
        terms = (*terms, Shift(given["self"], float(given["beta"])))
    return reading[0], terms


def _einsum(given: dict[str, Any]) -> Reading | None:
    """`...i,oi->...o` in any letters and either order of operands, with `...` or letters in front."""
    operands = given["tensors"]
    parts = given["equation"].replace(" ", "").split("->")
    terms = parts[0].split(",")
    if len(parts) != 2 or len(terms) != 2 or len(operands) != 2 or given.get("path"):
        return None
    for (value, weight), (rows, columns) in (
        (operands, terms),
        (operands[::-1], terms[::-1]),
    ):
        lead, inner, outer = rows[:-1], rows[-1:], parts[1][-1:]
        if not inner.isalpha() or not outer.isalpha() or inner == outer or parts[1] != lead + outer:
            continue
        letters = lead.replace("...", "")
        if len(set(letters)) != len(letters) or {inner, outer} & set(letters):
            continue
        if columns in (outer + inner, inner + outer):
            return _apply(value, weight, transposed=columns == inner + outer)
    return None


_READERS: dict[Any, Callable[[dict[str, Any]], Reading | None]] = {
    aten.linear: _linear,
    aten.matmul: _matmul,
    aten.mm: _matmul,
    aten.mv: _mv,
    aten.addmm: _addmm,
    aten.einsum: _einsum,
}
