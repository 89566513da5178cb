"""`stone::pifa_linear`: a linear map of low rank, kept as some of its rows and what makes the others of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .. import batching, checks
from ..calling import Caller
from ..library import Operator, cast_by_autocast, declare
from ..sharding import Dimensions

_NAME = "pifa_linear"


def reference(
    x: Tensor, pivot: Tensor, interpolation: Tensor, index: Tensor, bias: Tensor | None = None
) -> Tensor:
    """The map in plain torch, in the dtype of its operands."""
    hidden = functional.linear(x, pivot)
    y = torch.cat([hidden, functional.linear(hidden, interpolation)], -1).index_select(-1, index)
    return y if bias is None else y + bias


def backward_reference(
    grad: Tensor, x: Tensor, pivot: Tensor, interpolation: Tensor, index: Tensor, *, has_bias: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients for `x`, `pivot`, `interpolation` and the bias (`[0]` where there is none)."""
    rank = pivot.shape[0]
    flat, flat_grad = (t.flatten(0, -2) if t.dim() > 1 else t.unsqueeze(0) for t in (x, grad))
    hidden, of_parts = flat @ pivot.t(), flat_grad.index_select(-1, index.argsort())
    of_others = of_parts[:, rank:]
    grad_hidden = of_parts[:, :rank] + of_others @ interpolation
    grad_bias = flat_grad.sum(0) if has_bias else grad.new_empty(0)
    grad_x = (grad_hidden @ pivot).reshape(x.shape)
    return grad_x, grad_hidden.t() @ flat, of_others.t() @ hidden, grad_bias


def _check(x: Tensor, pivot: Tensor, interpolation: Tensor, index: Tensor, bias: Tensor | None) -> None:
    checks.rows(_NAME, "x", x)
    for label, operand in (("pivot", pivot), ("interpolation", interpolation)):
        checks.same_dtype(_NAME, f"x and {label}", x, operand)
        checks.same_device(_NAME, f"x and {label}", x, operand)
    checks.same_device(_NAME, "x and index", x, index)
    if index.dtype != torch.int32:
        raise RuntimeError(
            f"stone::{_NAME}: index must be int32, got {checks.show(index.dtype)}; convert it with index.int()"
        )
    fits = pivot.dim() == 2 and interpolation.dim() == 2 and index.dim() == 1
    if bias is not None:
        checks.same_dtype(_NAME, "x and bias", x, bias)
        checks.same_device(_NAME, "x and bias", x, bias)
        fits = fits and bias.dim() == 1 and bias.shape[0] == index.shape[0]
    fits = fits and x.shape[-1] == pivot.shape[1] and interpolation.shape[1] == pivot.shape[0]
    if not (fits and interpolation.shape[0] + pivot.shape[0] == index.shape[0]):
        raise RuntimeError(
            f"stone::{_NAME}: expected x [*batch, in], pivot [rank, in], interpolation [out - rank, rank], index "
            f"[out] and bias [out], got {checks.shape(x)}, {checks.shape(pivot)}, {checks.shape(interpolation)}, "
            f"{checks.shape(index)} and {'none' if bias is None else checks.shape(bias)}; "
            "stonefx.nn.PifaLinear.from_factors makes them of a factored weight"
        )
    if type(index) is Tensor and index.is_cpu:
        _check_index(index.tolist())


def _check_index(index: list[int]) -> None:
    seen = [False] * len(index)
    for place, value in enumerate(index):
        if not 0 <= value < len(index) or seen[value]:
            raise RuntimeError(
                f"stone::{_NAME}: index must hold each of 0 to {len(index) - 1} once, got {value} at {place}"
                f"{', which came before' if 0 <= value < len(index) else ''}; entry o says which of the pivot rows, "
                "then the others, is output o"
            )
        seen[value] = True


def _fake(
    x: Tensor, pivot: Tensor, interpolation: Tensor, index: Tensor, bias: Tensor | None = None
) -> Tensor:
    _check(x, pivot, interpolation, index, bias)
    return x.new_empty((*x.shape[:-1], index.shape[0]))


