"""The sphere of curvature `c`: points `x` with `||x||^2 = 1/c`.

Antipodes have no shortest path of their own: `logmap` and `geodesic` are finite there, and mean nothing. Gradients are
finite; those of `dist` at equal points and at antipodes are 0.
"""

from __future__ import annotations

from torch import Tensor

from stonefx.ops.checks import shape
from stonefx.ops.curvature import positive

from .function import Function, along, is_number, not_a_number, not_tensors

__all__ = ["cdist", "dist", "expmap", "geodesic", "logmap", "project"]

_EXPMAP = Function("expmap", "sphere_expmap")
_LOGMAP = Function("logmap", "sphere_logmap")
_DIST = Function("dist", "sphere_dist")
_PROJECT = Function("project", "sphere_project")
_GEODESIC = Function("geodesic", "sphere_geodesic", numbers=("c", "t"))


def expmap(x: Tensor, v: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Follow the great circle that leaves `x` with velocity `v` for time 1.

    `cos(u) x + sin(u) / u v` with `u = sqrt(c) ||v||`, up to 1e5; the part of `v` along `x` is left out.

    Args:
        x: points, `[*batch, dim]`; v: tangent vectors there, of the same dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> expmap(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.5]))
    tensor([0.8776, 0.4794])
    """
    return _EXPMAP(x, v, c)


def logmap(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The velocity at `x` with which a great circle reaches `y` at time 1, the inverse of `expmap`.

    `u / sin(u) (y - cos(u) x)` with `u = sqrt(c) d(x, y)`.

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> logmap(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    tensor([0.0000, 1.5708])
    """
    return _LOGMAP(x, y, c)


def dist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The distance of points, `[*batch]`: `2 / sqrt(c) atan(||x - y|| / ||x + y||)`, right at every angle.

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> dist(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    tensor(1.5708)
    """
    return _DIST(x, y, c)


def cdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The distances of all pairs of points, `[*batch, n, m]`.

    Args:
        x: points, `[*batch, n, dim]`; y: `[*batch, m, dim]`, of the same dtype; batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1, 1]`.

    Raises:
        TypeError: `x` or `y` is no tensor, or `c` neither a number nor a tensor.
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> cdist(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    tensor([[1.5708, 3.1416]])
    """
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise not_tensors("cdist", x=x, y=y)
    for label, points in (("x", x), ("y", y)):
        if points.dim() < 2:
            raise RuntimeError(
                f"cdist: {label} must be [*batch, points, dim] with at least two dimensions, got {shape(points)}; use "
                f"{label}.unsqueeze(0)"
            )
    if not is_number(c):
        raise not_a_number("cdist", "c", c)
    curvature = positive("cdist", x, c)
    # One of fewer dimensions, or with one for each point, would broadcast along the columns without a word.
    if curvature.dim() and (curvature.shape[-1:] != (1,) or curvature.shape[-2:-1] not in ((), (1,))):
        raise RuntimeError(
            f"cdist: c must be 0-dim or broadcast to [*batch, 1, 1], got {shape(curvature)} with x {shape(x)} and y "
            f"{shape(y)}; give one curvature for each pair of sets of points"
        )
    return _DIST(x.unsqueeze(-2), y.unsqueeze(-3), curvature.unsqueeze(-1) if curvature.dim() else curvature)


def project(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Put rows on the sphere: `x / (sqrt(c) ||x||)`. 0 has no nearest point and stays 0, with gradient
    0.

    Args:
        x: any rows, `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> project(torch.tensor([3.0, 4.0]))
    tensor([0.6000, 0.8000])
    """
    return _PROJECT(x, c)


def geodesic(x: Tensor, y: Tensor, t: float | Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point that has gone `t` of the way from `x` (0) to `y` (1).

    `(sin((1 - t) u) x + sin(t u) y) / sin(u)` with `u = sqrt(c) d(x, y)`.

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        t: a finite float, or a floating tensor, 0-dim or broadcasting with `[*batch, 1]`, so that `[n, 1]` gives `n`
            points of one circle; outside [0, 1] it goes on.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> geodesic(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5)
    tensor([0.7071, 0.7071])
    """
    return _GEODESIC(along(x, t), y, c, t)
