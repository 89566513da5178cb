"""Maps between the hyperboloid and its tangent spaces."""

from __future__ import annotations

from torch import Tensor

from ..function import Function

_EXPMAP0 = Function("expmap0", "lorentz_expmap0", lambda b: {"max_argument": b.argument})
_LOGMAP0 = Function("logmap0", "lorentz_logmap0")
_EXPMAP = Function("expmap", "lorentz_expmap", lambda b: {"max_argument": b.argument})
_LOGMAP = Function("logmap", "lorentz_logmap")
_TRANSPORT = Function("parallel_transport", "lorentz_transport")


def expmap0(v: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Map tangent vectors at `(1 / sqrt(c), 0)` to points: `(cosh(u) / sqrt(c), sinh(u) / u v)`, `u = sqrt(c) ||v||`.

    Args:
        v: tangent vectors, `[*batch, 1 + dim]`; their time component is 0 there, and not read.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> expmap0(torch.tensor([0.0, 1.0]))
    tensor([1.5431, 1.1752])
    """
    return _EXPMAP0(v, c)


def logmap0(x: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Map points to tangent vectors at `(1 / sqrt(c), 0)`, the inverse of `expmap0`.

    `(0, asinh(u) / u x)` with `u = sqrt(c) ||x||`, which loses no digit near the origin as arcosh does.

    Args:
        x: points, `[*batch, 1 + dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> logmap0(torch.tensor([1.25, 0.75]))
    tensor([0.0000, 0.6931])
    """
    return _LOGMAP0(x, c)


def expmap(x: Tensor, v: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Follow the geodesic that leaves `x` with velocity `v` for time 1.

    `cosh(u) x + sinh(u) / u v` with `u = sqrt(c <v, v>)`.

    Args:
        x: points, `[*batch, 1 + dim]`; v: tangent vectors there, of the same dtype; batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> expmap(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    tensor([1.5431, 1.1752, 0.0000])
    """
    return _EXPMAP(x, v, c)


def logmap(x: Tensor, y: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """The velocity at `x` with which a geodesic reaches `y` at time 1, the inverse of `expmap`.

    `u / sinh(u) (y - cosh(u) x)` with `u = sqrt(c) d(x, y)`.

    Args:
        x, y: points, `[*batch, 1 + dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> logmap(torch.tensor([1.0, 0.0]), torch.tensor([1.25, 0.75]))
    tensor([0.0000, 0.6931])
    """
    return _LOGMAP(x, y, c)


def parallel_transport(x: Tensor, y: Tensor, v: Tensor, c: float | Tensor = 1.0) -> Tensor:
    """Carry the tangent vector `v` from `x` to `y` along their geodesic.

    `v + c <y, v> / (1 - c <x, y>) (x + y)`.

    Args:
        x, y: points; v: tangent vectors at `x`; `[*batch, 1 + dim]` of one dtype, batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: `c`, a float or one number on the CPU, is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> import torch
    >>> parallel_transport(torch.tensor([1.0, 0.0]), torch.tensor([1.25, 0.75]), torch.tensor([0.0, 1.0]))
    tensor([0.7500, 1.2500])
    """
    return _TRANSPORT(x, y, v, c)
