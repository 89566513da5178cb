"""`stone::mobius_add`: addition in the Poincaré ball."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import batching, checks
from ..calling import Caller
from ..curvature import operand
from ..library import NO_LIMIT, Operator, declare
from ..sharding import Dimensions

_NAME = "mobius_add"
_ARGUMENTS = (
    "Tensor x, Tensor y, Tensor c, *, float min_denominator=0, float denominator_offset=0, "
    f"float max_radius={NO_LIMIT:.0e}"
)


def reference(
    x: Tensor,
    y: Tensor,
    c: Tensor,
    *,
    min_denominator: float = 0.0,
    denominator_offset: float = 0.0,
    max_radius: float = NO_LIMIT,
) -> Tensor:
    """The sum in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    _, terms = _terms(x, y, c, min_denominator, denominator_offset)
    a, b, _, denominator = terms[-4:]
    u, v, k = terms[:3]
    z = (a * u + b * v) / denominator
    return (z * _shrink(z, k, max_radius)[0]).to(x.dtype)


def _shrink(z: Tensor, c: Tensor, max_radius: float) -> tuple[Tensor, Tensor]:
    """What each row is multiplied by, and whether it is beyond the radius."""
    scaled = c.sqrt() * torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    beyond = scaled > max_radius
    return torch.where(beyond, max_radius / torch.where(beyond, scaled, 1.0), 1.0), beyond


def _terms(
    x: Tensor, y: Tensor, c: Tensor, min_denominator: float, denominator_offset: float
) -> tuple[torch.dtype, tuple[Tensor, ...]]:
    dtype = batching.compute_dtype(x)
    u, v, k = x.to(dtype), y.to(dtype), c.to(device=x.device, dtype=dtype)
    uv = (u * v).sum(-1, keepdim=True)
    uu, vv = (u * u).sum(-1, keepdim=True), (v * v).sum(-1, keepdim=True)
    a, b = 1 + 2 * k * uv + k * vv, 1 - k * uu
    raw = 1 + 2 * k * uv + k * k * uu * vv
    clamped = raw.clamp_min(min_denominator) if min_denominator else raw
    return dtype, (u, v, k, uv, uu, vv, a, b, raw, clamped + denominator_offset)


