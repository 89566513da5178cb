"""`stone::poincare_hyperplanes`: the elementwise end of a multinomial logistic regression in the Poincaré ball.

    v = scale * asinh((product - offset * (1 + c||x||^2)) / max(1 - c||x||^2, min_alpha))

`product` is that of the points with the normals of the hyperplanes; `ops.poincare_mlr` and `ops.hnnpp_mlr` make
normals, offsets and scales.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..calling import Caller
from ..library import Operator, declare
from ..sharding import Dimensions

_NAME = "poincare_hyperplanes"
_ARGUMENTS = "Tensor product, Tensor x, Tensor offset, Tensor scale, Tensor c, *, float min_alpha=0"


def _terms(x: Tensor, c: Tensor, min_alpha: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    squares = x.square().sum(-1, keepdim=True)
    raw = 1 - c * squares
    moves = raw >= min_alpha if min_alpha else torch.ones_like(raw, dtype=torch.bool)
    inverse = 1 / torch.where(moves, raw, min_alpha)
    return squares, moves, inverse, (1 + c * squares) * inverse


def _widen(c: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    dtype = batching.compute_dtype(tensors[0])
    return (*(t.to(dtype) for t in tensors), c.to(device=tensors[0].device, dtype=dtype))


def reference(
    product: Tensor, x: Tensor, offset: Tensor, scale: Tensor, c: Tensor, *, min_alpha: float = 0.0
) -> Tensor:
    """The distances in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    p, u, o, s, k = _widen(c, product, x, offset, scale)
    _, _, inverse, lift = _terms(u, k, min_alpha)
    return (s * torch.asinh(p * inverse - o * lift)).to(x.dtype)


def backward_reference(
    grad: Tensor,
    product: Tensor,
    x: Tensor,
    offset: Tensor,
    scale: Tensor,
    c: Tensor,
    *,
    min_alpha: float = 0.0,
    kept: int = 0,
) -> tuple[Tensor, ...]:
    """Gradients for every operand; that of `c` for each row, `[*batch, 1]`."""
    g, p, u, o, s, k = _widen(c, grad, product, x, offset, scale)
    squares, moves, inverse, lift = _terms(u, k, min_alpha)
    argument = p * inverse - o * lift
    of_argument = g * s / torch.sqrt(1 + argument.square())
    of_products = (of_argument * p).sum(-1, keepdim=True)
    of_offsets = (of_argument * o).sum(-1, keepdim=True)
    along = torch.where(moves, (of_products - 2 * of_offsets) * inverse.square(), -of_offsets * inverse)
    return (
        (of_argument * inverse).to(x.dtype),
        (2 * k * along * u).to(x.dtype),
        _sum_points(-of_argument * lift, kept),
        _sum_points(g * torch.asinh(argument), kept),
        along * squares,
    )


def _sum_points(of_pairs: Tensor, kept: int) -> Tensor:
    """Sum over all points, of each of the first `kept` dimensions for itself."""
    return of_pairs.reshape(*of_pairs.shape[:kept], -1, of_pairs.shape[-1]).sum(kept)


def _check(product: Tensor, x: Tensor, offset: Tensor, scale: Tensor, c: Tensor, options: dict) -> None:
    checks.rows(_NAME, "product", product)
    checks.rows(_NAME, "x", x)
    for label, operand in (("x", x), ("offset", offset), ("scale", scale)):
        checks.same_dtype(_NAME, f"product and {label}", product, operand)
    for label, operand in (("x", x), ("offset", offset), ("scale", scale)):
        checks.same_device(_NAME, f"product and {label}", product, operand)
    fits = product.shape[:-1] == x.shape[:-1] and offset.dim() == 1 and scale.dim() == 1
    if not (fits and offset.shape[0] == product.shape[-1] and scale.shape[0] == product.shape[-1]):
        raise RuntimeError(
            f"stone::{_NAME}: expected product [*batch, planes], x [*batch, dim], offset [planes] and scale "
            f"[planes], got {checks.shape(product)}, {checks.shape(x)}, {checks.shape(offset)} and "
            f"{checks.shape(scale)}; all points share the hyperplanes"
        )
    checks.curvature(_NAME, c, (), x.device)
    checks.options(_NAME, **options)


