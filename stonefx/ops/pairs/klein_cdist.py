"""`stone::klein_cdist`: distances of all pairs of points of the Klein model."""

from __future__ import annotations

from torch import Tensor

from .. import batching
from ..calling import Caller
from ..curvature import positive
from ..library import declare
from . import ball_image
from .cdist import operator, widen

_NAME = "klein_cdist"


def reference(x: Tensor, y: Tensor, c: Tensor, *, min_alpha: float = 0.0) -> Tensor:
    """The distances in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    u, v, k = widen(x, y, c)
    images = (ball_image.of_klein(u, k, min_alpha), ball_image.of_klein(v, k, min_alpha))
    return ball_image.distances(*images, k).to(x.dtype)


def gradients(
    grad: Tensor, x: Tensor, y: Tensor, c: Tensor, *, min_alpha: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for `x` and `y` as if neither broadcast, and for one curvature a matrix, `[*batch, 1, 1]`."""
    u, v, k = widen(x, y, c)
    u, v = (p.expand(*grad.shape[:-2], *p.shape[-2:]) for p in (u, v))
    images = (ball_image.of_klein(u, k, min_alpha), ball_image.of_klein(v, k, min_alpha))
    grad_x, grad_y, grad_c = ball_image.gradients(grad.to(u.dtype), *images, k)
    return grad_x.to(x.dtype), grad_y.to(x.dtype), grad_c.to(batching.compute_dtype(x))


OPERATOR = operator(
    _NAME, ("min_alpha",), "Tensor x, Tensor y, Tensor c, *, float min_alpha=0", reference, gradients
)
declare(OPERATOR)
_CALL = Caller(_NAME)


def klein_cdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0, *, min_alpha: float = 0.0) -> Tensor:
    """Distances of all pairs of points of the Klein model of curvature `-c`.

    `1 / sqrt(c) * arcosh((1 - c<x, y>) / sqrt(a b))`, `a = max(1 - c||x||^2, min_alpha)` and `b` likewise (Ungar
    2008), computed as distances of the images `x / (1 + sqrt(a))` in the Poincaré ball, in float64 for every dtype:
    arcosh loses the digits of near points. No `[n, m, dim]` temporary is made, forward or backward; the gradient is
    0 for coincident points.

    Args:
        x: points, `[*batch, n, dim]`, float32, float64, bfloat16 or float16.
        y: points, `[*batch, m, dim]`, the dtype of `x`; the batch dimensions broadcast.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1, 1]`.
            One number on the CPU is looked at; what is not positive elsewhere gives NaN.
        min_alpha: points with less than this left to the boundary count as that far; 0 is no guard, and gives NaN
            for points beyond the boundary.

    Returns:
        `[*batch, n, m]`, in the dtype of `x`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices, or a negative guard.

    >>> import torch
    >>> klein_cdist(torch.tensor([[0.5, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [-0.5, 0.0]]))
    tensor([[0.5493, 1.0986],
            [0.0000, 0.5493]])
    """
    curvature = positive(_NAME, x, c)
    return _CALL(x, y, curvature, min_alpha=min_alpha)
