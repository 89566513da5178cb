"""Addition and multiplication in the Poincaré ball: its gyrovector space."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import midpoints
from ..function import Function, not_tensors

_MOBIUS_ADD = Function(
    "mobius_add", "mobius_add", lambda b: {"min_denominator": 1e-15, "max_radius": b.radius}
)
_SCALAR_MUL = Function(
    "mobius_scalar_mul",
    "mobius_scalar_mul",
    lambda b: {"min_gap": b.gap, "max_radius": b.radius},
    numbers=("c", "r"),
)
_MATVEC = Function("mobius_matvec", "mobius_matvec", lambda b: {"min_gap": b.gap, "max_radius": b.radius})


def mobius_add(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Add points of the ball: `x` translated by `y`, neither commutative nor associative.

    `((1 + 2c<x,y> + c||y||^2) x + (1 - c||x||^2) y) / (1 + 2c<x,y> + c^2 ||x||^2 ||y||^2)` (Ganea et al.
    2018, equation 3). The denominator is kept at 1e-15 or more: it vanishes for opposite points of the boundary.

    Args:
        x, y: points `[*batch, dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> mobius_add(torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    >>> mobius_add(torch.tensor([-0.3, 0.4]), torch.tensor([0.3, -0.4]))
    tensor([0., 0.])
    """
    return _MOBIUS_ADD(x, y, c)


def mobius_scalar_mul(r: float | Tensor, x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Multiply the distance of `x` from the origin by `r`.

    `tanh(r artanh(sqrt(c) ||x||)) x / (sqrt(c) ||x||)` (Ganea et al. 2018, equation 4); 0 stays 0.

    Args:
        r: a finite float, or a floating tensor, 0-dim or broadcasting to `[*batch, 1]`.
        x: points, `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> mobius_scalar_mul(2.0, torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    """
    return _SCALAR_MUL(x, c, r)


def mobius_matvec(weight: Tensor, x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Multiply by a matrix in the tangent space of the origin: `expmap0(logmap0(x) weight^T)`.

    `tanh(||Mx|| / ||x|| artanh(sqrt(c) ||x||)) Mx / (sqrt(c) ||Mx||)` (Ganea et al. 2018, equation 27).

    Under autocast it computes in the dtype of `weight`, as layers do: bfloat16 has too few digits near the boundary.

    Args:
        weight: `[out, in]`; x: points, `[*batch, in]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        TypeError: `weight` or `x` is no tensor, or `c` neither a number nor a tensor.
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> mobius_matvec(torch.eye(2) * 2, torch.tensor([0.5, 0.0]))
    tensor([0.8000, 0.0000])
    """
    if not (isinstance(weight, Tensor) and isinstance(x, Tensor)):
        raise not_tensors("mobius_matvec", weight=weight, x=x)
    if _is_autocast(x):
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(weight.dtype)
            return _MATVEC(torch.nn.functional.linear(x, weight), x, c)
    return _MATVEC(torch.nn.functional.linear(x, weight), x, c)


def _is_autocast(x: Tensor) -> bool:
    """Whether autocast is on for the device of `x`; the name of a device is slow to get, so CPUs go first."""
    if x.is_cpu:
        return torch.is_autocast_enabled("cpu")
    return not x.is_meta and torch.is_autocast_enabled(x.device.type)  # torch refuses to be asked about meta


def gyromidpoint(points: Tensor, weights: Tensor | None = None, c: float | Tensor = 1.0) -> Tensor:
    """The weighted midpoint of points: `m / (1 + sqrt(1 - c ||m||^2))`, `m = sum w g x / sum w (g - 1/2)`.

    With `g = 1 / (1 - c ||x||^2)` (Ungar 2010); of two points with one weight it is the middle of their geodesic.
    The sums are float64. Without points, or with weights that are all 0, it is the origin.

    Args:
        points: `[*batch, n, dim]`.
        weights: `[*batch, n]` or broadcasting with that, at least 0, by default all 1. They are not looked at: with
            some below 0 the sums may be those of no point, and the result then means nothing.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        TypeError: `points` or `weights` is no tensor, or `c` neither a number nor a tensor.
        ValueError: `c`, a float or one number on the CPU, is not positive and finite, or `points` has fewer than two
            dimensions.
        RuntimeError: a wrong dtype, shape or device.

    >>> gyromidpoint(torch.tensor([[0.5, 0.0], [0.0, 0.0]]))
    tensor([0.2679, 0.0000])
    """
    return midpoints.gyromidpoint(points, weights, c)
