"""The Klein ball of curvature `-c`: points `x` with `c * ||x||^2 < 1`, where geodesics are straight.

Bounds and gradients are those of the Poincaré ball: results are finite, points stay inside.
"""

from __future__ import annotations

from torch import Tensor

from stonefx import ops

from . import midpoints, poincare
from .bounds import Bounds, of
from .function import Function, along

__all__ = [
    "add",
    "cdist",
    "dist",
    "einstein_midpoint",
    "geodesic",
    "project",
    "scalar_mul",
    "to_lorentz",
    "to_poincare",
]


def _inside(b: Bounds) -> dict[str, float]:
    return {"min_gap": b.gap, "max_radius": b.radius}


_ADD = Function("add", "klein_add", _inside)
_DIST = Function("dist", "klein_dist", lambda b: {"min_gap": b.gap})
_GEODESIC = Function("geodesic", "klein_geodesic", _inside, numbers=("c", "t"))
_TO_POINCARE = Function("to_poincare", "klein_to_poincare", _inside)
_TO_LORENTZ = Function("to_lorentz", "klein_to_lorentz", lambda b: {"min_gap": b.gap})


def add(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Einstein addition: `(x + y / g + c g / (1 + g) <x, y> x) / (1 + c <x, y>)`, `g = 1 / sqrt(1 - c ||x||^2)`.

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> add(torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    """
    return _ADD(x, y, c)


def scalar_mul(r: float | Tensor, x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Multiply the distance of `x` from the origin by `r`: `tanh(r artanh(sqrt(c) ||x||)) x / (sqrt(c) ||x||)`.

    Args:
        r: a finite float, or a floating tensor, 0-dim or broadcasting to `[*batch, 1]`.
        x: points, `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> scalar_mul(2.0, torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    """
    return poincare.mobius_scalar_mul(r, x, c)  # one function of the radius in both balls


def dist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The distance of points, `[*batch]`, computed from their difference.

    `arcosh((1 - c <x, y>) / sqrt((1 - c ||x||^2) (1 - c ||y||^2))) / sqrt(c)`.

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> dist(torch.tensor([0.8, 0.0]), torch.tensor([-0.8, 0.0]))
    tensor(2.1972)
    """
    return _DIST(x, y, c)


def cdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The distances of all pairs of points, `[*batch, n, m]`, without an `[n, m, dim]` temporary.

    Args:
        x: points, `[*batch, n, dim]`; y: `[*batch, m, dim]`, of the same dtype; batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> cdist(torch.tensor([[0.8, 0.0]]), torch.tensor([[-0.8, 0.0], [0.8, 0.0]]))
    tensor([[2.1972, 0.0000]])
    """
    return ops.klein_cdist(x, y, c, min_alpha=of(x).gap)


def geodesic(x: Tensor, y: Tensor, t: float | Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the segment from `x` (`t` = 0) to `y` (1) that has gone `t` of their distance.

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        t: a finite float, or a floating tensor, 0-dim or broadcasting with `[*batch, 1]`, so that `[n, 1]` gives `n`
            points of one line; outside [0, 1] the line goes on.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> geodesic(torch.tensor([0.8, 0.0]), torch.tensor([0.0, 0.0]), 0.5)
    tensor([0.5000, 0.0000])
    """
    return _GEODESIC(along(x, t), y, c, t)


def einstein_midpoint(points: Tensor, weights: Tensor | None = None, c: float | Tensor = 1.0) -> Tensor:
    """The weighted midpoint of points: `sum w g x / sum w g`, `g = 1 / sqrt(1 - c ||x||^2)` (Ungar 2010).

    Of two points with one weight it is the middle of their geodesic. The sums are float64.

    Args:
        points: `[*batch, n, dim]`.
        weights: `[*batch, n]` or broadcasting to that, at least 0 (not looked at); by default all 1. The midpoint
            without points, or with weights that are all 0, is the origin.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite, or `points` has fewer than two
            dimensions.
        RuntimeError: a wrong dtype, shape or device.

    >>> import torch
    >>> einstein_midpoint(torch.tensor([[0.8, 0.0], [0.0, 0.0]]))
    tensor([0.5000, 0.0000])
    """
    return midpoints.einstein_midpoint(points, weights, c)


def project(x: Tensor, c: float | Tensor = 1.0, eps: float | None = None) -> Tensor:
    """Shorten rows that are longer than `(1 - eps) / sqrt(c)` to that, as in the Poincaré ball.

    Args:
        x: any rows, `[*batch, dim]`.
        eps: the margin; by default 4e-3 for float32 and float16, 1e-5 for float64, 2^-6 for bfloat16.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> project(torch.tensor([3.0, 4.0]))
    tensor([0.5976, 0.7968])
    """
    return poincare.project(x, c, eps)


def to_poincare(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the Poincaré ball: `x / (1 + sqrt(1 - c ||x||^2))`.

    Args:
        x: points, `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> to_poincare(torch.tensor([0.8, 0.0]))
    tensor([0.5000, 0.0000])
    """
    return _TO_POINCARE(x, c)


def to_lorentz(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point of the hyperboloid, time first: `(1, sqrt(c) x) / sqrt(c (1 - c ||x||^2))`.

    Args:
        x: points, `[*batch, dim]`; the result is `[*batch, dim + 1]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> to_lorentz(torch.tensor([0.6, 0.0]))
    tensor([1.2500, 0.7500, 0.0000])
    """
    return _TO_LORENTZ(x, c)
