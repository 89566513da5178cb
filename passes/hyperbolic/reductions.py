"""Norms, sums and inner products over the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from .forms import HALF, Form
from .values import Layout, NotRowwise, Value, combine, tensor

if TYPE_CHECKING:
    from .evaluate import Evaluator


def _dimensions(node: fx.Node, dim: Any) -> list[int]:
    """The dimensions that a reduction runs over, counted from the end: -1 is the row."""
    rank = tensor(node).ndim
    if dim is None or dim == []:
        return list(range(-rank, 0))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return sorted(d % rank - rank for d in dims)


def _layout(node: fx.Node, dims: list[int], keepdim: bool) -> Layout:
    if keepdim or dims != [-1]:
        return Layout.ROW
    return Layout.CONSTANT if tensor(node).ndim == 1 else Layout.BATCH


def _over(dims: list[int]) -> str:
    return f"over dim {dims[0]}" if len(dims) == 1 else f"over dims {dims}"


def _norm(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    source = given["self"] if "self" in given else given["A"]
    value = evaluator.value(source)
    order = given.get("ord", given.get("p"))
    order = 2 if order is None or order == "fro" else order
    dims = _dimensions(source, given.get("dim"))
    if any(evaluator.algebra.degree(monomial) != 1 for monomial, _ in value.form):
        raise NotRowwise("a norm of something that is not linear in the rows")
    layout = _layout(source, dims, bool(given.get("keepdim")))
    if dims != [-1]:
        return Value(_foreign(evaluator, f"norm {_over(dims)}", value.form), layout)
    if order != 2:
        return Value(_foreign(evaluator, f"norm with p = {order:g}", value.form), layout)
    return Value(evaluator.algebra.power(evaluator.algebra.inner(value.form, value.form), HALF), layout)


def _sum(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    source = given["self"]
    value = evaluator.value(source)
    if any(evaluator.algebra.degree(monomial) != 2 for monomial, _ in value.form):
        raise NotRowwise("a sum over something that is not a product of two rows")
    dims = _dimensions(source, given.get("dim"))
    layout = _layout(source, dims, bool(given.get("keepdim")))
    if dims != [-1]:
        return Value(_foreign(evaluator, f"sum of squares {_over(dims)}", value.form), layout)
    return Value(evaluator.algebra.sum(value.form), layout)


def _foreign(evaluator: Evaluator, description: str, form: Form) -> Form:
    """A reduction that no operator of ours makes: it matches nothing, and is named in the reason."""
    return evaluator.algebra.atom("foreign", description, form, nonnegative=True)


def _product(evaluator: Evaluator, left: fx.Node, right: fx.Node) -> Value:
    """`<left, right>` over the last dimension, which is dropped."""
    first, second = evaluator.value(left), evaluator.value(right)
    combine(first, second)
    rank = max(tensor(left).ndim, tensor(right).ndim)
    form = evaluator.algebra.inner(first.form, second.form)
    return Value(form, Layout.CONSTANT if rank == 1 else Layout.BATCH)


def _vecdot(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    if _dimensions(given["x"], given["dim"]) != [-1]:
        raise NotRowwise("an inner product over another dimension than the last")
    return _product(evaluator, given["x"], given["y"])


def _dot(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    left, right = given["self"], given["other"] if "other" in given else given["tensor"]
    if tensor(left).ndim != 1 or tensor(right).ndim != 1:
        raise NotRowwise("a matrix product")
    return _product(evaluator, left, right)


def _einsum(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    left_and_right, _, output = given["equation"].replace(" ", "").partition("->")
    operands = left_and_right.split(",")
    if len(operands) != 2 or operands[0] != operands[1] or output != operands[0][:-1]:
        raise NotRowwise("an einsum that is not an inner product over the last dimension")
    if len(set(output.replace("...", ""))) != len(output.replace("...", "")) or operands[0][-1] in output:
        raise NotRowwise("an einsum with repeated indices")
    return _product(evaluator, *given["tensors"])


REDUCTIONS = {
    **dict.fromkeys(("linalg_vector_norm", "norm", "linalg_norm", "frobenius_norm"), _norm),
    "sum": _sum,
    "linalg_vecdot": _vecdot,
    **dict.fromkeys(("dot", "inner", "matmul"), _dot),
    "einsum": _einsum,
}