def _fake(product: Tensor, x: Tensor, offset: Tensor, scale: Tensor, c: Tensor, **options: Any) -> Tensor:
    _check(product, x, offset, scale, c, options)
    return x.new_empty(product.shape)


def _backward_fake(
    grad: Tensor, product: Tensor, x: Tensor, offset: Tensor, scale: Tensor, c: Tensor, **options: Any
) -> tuple[Tensor, ...]:
    _check(product, x, offset, scale, c, options)
    checks.gradient(f"{_NAME}_backward", "grad and product", grad, product, product.shape)
    dtype = batching.compute_dtype(x)
    planes, row = (x.new_empty(offset.shape, dtype=dtype) for _ in range(2)), (*x.shape[:-1], 1)
    return x.new_empty(product.shape), x.new_empty(x.shape), *planes, x.new_empty(row, dtype=dtype)


def _vmap(op: Any, info: Any, in_dims: Any, *operands: Tensor, **options: Any) -> tuple[Tensor, int]:
    product, x = (
        batching.spread(t, d, info.batch_size) for t, d in zip(operands[:2], in_dims[:2], strict=True)
    )
    if all(d is None for d in in_dims[2:]):
        return op(product, x, *operands[2:], **options), 0
    return reference(product, x, *_shared(operands[2:], in_dims[2:], x), **options), 0


def _backward_vmap(
    op: Any, info: Any, in_dims: Any, *operands: Tensor, **options: Any
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    # The kernel sums over all points; here there is a sum for each mapped entry.
    rows = [batching.spread(t, d, info.batch_size) for t, d in zip(operands[:3], in_dims[:3], strict=True)]
    shared = _shared(operands[3:], in_dims[3:], rows[2])
    return backward_reference(*rows, *shared, **options, kept=1), (0,) * 5


def _shared(operands: Any, in_dims: Any, x: Tensor) -> list[Tensor]:
    """What all points share, to broadcast against `[mapped, *batch, planes]`."""
    return [
        t if d is None else batching.pad(t.movedim(d, 0), x.dim() - 1)
        for t, d in zip(operands, in_dims, strict=True)
    ]


OPERATOR = Operator(
    name=_NAME,
    arguments=_ARGUMENTS,
    backward_arguments="Tensor grad, " + _ARGUMENTS,
    backward_results="(Tensor, Tensor, Tensor, Tensor, Tensor)",
    reference=reference,
    backward_reference=backward_reference,
    fake=_fake,
    backward_fake=_backward_fake,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    dimensions=Dimensions(
        operands=("*p", "*d", "p", "p", ""), result="*p", gradients=("*p", "*d", "p", "p", "*1"), free="p"
    ),
)
declare(OPERATOR)
_CALL = Caller(_NAME)


def poincare_hyperplanes(
    product: Tensor, x: Tensor, offset: Tensor, scale: Tensor, c: Tensor, *, min_alpha: float = 0.0
) -> Tensor:
    """Scaled distances of points of the ball to hyperplanes, from products with their normals.

    `scale * asinh((product - offset (1 + c||x||^2)) / max(1 - c||x||^2, min_alpha))`.

    Args:
        product: `[*batch, planes]`, float32, float64, bfloat16 or float16.
        x: the points, `[*batch, dim]`, the dtype of `product`.
        offset, scale: `[planes]`, the dtype of `product`.
        c: curvature, a floating tensor with one element; it is not inspected.
        min_alpha: the least `1 - c||x||^2`; 0 is no guard.

    Raises:
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> one = torch.ones(1)
    >>> poincare_hyperplanes(torch.tensor([[1.0]]), torch.tensor([[0.5]]), 0 * one, one, torch.tensor(1.0))
    tensor([[1.0986]])
    """
    return _CALL(product, x, offset, scale, c, min_alpha=min_alpha)
