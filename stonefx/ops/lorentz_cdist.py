"""`stone::lorentz_cdist`: distances of all pairs of points of the hyperboloid."""

from __future__ import annotations

import torch
from torch import Tensor

from . import ball_image, batching, checks
from .calling import Caller
from .cdist import operator, widen
from .curvature import operand
from .library import declare

_NAME = "lorentz_cdist"


def reference(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """The distances in plain torch, differentiable, in the dtype of `x` (half types compute in float32)."""
    u, v, k = widen(x, y, c)
    images = (ball_image.of_hyperboloid(u, k), ball_image.of_hyperboloid(v, k))
    return ball_image.distances(*images, k).to(x.dtype)


def gradients(grad: Tensor, x: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients for `x` and `y` as if neither broadcast, and for one curvature a matrix, `[*batch, 1, 1]`."""
    u, v, k = widen(x, y, c)
    u, v = (p.expand(*grad.shape[:-2], *p.shape[-2:]) for p in (u, v))
    images = (ball_image.of_hyperboloid(u, k), ball_image.of_hyperboloid(v, k))
    grad_x, grad_y, grad_c = ball_image.gradients(grad.to(u.dtype), *images, k)
    # time has no part in the distances
    grad_x, grad_y = (torch.nn.functional.pad(g, (1, 0)) for g in (grad_x, grad_y))
    return grad_x.to(x.dtype), grad_y.to(x.dtype), grad_c.to(batching.compute_dtype(x))


def _check_time(x: Tensor) -> None:
    if x.shape[-1] == 0:
        raise RuntimeError(
            "stone::lorentz_cdist: points of the hyperboloid are [*batch, points, 1 + dim], time first, got x "
            f"{checks.shape(x)}; prepend sqrt(1/c + ||x||^2)"
        )


OPERATOR = operator(_NAME, (), "Tensor x, Tensor y, Tensor c", reference, gradients, _check_time)
declare(OPERATOR)
_CALL = Caller(_NAME)


def lorentz_cdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Distances of all pairs of points of the hyperboloid of curvature `-c`.

    `1 / sqrt(c) * arcosh(c (x0 y0 - <xs, ys>))` with `x0 = sqrt(1/c + ||xs||^2)` formed from the space components,
    so that points that rounding moved off the hyperboloid count as on it, and time has gradient 0. Computed as
    distances of the images `xs / (1 + sqrt(c) x0)` in the Poincaré ball, in float64 for every dtype: arcosh loses
    the digits of near points. No `[n, m, dim]` temporary is made, forward or backward; the gradient is 0 for
    coincident points.

    Args:
        x: points, time first, `[*batch, n, 1 + dim]`, float32, float64, bfloat16 or float16.
        y: points, `[*batch, m, 1 + dim]`, the dtype of `x`; the batch dimensions broadcast.
        c: curvature, a positive float, or a floating tensor that is 0-dim or broadcasts to `[*batch, 1, 1]`.
            A tensor is not inspected.

    Returns:
        `[*batch, n, m]`, in the dtype of `x`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> origin, away = [1.0, 0.0, 0.0], [1.25, 0.75, 0.0]
    >>> lorentz_cdist(torch.tensor([origin, away]), torch.tensor([origin, away]))
    tensor([[0.0000, 0.6931],
            [0.6931, 0.0000]])
    """
    curvature = operand(_NAME, x, c)
    return _CALL(x, y, curvature)
