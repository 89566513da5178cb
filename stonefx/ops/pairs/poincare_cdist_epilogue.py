"""`stone::poincare_cdist_epilogue`: distances of all pairs of points of the Poincaré ball from their inner products.

`||x - y||^2` is taken as `||x||^2 + ||y||^2 - 2 <x, y>`, at least 0; the rest is as in `poincare_cdist`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..calling import Caller
from ..library import NO_LIMIT, Operator, declare
from ..sharding import Dimensions
from .cdist import Guards, ball_distances, ball_sides, check_operands, squares_of_products, widen

_NAME = "poincare_cdist_epilogue"
_ARGUMENTS = (
    f"Tensor product, Tensor x, Tensor y, Tensor c, *, float min_alpha=0, float atanh_limit={NO_LIMIT:.0e}, "
    "float min_denominator=0, float denominator_offset=0"
)


def reference(
    product: Tensor, x: Tensor, y: Tensor, c: Tensor, *, min_alpha: float = 0.0, **guards: float
) -> Tensor:
    """The distances in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    sides = ball_sides(x, y, c, min_alpha)
    squares = squares_of_products(sides.x, sides.y, product)
    return ball_distances(sides, Guards(**guards), squares).to(x.dtype)


def gradients(
    grad: Tensor, product: Tensor, x: Tensor, y: Tensor, c: Tensor, **options: float
) -> tuple[Tensor, ...]:
    """Gradients for the products, for `x` and `y` as if neither broadcast, and for one curvature a matrix."""
    u, v, k = widen(x, y, c)
    batch = grad.shape[:-2]
    whole = [product, *(t.expand(*batch, *t.shape[-2:]) for t in (u, v)), k.expand(*batch, 1, 1)]
    with torch.enable_grad():
        pull = torch.func.vjp(lambda p, a, b, c: reference(p, a, b, c, **options), *whole)[1]
        of_product, of_x, of_y, of_c = pull(grad.to(u.dtype))
    return of_product, of_x.to(x.dtype), of_y.to(x.dtype), of_c


def _check(product: Tensor, x: Tensor, y: Tensor, c: Tensor, options: dict[str, float]) -> tuple[int, ...]:
    batch = check_operands(_NAME, x, y, c, **options)
    dtype, expected = batching.compute_dtype(x), (*batch, x.shape[-2], y.shape[-2])
    if product.dtype != dtype or tuple(product.shape) != expected:
        raise RuntimeError(
            f"stone::{_NAME}: product must be {checks.show(dtype)} {list(expected)}, got "
            f"{checks.show(product.dtype)} {checks.shape(product)}; it is x @ y.mT in the dtype that x computes in"
        )
    checks.same_device(_NAME, "product and x", product, x)
    return batch


def _fake(product: Tensor, x: Tensor, y: Tensor, c: Tensor, **options: float) -> Tensor:
    _check(product, x, y, c, options)
    return x.new_empty(product.shape)


def _backward_fake(
    grad: Tensor, product: Tensor, x: Tensor, y: Tensor, c: Tensor, **options: float
) -> tuple[Tensor, ...]:
    batch = _check(product, x, y, c, options)
    checks.gradient(f"{_NAME}_backward", "grad and x", grad, x, product.shape)
    of_points = (x.new_empty((*batch, *points.shape[-2:])) for points in (x, y))
    return product.new_empty(product.shape), *of_points, product.new_empty((*batch, 1, 1))


def _batched(info: Any, in_dims: Any, product: Tensor, x: Tensor, y: Tensor, c: Tensor) -> list[Tensor]:
    product, x = (
        batching.spread(t, d, info.batch_size) for t, d in zip((product, x), in_dims[:2], strict=True)
    )
    return batching.align([product, x, y, c], [0, 0, *in_dims[2:4]])


def _vmap(op: Any, info: Any, in_dims: Any, *operands: Tensor, **options: float) -> tuple[Tensor, int]:
    return op(*_batched(info, in_dims, *operands), **options), 0


def _backward_vmap(
    op: Any, info: Any, in_dims: Any, grad: Tensor, *operands: Tensor, **options: float
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    grad = batching.spread(grad, in_dims[0], info.batch_size)
    return op(grad, *_batched(info, in_dims[1:], *operands), **options), (0, 0, 0, 0)


OPERATOR = Operator(
    name=_NAME,
    arguments=_ARGUMENTS,
    backward_arguments="Tensor grad, " + _ARGUMENTS,
    backward_results="(Tensor, Tensor, Tensor, Tensor)",
    reference=reference,
    backward_reference=gradients,
    fake=_fake,
    backward_fake=_backward_fake,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    dimensions=Dimensions(operands=("*nm", "*nd", "*md", "*11"), result="*nm", free="nm"),
)
declare(OPERATOR)
CALL = Caller(_NAME)
