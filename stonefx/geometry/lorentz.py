"""The hyperboloid of curvature `-c`: rows `(x0, x)` with `-x0^2 + ||x||^2 = -1/c`, time first.

The time component of a point is taken from its space components, and that of a tangent vector from tangency: rounding
never takes a point off the hyperboloid, and the gradient of a stored time is 0. Only `inner` reads what is stored.
Inner products are summed in float64. Gradients are finite: that of `dist(x, x)` is 0. The argument of cosh is kept at
`log(max) - 2` of the dtype or less, 86.7 in float32.
"""

from __future__ import annotations

import torch

from stonefx.ops.calling import RowOperator
from stonefx.ops.curvature import number, operand

from . import midpoints
from .bounds import of

_INNER = RowOperator("lorentz_inner")
_EXPMAP0 = RowOperator("lorentz_expmap0")
_LOGMAP0 = RowOperator("lorentz_logmap0")
_EXPMAP = RowOperator("lorentz_expmap")
_LOGMAP = RowOperator("lorentz_logmap")
_DIST = RowOperator("lorentz_dist")
_PROJECT = RowOperator("lorentz_project")
_GEODESIC = RowOperator("lorentz_geodesic")
_TRANSPORT = RowOperator("lorentz_transport")
_TO_POINCARE = RowOperator("lorentz_to_poincare")
_TO_KLEIN = RowOperator("lorentz_to_klein")


