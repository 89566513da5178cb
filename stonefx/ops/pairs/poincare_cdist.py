"""`stone::poincare_cdist`: distances of all pairs of points of the Poincaré ball."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor

from .. import batching
from ..calling import Caller
from ..curvature import positive
from ..library import NO_LIMIT, declare
from .cdist import Guards, ball_distances, ball_gradients, ball_sides, check_operands, operator
from .poincare_cdist_epilogue import CALL as EPILOGUE

_NAME = "poincare_cdist"


def reference(x: Tensor, y: Tensor, c: Tensor, *, min_alpha: float = 0.0, **guards: float) -> Tensor:
    """The distances in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    return ball_distances(ball_sides(x, y, c, min_alpha), Guards(**guards)).to(x.dtype)


def gradients(
    grad: Tensor, x: Tensor, y: Tensor, c: Tensor, *, min_alpha: float = 0.0, **guards: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for `x` and `y` as if neither broadcast, and for one curvature a matrix, `[*batch, 1, 1]`."""
    u, v = (points.expand(*grad.shape[:-2], *points.shape[-2:]) for points in (x, y))
    sides = ball_sides(u, v, c, min_alpha)
    moves = (sides.alpha > min_alpha, sides.beta > min_alpha)
    grad_x, grad_y, grad_c = ball_gradients(grad.to(sides.x.dtype), sides, moves, Guards(**guards))
    return grad_x.to(x.dtype), grad_y.to(x.dtype), grad_c.to(batching.compute_dtype(x))


OPERATOR = operator(
    _NAME,
    ("min_alpha", "atanh_limit", "min_denominator", "denominator_offset"),
    f"Tensor x, Tensor y, Tensor c, *, float min_alpha=0, float atanh_limit={NO_LIMIT:.0e}, "
    "float min_denominator=0, float denominator_offset=0",
    reference,
    gradients,
)
declare(OPERATOR)
_CALL = Caller(_NAME)


Mode = Literal["accurate", "fast"]


def poincare_cdist(
    x: Tensor,
    y: Tensor,
    c: float | Tensor = 1.0,
    *,
    min_alpha: float = 0.0,
    atanh_limit: float = NO_LIMIT,
    min_denominator: float = 0.0,
    denominator_offset: float = 0.0,
    mode: Mode = "accurate",
) -> Tensor:
    """Distances of all pairs of points of the Poincaré ball of curvature `-c`.

    `2 / sqrt(c) * min(asinh(z), artanh(atanh_limit))`, `z = sqrt(c ||x - y||^2 / (alpha beta))`,
    `alpha = max(1 - c||x||^2, min_alpha)` and `beta` likewise. This is
    `2 / sqrt(c) * artanh(min(sqrt(c) ||-x + y||, atanh_limit))` with Möbius addition (Ganea et al. 2018, equation 7)
    in a form that keeps the digits of near points. No `[n, m, dim]` temporary is made, forward or backward; the
    gradient is 0 for coincident points. The distances run in the dtype they are given, under autocast too.

    Args:
        x: points, `[*batch, n, dim]`, float32, float64, bfloat16 or float16.
        y: points, `[*batch, m, dim]`, the dtype of `x`; the batch dimensions broadcast.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1, 1]`.
            One number on the CPU is looked at; what is not positive elsewhere gives NaN.
        min_alpha: points with less than this left to the boundary count as that far; 0 is no guard, and gives
            infinity for points on the boundary and NaN for points beyond it.
        atanh_limit: bound of the argument of artanh, below 1; the default is none.
        min_denominator, denominator_offset: the denominator `d = alpha beta + c ||x - y||^2` of Möbius addition becomes
            `max(d, min_denominator) + denominator_offset`, as libraries have it; the defaults are none.
        mode: "accurate" forms differences, right for near points; "fast" takes `||x||^2 + ||y||^2 - 2 <x, y>` by a
            matrix product in torch, which loses the digits of points that are nearer than `sqrt(eps)` of their norms,
            and makes one more matrix of the result's size, with gradients two.

    Returns:
        `[*batch, n, m]`, in the dtype of `x`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite, or `mode` is none of the two.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> poincare_cdist(torch.tensor([[0.5, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.5, 0.0], [-0.5, 0.0]]))
    tensor([[1.0986, 0.0000, 2.1972],
            [0.0000, 1.0986, 1.0986]])
    """
    if mode not in ("accurate", "fast"):
        raise ValueError(f"poincare_cdist: expected mode 'accurate' or 'fast', got {mode!r}")
    curvature = positive(_NAME, x, c)
    guards = Guards(min(atanh_limit, NO_LIMIT), min_denominator, denominator_offset)
    if mode == "fast":
        return _by_products(x, y, curvature, min_alpha, guards)
    return _CALL(x, y, curvature, min_alpha=min_alpha, **guards._asdict())


def _by_products(x: Tensor, y: Tensor, c: Tensor, min_alpha: float, guards: Guards) -> Tensor:
    check_operands(_NAME, x, y, c, min_alpha=min_alpha, **guards._asdict())
    device = x.device.type
    # Meta tensors have no autocast to leave.
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        dtype = batching.compute_dtype(x)
        product = x.to(dtype) @ y.to(dtype).mT
    return EPILOGUE(product, x, y, c, min_alpha=min_alpha, **guards._asdict())
