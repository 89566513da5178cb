"""The Poincaré ball of curvature `-c`: points `x` with `c * ||x||^2 < 1`.

The guards are chosen so that every result is finite: at the origin, and for points that rounding put on the
boundary or beyond it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stonefx import ops


def boundary(dtype: torch.dtype) -> float:
    """The largest `sqrt(c) * ||x||` that `logmap0` tells from the boundary: `1 - eps` of the dtype.

    >>> boundary(torch.float16)
    0.9990234375
    """
    return 1.0 - torch.finfo(dtype).eps


def expmap0(v: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Map tangent vectors at the origin to points of the ball.

    `tanh(sqrt(c) ||v||) v / (sqrt(c) ||v||)` (Ganea et al. 2018, equation 8); 0 goes to 0, and the gradient
    there is the identity. For long vectors `tanh` rounds to 1 and the point lies on the boundary: see `logmap0`.

    Args:
        v: tangent vectors, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: a wrong dtype, shape or device.

    >>> expmap0(torch.tensor([3.0, 4.0]), 0.01)
    tensor([2.7727, 3.6969])
    >>> expmap0(torch.zeros(2))
    tensor([0., 0.])
    """
    return ops.expmap0(v, c)


def logmap0(y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Map points of the ball to tangent vectors at the origin, the inverse of `expmap0`.

    `artanh(min(u, 1 - eps)) y / u` with `u = sqrt(c) ||y||` (Ganea et al. 2018, equation 9); `eps` is that of the
    dtype, so points on the boundary or beyond it give long but finite vectors.

    Args:
        y: points, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: a wrong dtype, shape or device.

    >>> logmap0(torch.tensor([0.3, 0.4]))
    tensor([0.3296, 0.4394])
    >>> logmap0(torch.tensor([1.0, 0.0]))
    tensor([8.3178, 0.0000])
    """
    return (
        ops.logmap0(y, c, atanh_limit=boundary(y.dtype)) if y.dtype.is_floating_point else ops.logmap0(y, c)
    )


def mobius_add(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Add points of the ball: `x` translated by `y`, neither commutative nor associative.

    `((1 + 2c<x,y> + c||y||^2) x + (1 - c||x||^2) y) / (1 + 2c<x,y> + c^2 ||x||^2 ||y||^2)` (Ganea et al.
    2018, equation 3). The denominator is kept at 1e-15 or more: it vanishes for opposite points of the boundary.

    Args:
        x, y: points `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> mobius_add(torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    >>> mobius_add(torch.tensor([-0.3, 0.4]), torch.tensor([0.3, -0.4]))
    tensor([0., 0.])
    """
    return ops.mobius_add(x, y, c, min_denominator=1e-15)


def cdist(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Distances of all pairs of points of the ball.

    `2 / sqrt(c) * asinh(sqrt(c ||x - y||^2 / (alpha beta)))` with `alpha = 1 - c||x||^2` and `beta` likewise, which
    is `2 / sqrt(c) * artanh(sqrt(c) ||-x + y||)` (Ganea et al. 2018, equation 7) with all digits of near points.
    Norms are formed in float64; points on the boundary or beyond it count as 2^-52 before it. The gradient of
    coincident points is 0. No `[n, m, dim]` temporary is made.

    Args:
        x: points, `[*batch, n, dim]`, float32, float64, bfloat16 or float16.
        y: points, `[*batch, m, dim]`, the dtype of `x`; the batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1, 1]`.

    Returns:
        `[*batch, n, m]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> cdist(torch.tensor([[0.5, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [-0.5, 0.0]]))
    tensor([[1.0986, 2.1972],
            [0.0000, 1.0986]])
    """
    return ops.poincare_cdist(x, y, c, min_alpha=torch.finfo(torch.float64).eps)
