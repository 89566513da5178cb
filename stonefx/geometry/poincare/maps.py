"""Maps between the Poincaré ball and its tangent spaces."""

from __future__ import annotations

import torch
from torch import Tensor

from ..function import Function

_EXPMAP0 = Function("expmap0", "expmap0", lambda b: {"tanh_limit": b.tangent})
_LOGMAP0 = Function("logmap0", "logmap0", lambda b: {"atanh_limit": 1 - b.eps})
_EXPMAP = Function(
    "expmap", "expmap", lambda b: {"min_gap": b.gap, "min_denominator": 1e-30, "max_radius": b.radius}
)
_LOGMAP = Function("logmap", "logmap", lambda b: {"min_gap": b.gap})
_TRANSPORT = Function("parallel_transport", "poincare_transport", lambda b: {"min_gap": b.gap})


def boundary(dtype: torch.dtype) -> float:
    """The largest `sqrt(c) * ||x||` that `logmap0` tells from the boundary: `1 - eps` of the dtype.

    >>> boundary(torch.float16)
    0.9990234375
    """
    return 1.0 - torch.finfo(dtype).eps


def expmap0(v: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Map tangent vectors at the origin to points of the ball.

    `tanh(sqrt(c) ||v||) v / (sqrt(c) ||v||)` (Ganea et al. 2018, equation 8); 0 goes to 0, and the gradient
    there is the identity. Vectors that would lead closer to the boundary than `1 - 2 eps` are shortened.

    Args:
        v: tangent vectors, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: a wrong dtype, shape or device.

    >>> expmap0(torch.tensor([3.0, 4.0]), 0.01)
    tensor([2.7727, 3.6969])
    >>> expmap0(torch.zeros(2))
    tensor([0., 0.])
    """
    return _EXPMAP0(v, c)


def logmap0(y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Map points of the ball to tangent vectors at the origin, the inverse of `expmap0`.

    `artanh(min(u, 1 - eps)) y / u` with `u = sqrt(c) ||y||` (Ganea et al. 2018, equation 9); `eps` is that of the
    dtype, so points on the boundary or beyond it give finite vectors, `8.32 / sqrt(c)` long in float32, 18.4 in
    float64, 2.77 in bfloat16 and 3.81 in float16, for a distance of twice that; `cdist` tells points farther apart.

    Args:
        y: points, `[*batch, dim]`, float32, float64, bfloat16 or float16.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: a wrong dtype, shape or device.

    >>> logmap0(torch.tensor([0.3, 0.4]))
    tensor([0.3296, 0.4394])
    >>> logmap0(torch.tensor([1.0, 0.0]))
    tensor([8.3178, 0.0000])
    """
    return _LOGMAP0(y, c)


def expmap(x: Tensor, v: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Follow the geodesic that leaves `x` with velocity `v` for time 1.

    `x (+) tanh(sqrt(c) lambda_x ||v|| / 2) v / (sqrt(c) ||v||)`, `lambda_x = 2 / (1 - c ||x||^2)` (Ganea et al.
    2018, equation 5).

    Args:
        x: points, `[*batch, dim]`; v: tangent vectors there, of the same dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> expmap(torch.tensor([0.5, 0.0]), torch.tensor([0.0, 0.75]))
    tensor([0.6900, 0.4989])
    """
    return _EXPMAP(x, v, c)


def logmap(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The velocity at `x` with which a geodesic reaches `y` at time 1, the inverse of `expmap`.

    `2 / (sqrt(c) lambda_x) artanh(sqrt(c) ||w||) w / ||w||` with `w = -x (+) y` (Ganea et al. 2018, equation 5).

    Args:
        x, y: points, `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> logmap(torch.tensor([0.0, 0.0]), torch.tensor([0.3, 0.4]))
    tensor([0.3296, 0.4394])
    """
    return _LOGMAP(x, y, c)


def parallel_transport(x: Tensor, y: Tensor, v: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Carry the tangent vector `v` from `x` to `y` along their geodesic: `(lambda_x / lambda_y) gyr[y, -x] v`.

    Args:
        x, y: points; v: tangent vectors at `x`; `[*batch, dim]` of one floating dtype, batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> parallel_transport(torch.zeros(2), torch.tensor([0.5, 0.0]), torch.tensor([0.0, 1.0]))
    tensor([0.0000, 0.7500])
    """
    return _TRANSPORT(x, y, v, c)