def backward_reference(
    grad: Tensor,
    x: Tensor,
    y: Tensor,
    c: Tensor,
    *,
    min_denominator: float = 0.0,
    denominator_offset: float = 0.0,
    max_radius: float = NO_LIMIT,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for `x` and `y` as if neither broadcast, and for the curvature of each row."""
    dtype, terms = _terms(x, y, c, min_denominator, denominator_offset)
    u, v, k, uv, uu, vv, a, b, raw, denominator = terms
    z = (a * u + b * v) / denominator
    shrink, beyond = _shrink(z, k, max_radius)
    # Along a row at the radius nothing passes, but to the radius itself.
    along = (grad.to(dtype) * z).sum(-1, keepdim=True)
    squares = torch.where(beyond, (z * z).sum(-1, keepdim=True), 1.0)
    g = shrink * (grad.to(dtype) - torch.where(beyond, along / squares, 0.0) * z)
    of_radius = torch.where(beyond, -shrink * along / (2 * torch.where(beyond, k, 1.0)), 0.0)
    gu, gv = (g * u).sum(-1, keepdim=True), (g * v).sum(-1, keepdim=True)
    grad_a, grad_b = gu / denominator, gv / denominator
    grad_raw = -(a * gu + b * gv) / denominator.square()
    if min_denominator:
        grad_raw = torch.where(raw >= min_denominator, grad_raw, 0.0)
    grad_uv = 2 * k * (grad_a + grad_raw)
    grad_uu = k * (k * vv * grad_raw - grad_b)
    grad_vv = k * (grad_a + k * uu * grad_raw)
    grad_x = a / denominator * g + 2 * grad_uu * u + grad_uv * v
    grad_y = b / denominator * g + grad_uv * u + 2 * grad_vv * v
    grad_c = of_radius + grad_a * (2 * uv + vv) - grad_b * uu + grad_raw * (2 * uv + 2 * k * uu * vv)
    return grad_x.to(x.dtype), grad_y.to(x.dtype), grad_c


def _check(x: Tensor, y: Tensor, c: Tensor, options: dict[str, float]) -> tuple[int, ...]:
    checks.rows(_NAME, "x", x)
    checks.rows(_NAME, "y", y)
    checks.same_dtype(_NAME, "x and y", x, y)
    checks.same_device(_NAME, "x and y", x, y)
    batch = checks.broadcast_batch(_NAME, x, y)
    checks.curvature(_NAME, c, batch, x.device)
    checks.options(_NAME, **options)
    return batch


def _fake(x: Tensor, y: Tensor, c: Tensor, **options: float) -> Tensor:
    return x.new_empty((*_check(x, y, c, options), x.shape[-1]))


def _backward_fake(
    grad: Tensor, x: Tensor, y: Tensor, c: Tensor, **options: float
) -> tuple[Tensor, Tensor, Tensor]:
    batch = _check(x, y, c, options)
    full = (*batch, x.shape[-1])
    checks.gradient("mobius_add_backward", "grad and x", grad, x, full)
    return x.new_empty(full), x.new_empty(full), x.new_empty((*batch, 1), dtype=batching.compute_dtype(x))


def _vmap(
    op: Any, info: Any, in_dims: Any, x: Tensor, y: Tensor, c: Tensor, **options: float
) -> tuple[Tensor, int]:
    return op(*_batched(in_dims, x, y, c), **options), 0


def _backward_vmap(
    op: Any, info: Any, in_dims: Any, grad: Tensor, x: Tensor, y: Tensor, c: Tensor, **options: float
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    grad = batching.spread(grad, in_dims[0], info.batch_size)
    x, y, c = _batched(in_dims[1:], x, y, c)
    # the batch of x and y alone must be the gradient's: give x the mapped dimension if none of them has it
    x = x.expand(grad.shape)
    return op(grad, x, y, c, **options), (0, 0, 0)


def _batched(in_dims: Any, x: Tensor, y: Tensor, c: Tensor) -> list[Tensor]:
    """Align the operands; where only `c` is mapped, `x` takes its mapped dimension too."""
    x_dim, y_dim, c_dim = in_dims[:3]
    if x_dim is None and y_dim is None and c_dim is not None:
        x, x_dim = x.expand(c.shape[c_dim], *x.shape), 0
    return batching.align((x, y, c), (x_dim, y_dim, c_dim))


OPERATOR = Operator(
    name=_NAME,
    arguments=_ARGUMENTS,
    backward_arguments="Tensor grad, " + _ARGUMENTS,
    backward_results="(Tensor, Tensor, Tensor)",
    reference=reference,
    backward_reference=backward_reference,
    fake=_fake,
    backward_fake=_backward_fake,
    vmap=_vmap,
    backward_vmap=_backward_vmap,
    dimensions=Dimensions(operands=("*d", "*d", "*1"), result="*d"),
)
declare(OPERATOR)
_CALL = Caller(_NAME)


def mobius_add(
    x: Tensor,
    y: Tensor,
    c: float | Tensor = 1.0,
    *,
    min_denominator: float = 0.0,
    denominator_offset: float = 0.0,
    max_radius: float = NO_LIMIT,
) -> Tensor:
    """Add points of the Poincaré ball of curvature `-c`.

    `((1 + 2c<x,y> + c||y||^2) x + (1 - c||x||^2) y) / (max(d, min_denominator) + denominator_offset)` with
    `d = 1 + 2c<x,y> + c^2||x||^2||y||^2` (Ganea et al. 2018, equation 3, with the guards that libraries add), shortened
    to `sqrt(c) ||z|| <= max_radius`.
    The sum runs in the dtype it is given, under autocast too.

    Args:
        x, y: points `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1]`.
            A tensor is not inspected; the formula has a value for any sign.
        min_denominator, denominator_offset, max_radius: the guards; the defaults are none.

    Returns:
        Points of the ball, `[*batch, dim]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> mobius_add(torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    """
    curvature = operand(_NAME, x, c)
    return _CALL(
        x,
        y,
        curvature,
        min_denominator=min_denominator,
        denominator_offset=denominator_offset,
        max_radius=min(max_radius, NO_LIMIT),
    )
