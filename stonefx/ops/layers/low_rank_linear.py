"""`stone::low_rank_linear`: a linear map through a thin middle, kept as its two factors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .. import batching, checks
from ..calling import Caller
from ..library import Operator, cast_by_autocast, declare
from ..sharding import Dimensions

_NAME = "low_rank_linear"


def reference(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """The map in plain torch, in the dtype of its operands."""
    return functional.linear(functional.linear(x, a), b, bias)


def backward_reference(
    grad: Tensor, x: Tensor, a: Tensor, b: Tensor, *, has_bias: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients for `x`, `a`, `b` and the bias (`[0]` where there is none)."""
    grad_hidden = grad @ b
    flat, flat_grad, flat_grad_hidden = (t.reshape(-1, t.shape[-1]) for t in (x, grad, grad_hidden))
    hidden = flat @ a.t()
    grad_bias = flat_grad.sum(0) if has_bias else grad.new_empty(0)
    return grad_hidden @ a, flat_grad_hidden.t() @ flat, flat_grad.t() @ hidden, grad_bias


def _check(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> None:
    checks.rows(_NAME, "x", x)
    for label, operand in (("a", a), ("b", b), ("bias", bias)):
        if operand is not None:
            checks.same_dtype(_NAME, f"x and {label}", x, operand)
            checks.same_device(_NAME, f"x and {label}", x, operand)
    fits = a.dim() == 2 and b.dim() == 2
    fits = fits and x.shape[-1] == a.shape[1] and b.shape[1] == a.shape[0]
    if fits and bias is not None:
        fits = bias.dim() == 1 and bias.shape[0] == b.shape[0]
    if not fits:
        raise RuntimeError(
            "stone::low_rank_linear: expected x [*batch, in], a [rank, in], b [out, rank] and bias [out], "
            f"got {checks.shape(x)}, {checks.shape(a)}, {checks.shape(b)} and "
            f"{'none' if bias is None else checks.shape(bias)}; a and b are laid out as nn.Linear.weight is"
        )


def _fake(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    _check(x, a, b, bias)
    return x.new_empty((*x.shape[:-1], b.shape[0]))


def _backward_fake(
    grad: Tensor, x: Tensor, a: Tensor, b: Tensor, *, has_bias: bool = True
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _check(x, a, b, None)
    checks.gradient("low_rank_linear_backward", "grad and x", grad, x, (*x.shape[:-1], b.shape[0]))
    return (
        x.new_empty(x.shape),
        a.new_empty(a.shape),
        b.new_empty(b.shape),
        x.new_empty(b.shape[0] if has_bias else 0),
    )


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, a, b, bias = ctx.saved_tensors
    wants_bias = bias is not None and ctx.needs_input_grad[3]
    grads = torch.ops.stone.low_rank_linear_backward.default(grad, x, a, b, has_bias=wants_bias)
    # A bias that was left out of the call has no entry in needs_input_grad.
    return tuple(g if wanted else None for g, wanted in zip(grads, ctx.needs_input_grad, strict=False))


def _vmap(
    op: Any, info: Any, in_dims: Any, x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, int]:
    if all(d is None for d in in_dims[1:]):
        return op(x.movedim(in_dims[0], 0), a, b, bias), 0
    # Mapped factors are a batch of different maps: batched products.
    x, a, b = (batching.spread(t, d, info.batch_size) for t, d in zip((x, a, b), in_dims, strict=False))
    y = batching.matrix_product(batching.matrix_product(x, a), b)
    if bias is not None:
        bias = batching.spread(bias, in_dims[3], info.batch_size)
        y = y + bias.reshape(bias.shape[0], *[1] * (y.dim() - 2), bias.shape[-1])
    return y, 0


def _backward_vmap(
    op: Any, info: Any, in_dims: Any, grad: Tensor, x: Tensor, a: Tensor, b: Tensor, *, has_bias: bool = True
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    grad, x, a, b = (
        batching.spread(t, d, info.batch_size) for t, d in zip((grad, x, a, b), in_dims, strict=False)
    )
    size, width = info.batch_size, x.shape[-1]
    grad_hidden = batching.matrix_product(grad, b.transpose(1, 2))
    flat, flat_grad = x.reshape(size, -1, width), grad.reshape(size, -1, grad.shape[-1])
    hidden = torch.bmm(flat, a.transpose(1, 2))
    grad_a = torch.bmm(grad_hidden.reshape(size, -1, grad_hidden.shape[-1]).transpose(1, 2), flat)
    grad_b = torch.bmm(flat_grad.transpose(1, 2), hidden)
    grad_bias = flat_grad.sum(1) if has_bias else grad.new_empty((size, 0))
    return (batching.matrix_product(grad_hidden, a.transpose(1, 2)), grad_a, grad_b, grad_bias), (0, 0, 0, 0)


OPERATOR = Operator(
    name=_NAME,
    arguments="Tensor x, Tensor a, Tensor b, Tensor? bias=None",
    backward_arguments="Tensor grad, Tensor x, Tensor a, Tensor b, *, bool has_bias=True",
    backward_results="(Tensor, Tensor, Tensor, Tensor)",
    reference=reference,
    backward_reference=backward_reference,
    fake=_fake,
    backward_fake=_backward_fake,
    backward=_backward,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    dimensions=Dimensions(operands=("*i", "ri", "or", "o"), result="*o", free="ior", added=(3,)),
)
declare(OPERATOR)
_CALL = Caller(_NAME, autocasts=True)
cast_by_autocast(_NAME)


def low_rank_linear(x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply the linear map `b @ a` as two thin products: `(x a^T) b^T + bias`.

    Cheaper than the dense map where `rank * (in + out) < in * out`. Under autocast the operands are cast as
    those of `torch.nn.functional.linear` are.

    Args:
        x: `[*batch, in]`, float32, float64, bfloat16 or float16.
        a: `[rank, in]`, the dtype of `x`.
        b: `[out, rank]`, the dtype of `x`.
        bias: `[out]`, the dtype of `x`, or None.

    Returns:
        `[*batch, out]`.

    Raises:
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> low_rank_linear(torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0], [10.0]]))
    tensor([ 3., 30.])
    """
    return _CALL(x, a, b, bias)
