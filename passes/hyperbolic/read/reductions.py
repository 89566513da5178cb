"""Norms, sums and inner products over the row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from ...graph.shapes import same_size
from ..rows.forms import HALF, Form
from .values import ROWS, Axes, NotRowwise, Value, broadcast, distinct, tensor

if TYPE_CHECKING:
    from .evaluate import Evaluator


def dimensions(node: fx.Node, dim: Any) -> list[int]:
    """The dimensions that a reduction runs over, counted from the end: -1 is the last."""
    rank = tensor(node).ndim
    if dim is None or dim == []:
        return list(range(-rank, 0))
    dims = [dim] if isinstance(dim, int) else list(dim)
    return sorted(d % rank - rank for d in dims)


def _over(dims: list[int]) -> str:
    return f"over dim {dims[0]}" if len(dims) == 1 else f"over dims {dims}"


def reduced(source: fx.Node, axes: Axes, dims: list[int], keepdim: bool) -> tuple[bool, Axes]:
    """Whether the reduction is one over the row, and the axes of its result."""
    rank = tensor(source).ndim
    full = (None,) * (rank - len(axes)) + axes
    over_row = len(dims) == 1 and full[dims[0]] in ROWS
    if keepdim:
        return over_row, tuple(None if i - rank in dims else label for i, label in enumerate(full))
    return over_row, tuple(label for i, label in enumerate(full) if i - rank not in dims)


def _norm(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    source = given["self"] if "self" in given else given["A"]
    value = evaluator.value(source)
    order = given.get("ord", given.get("p"))
    order = 2 if order is None or order == "fro" else order
    dims = dimensions(source, given.get("dim"))
    if any(evaluator.algebra.degree(monomial) != 1 for monomial, _ in value.form):
        raise NotRowwise("a norm of something that is not linear in the rows")
    over_row, axes = reduced(source, value.axes, dims, bool(given.get("keepdim")))
    if not over_row:
        return Value(_foreign(evaluator, f"norm {_over(dims)}", value.form), axes)
    if order != 2:
        return Value(_foreign(evaluator, f"norm with p = {order:g}", value.form), axes)
    return Value(evaluator.algebra.power(evaluator.algebra.inner(value.form, value.form), HALF), axes)


def _sum(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    source = given["self"]
    value = evaluator.value(source)
    if (number := _of_one(source, value, given)) is not None:
        return number
    if any(evaluator.algebra.degree(monomial) != 2 for monomial, _ in value.form):
        raise NotRowwise("a sum over something that is not a product of two rows")
    dims = dimensions(source, given.get("dim"))
    over_row, axes = reduced(source, value.axes, dims, bool(given.get("keepdim")))
    if not over_row:
        return Value(_foreign(evaluator, f"sum of squares {_over(dims)}", value.form), axes)
    return Value(evaluator.algebra.sum(value.form), axes)


def _of_one(source: fx.Node, value: Value, given: dict[str, Any]) -> Value | None:
    """A number of each row, where the sum runs over a dimension of size 1."""
    dims = dimensions(source, given.get("dim"))
    axes = (None,) * (tensor(source).ndim - len(value.axes)) + value.axes
    if len(dims) != 1 or axes[dims[0]] is not None or not _one(source, dims[0]):
        return None
    return Value(value.form, reduced(source, value.axes, dims, bool(given.get("keepdim")))[1])


def _foreign(evaluator: Evaluator, description: str, form: Form) -> Form:
    """A reduction that no operator of ours makes: it matches nothing, and is named in the reason."""
    return evaluator.algebra.atom("foreign", description, form, nonnegative=True)


def _product(evaluator: Evaluator, left: fx.Node, right: fx.Node) -> Value:
    """`<left, right>` over the last dimension, which is dropped."""
    first, second = evaluator.value(left), evaluator.value(right)
    axes = broadcast(first.axes, second.axes)
    if first.axes[-1:] != second.axes[-1:] or first.axes[-1] not in ROWS:
        raise NotRowwise("an inner product over another dimension than the row")
    return Value(evaluator.algebra.inner(first.form, second.form), axes[:-1])


def _vecdot(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    if dimensions(given["x"], given["dim"]) != [-1]:
        raise NotRowwise("an inner product over another dimension than the last")
    return _product(evaluator, given["x"], given["y"])


def _matmul(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    """An inner product of two rows, or those of all pairs of rows of two matrices."""
    left = given["self"]
    right = next(given[name] for name in ("other", "tensor", "mat2") if name in given)
    if tensor(left).ndim == 1 and tensor(right).ndim == 1:
        return _product(evaluator, left, right)
    if tensor(left).ndim < 2 or tensor(right).ndim < 2 or "inner" in str(node.target):
        raise NotRowwise("a matrix product")
    first, second = evaluator.value(left), evaluator.value(right)
    if first.axes[-1:] == second.axes[-2:-1] == (None,) and _one(left, -1) and _one(right, -2):
        # A product of a column and a row of numbers.
        form = evaluator.algebra.multiply(first.form, second.form)
        axes = broadcast(first.axes[:-2], second.axes[:-2])
        return Value(form, distinct((*axes, first.axes[-2], second.axes[-1])))
    if first.axes[-1:] != second.axes[-2:-1] or first.axes[-1] not in ROWS:
        raise NotRowwise("a matrix product that is not one of rows with rows")
    axes = broadcast(first.axes[:-2], second.axes[:-2])
    form = evaluator.algebra.inner(first.form, second.form)
    return Value(form, distinct((*axes, first.axes[-2], second.axes[-1])))


def _one(node: fx.Node, dim: int) -> bool:
    return same_size(tensor(node).shape[dim], 1)


def _einsum(evaluator: Evaluator, node: fx.Node, given: dict[str, Any]) -> Value:
    """A product of two rows over the index that the result has not, the other indices as they lie."""
    operands, output = equation(given)
    values = [evaluator.value(operand) for operand in given["tensors"]]
    labels: dict[str, Any] = {}
    for letters, value, operand in zip(operands, values, given["tensors"], strict=True):
        axes = (None,) * (tensor(operand).ndim - len(value.axes)) + value.axes
        for letter, label in zip(letters, axes, strict=True):
            if labels.setdefault(letter, label) != label:
                raise NotRowwise("an einsum over dimensions that do not lie alike")
    summed = set(operands[0]) | set(operands[1])
    summed -= set(output)
    if len(summed) != 1 or labels[summed.pop()] not in ROWS:
        raise NotRowwise("an einsum that is not an inner product over the row")
    form = evaluator.algebra.inner(values[0].form, values[1].form)
    return Value(form, distinct([labels[letter] for letter in output]))


def equation(given: dict[str, Any]) -> tuple[list[str], str]:
    """The letters of the two operands and of the result of an einsum, `...` spelled out in capitals."""
    left, _, output = given["equation"].replace(" ", "").partition("->")
    operands = left.split(",")
    if len(operands) != 2 or "->" not in given["equation"]:
        raise NotRowwise("an einsum that is not an inner product over the row")
    spelled = []
    most = 0
    for letters, operand in zip(operands, given["tensors"], strict=True):
        count = tensor(operand).ndim - len(letters.replace("...", ""))
        most = max(most, count) if "..." in letters else most
        spelled.append(letters.replace("...", _capitals(count)) if "..." in letters else letters)
    output = output.replace("...", _capitals(most))
    for letters in (*spelled, output):
        if len(set(letters)) != len(letters):
            raise NotRowwise("an einsum with repeated indices")
    return spelled, output


def _capitals(count: int) -> str:
    """Letters for the dimensions behind `...`, the last of them A."""
    return "ZYXWVUTSRQPONMLKJIHGFEDCBA"[26 - count :] if count else ""


REDUCTIONS = {
    **dict.fromkeys(("linalg_vector_norm", "norm", "linalg_norm", "frobenius_norm"), _norm),
    "sum": _sum,
    "linalg_vecdot": _vecdot,
    **dict.fromkeys(("dot", "inner", "matmul", "mm", "bmm"), _matmul),
    "einsum": _einsum,
}