def inner(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The Minkowski product `-x0 y0 + <x, y>` of any rows, `[*batch]`.

    Args:
        x, y: `[*batch, 1 + dim]` of one floating dtype; their batch dimensions broadcast.

    Raises:
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> inner(torch.tensor([1.25, 0.75]), torch.tensor([1.25, 0.75]))
    tensor(-1.)
    """
    return _INNER(x, y)


def expmap0(v: torch.Tensor, c: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Map tangent vectors at `(1 / sqrt(c), 0)` to points: `(cosh(u) / sqrt(c), sinh(u) / u v)`, `u = sqrt(c) ||v||`.

    Args:
        v: tangent vectors, `[*batch, 1 + dim]`; their time component is 0 there, and not read.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> expmap0(torch.tensor([0.0, 1.0]))
    tensor([1.5431, 1.1752])
    """
    return _EXPMAP0(v, operand("expmap0", v, c), max_argument=of(v).argument)


def logmap0(x: torch.Tensor, c: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Map points to tangent vectors at `(1 / sqrt(c), 0)`, the inverse of `expmap0`.

    `(0, asinh(u) / u x)` with `u = sqrt(c) ||x||`, which loses no digit near the origin as arcosh does.

    Args:
        x: points, `[*batch, 1 + dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> logmap0(torch.tensor([1.25, 0.75]))
    tensor([0.0000, 0.6931])
    """
    return _LOGMAP0(x, operand("logmap0", x, c))


def expmap(x: torch.Tensor, v: torch.Tensor, c: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Follow the geodesic that leaves `x` with velocity `v` for time 1.

    `cosh(u) x + sinh(u) / u v` with `u = sqrt(c <v, v>)`.

    Args:
        x: points, `[*batch, 1 + dim]`; v: tangent vectors there, of the same dtype; batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> expmap(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]))
    tensor([1.5431, 1.1752, 0.0000])
    """
    return _EXPMAP(x, v, operand("expmap", x, c), max_argument=of(x).argument)


def logmap(x: torch.Tensor, y: torch.Tensor, c: float | torch.Tensor = 1.0) -> torch.Tensor:
    """The velocity at `x` with which a geodesic reaches `y` at time 1, the inverse of `expmap`.

    `u / sinh(u) (y - cosh(u) x)` with `u = sqrt(c) d(x, y)`.

    Args:
        x, y: points, `[*batch, 1 + dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> logmap(torch.tensor([1.0, 0.0]), torch.tensor([1.25, 0.75]))
    tensor([0.0000, 0.6931])
    """
    return _LOGMAP(x, y, operand("logmap", x, c))


def dist(x: torch.Tensor, y: torch.Tensor, c: float | torch.Tensor = 1.0) -> torch.Tensor:
    """The distance of points, `[*batch]`: `arcosh(-c <x, y>) / sqrt(c)`, computed from differences.

    `2 / sqrt(c) asinh(sqrt(c <x - y, x - y>) / 2)` is right for neighbours too, where the product is 1 to rounding.

    Args:
        x, y: points, `[*batch, 1 + dim]` of one floating dtype; their batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> dist(torch.tensor([1.0, 0.0]), torch.tensor([1.25, 0.75]))
    tensor(0.6931)
    """
    return _DIST(x, y, operand("dist", x, c))


def project(x: torch.Tensor, c: float | torch.Tensor = 1.0) -> torch.Tensor:
    """Put rows on the hyperboloid: the space components stay, the time becomes `sqrt(1/c + ||x||^2)`.

    Args:
        x: any rows, `[*batch, 1 + dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> project(torch.tensor([9.0, 0.75]))
    tensor([1.2500, 0.7500])
    """
    return _PROJECT(x, operand("project", x, c))


def geodesic(
    x: torch.Tensor, y: torch.Tensor, t: float | torch.Tensor, c: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """The point that has gone `t` of the way from `x` (0) to `y` (1).

    `(sinh((1 - t) u) x + sinh(t u) y) / sinh(u)` with `u = sqrt(c) d(x, y)`.

    Args:
        x, y: points, `[*batch, 1 + dim]` of one floating dtype; their batch dimensions broadcast.
        t: a finite float, or a floating tensor, 0-dim or broadcasting to `[*batch, 1]`; outside [0, 1] the line
            goes on.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> geodesic(torch.tensor([1.0, 0.0]), torch.tensor([1.25, 0.75]), 0.5)
    tensor([1.0607, 0.3536])
    """
    return _GEODESIC(x, y, operand("geodesic", x, c), number("geodesic", "t", x, t))


def parallel_transport(
    x: torch.Tensor, y: torch.Tensor, v: torch.Tensor, c: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """Carry the tangent vector `v` from `x` to `y` along their geodesic.

    `v + c <y, v> / (1 - c <x, y>) (x + y)`.

    Args:
        x, y: points; v: tangent vectors at `x`; `[*batch, 1 + dim]` of one dtype, batch dimensions broadcast.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> parallel_transport(torch.tensor([1.0, 0.0]), torch.tensor([1.25, 0.75]), torch.tensor([0.0, 1.0]))
    tensor([0.7500, 1.2500])
    """
    return _TRANSPORT(x, y, v, operand("parallel_transport", x, c))


def centroid(
    points: torch.Tensor, weights: torch.Tensor | None = None, c: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """The weighted centroid of points: `s / sqrt(-c <s, s>)` with `s = sum w x` (Law et al. 2019).

    Of two points with one weight it is the middle of their geodesic. The sums are float64.

    Args:
        points: `[*batch, n, 1 + dim]`.
        weights: `[*batch, n]` or broadcasting to that, at least 0 and not all 0; by default all 1.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite, or `points` has fewer than two dimensions.
        RuntimeError: a wrong dtype, shape or device.

    >>> centroid(torch.tensor([[1.25, 0.75], [1.25, -0.75]]))
    tensor([1., 0.])
    """
    return midpoints.centroid(points, weights, c)


def to_poincare(x: torch.Tensor, c: float | torch.Tensor = 1.0) -> torch.Tensor:
    """The point of the Poincaré ball: `x / (1 + sqrt(c) x0)`.

    Args:
        x: points, `[*batch, 1 + dim]`; the result is `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> to_poincare(torch.tensor([1.25, 0.75]))
    tensor([0.3333])
    """
    return _TO_POINCARE(x, operand("to_poincare", x, c), max_radius=of(x).radius)


def to_klein(x: torch.Tensor, c: float | torch.Tensor = 1.0) -> torch.Tensor:
    """The point of the Klein ball: `x / (sqrt(c) x0)`.

    Args:
        x: points, `[*batch, 1 + dim]`; the result is `[*batch, dim]`.
        c: curvature, a positive float, or a positive floating tensor, 0-dim or broadcasting to `[*batch, 1]`.

    Raises:
        ValueError: a Python float `c` is not positive and finite.
        RuntimeError: wrong or different dtypes, shapes or devices.

    >>> to_klein(torch.tensor([1.25, 0.75]))
    tensor([0.6000])
    """
    return _TO_KLEIN(x, operand("to_klein", x, c), max_radius=of(x).radius)