def _backward_fake(
    grad: Tensor, x: Tensor, pivot: Tensor, interpolation: Tensor, index: Tensor, *, has_bias: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(x, pivot, interpolation, index, None)
    checks.gradient(f"{_NAME}_backward", "grad and x", grad, x, (*x.shape[:-1], index.shape[0]))
    return (
        x.new_empty(x.shape),
        pivot.new_empty(pivot.shape),
        interpolation.new_empty(interpolation.shape),
        x.new_empty(index.shape[0] if has_bias else 0),
    )


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, pivot, interpolation, index, bias = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    wants_bias = bias is not None and wanted[4]
    *grads, grad_bias = torch.ops.stone.pifa_linear_backward.default(
        grad, x, pivot, interpolation, index, has_bias=wants_bias
    )
    grads = [g if each else None for g, each in zip(grads, wanted, strict=False)]
    # A bias that was left out of the call has no entry in needs_input_grad.
    return (*grads, None, grad_bias if wants_bias else None)[: len(wanted)]


def _vmap(
    op: Any,
    info: Any,
    in_dims: Any,
    x: Tensor,
    pivot: Tensor,
    interpolation: Tensor,
    index: Tensor,
    bias: Tensor | None = None,
) -> tuple[Tensor, int]:
    if all(d is None for d in in_dims[1:]):
        return op(x.movedim(in_dims[0], 0), pivot, interpolation, index, bias), 0
    # Mapped operands are a batch of different maps: batched products.
    given = (x, pivot, interpolation, index)
    x, pivot, interpolation, index = (
        batching.spread(t, d, info.batch_size) for t, d in zip(given, in_dims, strict=False)
    )
    hidden = batching.matrix_product(x, pivot)
    y = _take(torch.cat([hidden, batching.matrix_product(hidden, interpolation)], -1), index)
    if bias is not None:
        bias = batching.spread(bias, in_dims[4], info.batch_size)
        y = y + batching.pad(bias, y.dim() - 1)
    return y, 0


def _take(y: Tensor, index: Tensor) -> Tensor:
    """Columns `index` `[mapped, out]` of `y` `[mapped, *batch, out]`."""
    return y.gather(-1, batching.pad(index.long(), y.dim() - 1).expand_as(y))


def _backward_vmap(
    op: Any,
    info: Any,
    in_dims: Any,
    grad: Tensor,
    x: Tensor,
    pivot: Tensor,
    interpolation: Tensor,
    index: Tensor,
    *,
    has_bias: bool = True,
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    given = (grad, x, pivot, interpolation, index)
    grad, x, pivot, interpolation, index = (
        batching.spread(t, d, info.batch_size) for t, d in zip(given, in_dims, strict=True)
    )
    size, rank = info.batch_size, pivot.shape[1]
    flat, flat_grad = (t.reshape(size, -1, t.shape[-1]) for t in (x, grad))
    of_parts = _take(flat_grad, index.argsort(-1))
    of_others = of_parts[..., rank:]
    grad_hidden = of_parts[..., :rank] + torch.bmm(of_others, interpolation)
    grad_x = torch.bmm(grad_hidden, pivot).reshape(x.shape)
    grad_pivot = torch.bmm(grad_hidden.transpose(1, 2), flat)
    grad_interpolation = torch.bmm(of_others.transpose(1, 2), batching.matrix_product(flat, pivot))
    grad_bias = flat_grad.sum(1) if has_bias else grad.new_empty((size, 0))
    return (grad_x, grad_pivot, grad_interpolation, grad_bias), (0, 0, 0, 0)


OPERATOR = Operator(
    name=_NAME,
    arguments="Tensor x, Tensor pivot, Tensor interpolation, Tensor index, Tensor? bias=None",
    backward_arguments="Tensor grad, Tensor x, Tensor pivot, Tensor interpolation, Tensor index, *, "
    "bool has_bias=True",
    backward_results="(Tensor, Tensor, Tensor, Tensor)",
    reference=reference,
    backward_reference=backward_reference,
    fake=_fake,
    backward_fake=_backward_fake,
    backward=_backward,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    # Outputs depend on all of the rank, and lie in an order of their own.
    dimensions=Dimensions(
        operands=("*i", "ri", "ur", "o", "o"), result="*o", free="i", added=(4,), fixed=(3,)
    ),
)
declare(OPERATOR)
_CALL = Caller(_NAME, autocasts=True)
cast_by_autocast(_NAME)


def pifa_linear(
    x: Tensor, pivot: Tensor, interpolation: Tensor, index: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Apply a linear map of low rank that is kept as `rank` of its rows and combinations of them.

    `h = x pivot^T` is `rank` of the outputs, `h interpolation^T` the others: fewer numbers than the two factors of the
    map, and fewer operations. The rows of the result are put in order, and the bias added, as they are written.
    Quickest where the pivots and the others each keep their order, as `stonefx.nn.PifaLinear` arranges them. Under
    autocast the operands are cast as those of `torch.nn.functional.linear` are.

    Args:
        x: `[*batch, in]`, float32, float64, bfloat16 or float16.
        pivot: `[rank, in]`, the dtype of `x`.
        interpolation: `[out - rank, rank]`, the dtype of `x`.
        index: `[out]`, int32, a permutation: output `o` is entry `index[o]` of `[pivots, others]`. It is looked at on
            the CPU; on CUDA, which would have to be waited for, an entry out of range gives NaN.
        bias: `[out]`, the dtype of `x`, or None.

    Returns:
        `[*batch, out]`.

    Raises:
        RuntimeError: wrong or different dtypes, shapes or devices, or an index on the CPU that is no permutation.

    >>> import torch
    >>> pivot, interpolation = torch.tensor([[1.0, 1.0]]), torch.tensor([[10.0], [100.0]])
    >>> pifa_linear(torch.tensor([1.0, 2.0]), pivot, interpolation, torch.tensor([1, 0, 2], dtype=torch.int32))
    tensor([ 30.,   3., 300.])
    """
    return _CALL(x, pivot, interpolation, index, bias)
