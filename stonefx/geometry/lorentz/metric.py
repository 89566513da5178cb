"""Products, distances, geodesics and centroids of the hyperboloid."""

from __future__ import annotations

from torch import Tensor

from stonefx import ops

from .. import midpoints
from ..function import Function, along

_INNER = Function("inner", "lorentz_inner", numbers=())
_DIST = Function("dist", "lorentz_dist")
_GEODESIC = Function("geodesic", "lorentz_geodesic", numbers=("c", "t"))


def inner(x: Tensor, y: Tensor) -> Tensor:
    """The Minkowski product `-x0 y0 + <x, y>` of any rows, `[*batch]`.

    Args:
        x, y: `[*batch, 1 + dim]` of one floating dtype; their batch dimensions broadcast.

    Raises:
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> inner(torch.tensor([1.25, 0.75]), torch.tensor([1.25, 0.75]))
    tensor(-1.)
    """
    return _INNER(x, y)


def dist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The distance of points, `[*batch]`: `arcosh(-c <x, y>) / sqrt(c)`, computed from differences.

    `2 / sqrt(c) asinh(sqrt(c <x - y, x - y>) / 2)` is right for neighbours too, where the product is 1 to rounding.

    Args:
        x, y: points, `[*batch, 1 + dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> dist(torch.tensor([1.0, 0.0]), torch.tensor([1.25, 0.75]))
    tensor(0.6931)
    """
    return _DIST(x, y, c)


def cdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The distances of all pairs of points, `[*batch, n, m]`, without an `[n, m, dim]` temporary.

    Args:
        x: points, `[*batch, n, 1 + dim]`; y: `[*batch, m, 1 + dim]`, of the same dtype; batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> cdist(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.25, 0.75], [1.0, 0.0]]))
    tensor([[0.6931, 0.0000]])
    """
    return ops.lorentz_cdist(x, y, c)


def geodesic(x: Tensor, y: Tensor, t: float | Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point that has gone `t` of the way from `x` (0) to `y` (1).

    `(sinh((1 - t) u) x + sinh(t u) y) / sinh(u)` with `u = sqrt(c) d(x, y)`.

    Args:
        x, y: points, `[*batch, 1 + dim]` of one floating dtype; their batch dimensions broadcast.
        t: a finite float, or a floating tensor, 0-dim or broadcasting with `[*batch, 1]`, so that `[n, 1]` gives `n`
            points of one line; outside [0, 1] the line goes on.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> geodesic(torch.tensor([1.0, 0.0]), torch.tensor([1.25, 0.75]), 0.5)
    tensor([1.0607, 0.3536])
    """
    return _GEODESIC(along(x, t), y, c, t)


def centroid(points: Tensor, weights: Tensor | None = None, c: float | Tensor = 1.0) -> Tensor:
    """The weighted centroid of points: `s / sqrt(-c <s, s>)` with `s = sum w x` (Law et al. 2019).

    Of two points with one weight it is the middle of their geodesic. The sums are float64.

    Args:
        points: `[*batch, n, 1 + dim]`.
        weights: `[*batch, n]` or broadcasting to that, at least 0 (not looked at); by default all 1. The centroid
            without points, or with weights that are all 0, is the origin.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite, or `points` has fewer than two
            dimensions.
        RuntimeError: a wrong dtype, shape or device.

    >>> import torch
    >>> centroid(torch.tensor([[1.25, 0.75], [1.25, -0.75]]))
    tensor([1., 0.])
    """
    return midpoints.centroid(points, weights, c)
