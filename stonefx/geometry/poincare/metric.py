"""Distances and geodesics of the Poincaré ball."""

from __future__ import annotations

import torch
from torch import Tensor

from stonefx import ops
from stonefx.ops.pairs.poincare_cdist import Mode

from ..function import Function, along, is_number, not_a_number, not_tensors

_DIST = Function("dist", "poincare_dist", lambda b: {"min_gap": b.gap})
_DIST0 = Function("dist0", "poincare_dist0", lambda b: {"min_gap": b.gap})
_CONFORMAL_FACTOR = Function("conformal_factor", "conformal_factor", lambda b: {"min_gap": b.gap})
_GEODESIC = Function(
    "geodesic",
    "poincare_geodesic",
    lambda b: {"min_gap": b.gap, "max_radius": b.radius},
    numbers=("c", "t"),
)


def dist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The distance of points, `[*batch]`.

    `2 / sqrt(c) artanh(sqrt(c) ||-x (+) y||)` (Ganea et al. 2018), computed as
    `2 / sqrt(c) asinh(sqrt(c) ||x - y|| / sqrt((1 - c ||x||^2) (1 - c ||y||^2)))`: neighbours keep their digits.
    `1 - c ||x||^2` is kept at the `eps` of the dtype or more, so points of the ball are at most `34.7 / sqrt(c)` apart
    in float32, 74.9 in float64, 12.5 in bfloat16 and 16.6 in float16; `cdist` keeps it at 2^-52: 74.9 in each.

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> dist(torch.tensor([0.5, 0.0]), torch.tensor([-0.5, 0.0]))
    tensor(2.1972)
    """
    return _DIST(x, y, c)


def dist0(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The distance of points from the origin, `[*batch]`: `2 / sqrt(c) artanh(sqrt(c) ||x||)`.

    `1 - c ||x||^2` is kept at the `eps` of the dtype or more, so a point of the ball is at most `17.3 / sqrt(c)` away
    in float32, 37.4 in float64, 6.25 in bfloat16 and 8.32 in float16.

    Args:
        x: points, `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> dist0(torch.tensor([0.5, 0.0]))
    tensor(1.0986)
    """
    return _DIST0(x, c)


def cdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0, *, mode: Mode = "accurate") -> Tensor:
    """Distances of all pairs of points of the ball.

    `2 / sqrt(c) * asinh(sqrt(c ||x - y||^2 / (alpha beta)))` with `alpha = 1 - c||x||^2` and `beta` likewise, which
    is `2 / sqrt(c) * artanh(sqrt(c) ||-x + y||)` (Ganea et al. 2018, equation 7) with all digits of near points.
    Norms are formed in float64; `1 - c ||x||^2` is kept at 2^-52 or more, so points of the ball are at most
    `74.9 / sqrt(c)` apart in every dtype, where `dist` reaches 34.7 in float32 and less in half types. Rows far beyond
    the boundary may be infinitely far apart: project them first. The gradient of coincident points is 0. No
    `[n, m, dim]` temporary is made.

    Args:
        x: points, `[*batch, n, dim]`, float32, float64, bfloat16 or float16.
        y: points, `[*batch, m, dim]`, the dtype of `x`; the batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1, 1]`.
        mode: "accurate", or "fast": by one matrix product, which loses the digits of points nearer than `sqrt(eps)` of
            their norms, and makes another matrix of the result's size.

    Returns:
        `[*batch, n, m]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite, or `mode` is none of the two.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> cdist(torch.tensor([[0.5, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [-0.5, 0.0]]))
    tensor([[1.0986, 2.1972],
            [0.0000, 1.0986]])
    """
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise not_tensors("cdist", x=x, y=y)
    try:
        return ops.poincare_cdist(x, y, c, min_alpha=torch.finfo(torch.float64).eps, mode=mode)
    except TypeError as error:
        if is_number(c):
            raise
        raise not_a_number("cdist", "c", c) from error


def geodesic(x: Tensor, y: Tensor, t: float | Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The point that has gone `t` of the way from `x` (0) to `y` (1): `x (+) t (x) (-x (+) y)`.

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        t: a finite float, or a floating tensor, 0-dim or broadcasting with `[*batch, 1]`, so that `[n, 1]` gives `n`
            points of one line; outside [0, 1] the line goes on.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> geodesic(torch.tensor([0.5, 0.0]), torch.tensor([-0.5, 0.0]), 0.5)
    tensor([0., 0.])
    """
    return _GEODESIC(along(x, t), y, c, t)


def conformal_factor(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """How much longer than in the ball a small vector at `x` is: `2 / (1 - c ||x||^2)`, `[*batch]`.

    `1 - c ||x||^2` is kept at the `eps` of the dtype or more, so the factor is at most `2 / eps`: 1.7e7 in float32,
    from a distance of `17.3 / sqrt(c)` on, 9.0e15 in float64 (37.4), 256 in bfloat16 (6.25) and 2048 in float16 (8.32).

    Args:
        x: points, `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> conformal_factor(torch.tensor([0.5, 0.0]))
    tensor(2.6667)
    """
    return _CONFORMAL_FACTOR(x, c)
