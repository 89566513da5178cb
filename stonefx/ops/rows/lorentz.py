"""The row operators of the hyperboloid `-x0^2 + ||x||^2 = -1/c`, time component first.

But for `lorentz_inner`, and `lorentz_rescale`, whose rows are no points yet, the time of an operand is taken from its
space components, `x0 = sqrt(1/c + ||x||^2)`, and that of a tangent vector from tangency: what is stored there is not
read, and its gradient is 0. So rounding never takes a point off the hyperboloid, and distances of neighbours keep
their digits (`||x - y||` is formed first).
Guards, none by default: `max_argument` bounds the argument of cosh and sinh, `min_norm` norms, `min_squares` their
squares, and `min_argument` the argument of arcosh; no gradient passes where one holds.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..library import declare
from . import analytic as a
from . import far_rows
from .row_formula import RowFormula


class _Points(NamedTuple):
    """Two points: times and their difference, times `sqrt(c)`, and `sinh(sqrt(c) d / 2)^2`; `pair` holds far out."""

    x: Tensor
    y: Tensor
    b: Tensor
    x_time: Tensor
    y_time: Tensor
    time_difference: Tensor
    half: Tensor
    pair: far_rows.Pair


def _points(p: Tensor, q: Tensor, c: Tensor) -> _Points:
    x, y = p[..., 1:], q[..., 1:]
    b = y - x
    x_time, y_time = (1 + c * a.inner(x, x)).sqrt(), (1 + c * a.inner(y, y)).sqrt()
    time_difference = c * (2 * a.inner(x, b) + a.inner(b, b)) / (x_time + y_time)
    apart = (time_difference * x - (1 + x_time) * b) / ((1 + x_time).sqrt() * (1 + y_time).sqrt())
    pair = far_rows.pair(x, y, c)
    half = torch.where(pair.f.far, pair.half, 0.25 * c * a.inner(apart, apart))
    return _Points(x, y, b, x_time, y_time, time_difference, half, pair)


def _with_time(time: Tensor, space: Tensor) -> Tensor:
    return torch.cat([time, space], -1)


def _inner(x: Tensor, y: Tensor) -> Tensor:
    """`-x0 y0 + <x, y>` of any rows, of what is stored."""
    return a.inner(x[..., 1:], y[..., 1:]) - x[..., :1] * y[..., :1]


def _expmap0(v: Tensor, c: Tensor, *, min_norm: float, max_argument: float) -> Tensor:
    """`(cosh(u) / sqrt(c), sinh(u) / u v)` with `u = sqrt(c) ||v||`."""
    space = v[..., 1:]
    u2 = c * a.at_least(a.inner(space, space), min_norm * min_norm)
    bounded = a.at_most_squared(u2, max_argument)
    return _with_time(a.cosh(bounded) / c.sqrt(), a.sinhc(bounded) * a.shrink_to(max_argument, u2) * space)


def _logmap0(x: Tensor, c: Tensor) -> Tensor:
    """`(0, asinh(u) / u x)` with `u = sqrt(c) ||x||`."""
    space = x[..., 1:]
    return _with_time(torch.zeros_like(x[..., :1]), a.asinhc(c * a.inner(space, space)) * space)


def _expmap(x: Tensor, v: Tensor, c: Tensor, *, max_argument: float) -> Tensor:
    """`cosh(u) x + sinh(u) / u v` with `u = sqrt(c <v, v>)`."""
    point, tangent = x[..., 1:], v[..., 1:]
    x_time = (1 + c * a.inner(point, point)).sqrt()
    v_time = c * a.inner(point, tangent) / x_time
    along = tangent - v_time / (1 + x_time) * point
    f = far_rows.point(point, c, far_rows.is_far(x_time, x_time))
    across = f.part(tangent)
    # The velocity along the ray of x, and the square of that across it.
    outwards, squares = f.along(tangent, c) / f.time, c * a.inner(across, across)
    u2 = torch.where(f.far, outwards.square() + squares, c * a.inner(along, along))
    bounded = a.at_most_squared(u2, max_argument)
    of_x, of_v = a.cosh(bounded), a.sinhc(bounded) * a.shrink_to(max_argument, u2)
    time = of_x * x_time + of_v * v_time
    forward = outwards > 0
    large = of_x + of_v * torch.where(forward, outwards, -outwards)
    small = (1 + of_v * of_v * squares) / large
    ahead, behind = (
        f.ahead * torch.where(forward, large, small),
        f.behind * torch.where(forward, small, large),
    )
    space = torch.where(
        f.far,
        0.5 * (ahead - behind) / f.length * f.point + of_v * across,
        of_x * point + of_v * tangent,
    )
    time = torch.where(f.far, 0.5 * (ahead + behind), time)
    return _with_time(a.at_least(time, 1.0) / c.sqrt(), space)


def _logmap(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """`u / sinh(u) (y - cosh(u) x)` with `u = sqrt(c) d(x, y)`."""
    p = _points(x, y, c)
    n, f = p.pair, p.pair.f
    k = a.asinhc(p.half) / (1 + p.half).sqrt()
    time = k * (p.time_difference - 2 * p.half * p.x_time)
    of_f = torch.where(
        n.second, k * (n.slant * n.time / f.length - n.across), -k * n.slant * f.time / f.length
    )
    of_n = torch.where(n.second, -k * n.cosh, k)
    far_time = torch.where(n.second, k * (n.slant * n.along - n.across * f.time), -k * n.slant * f.length)
    space = torch.where(f.far, of_f * f.point + of_n * n.n_part, k * (p.b - 2 * p.half * p.x))
    return _with_time(torch.where(f.far, far_time, time) / c.sqrt(), space)


def _dist(x: Tensor, y: Tensor, c: Tensor, *, min_argument: float) -> Tensor:
    """`arcosh(max(-c <x, y>, min_argument)) / sqrt(c)`."""
    half = a.at_least(_points(x, y, c).half, max(0.5 * (min_argument - 1), 0.0))
    return 2 * a.asinh_of_square(half) / c.sqrt()


def _project(x: Tensor, c: Tensor) -> Tensor:
    """The space components as they are, under the time that puts them on the hyperboloid."""
    space = x[..., 1:]
    return _with_time((1 + c * a.inner(space, space)).sqrt() / c.sqrt(), space)


def _geodesic(x: Tensor, y: Tensor, c: Tensor, t: Tensor) -> Tensor:
    """`(sinh((1 - t) u) x + sinh(t u) y) / sinh(u)` with `u = sqrt(c) d(x, y)`."""
    p = _points(x, y, c)
    squared_length = 4 * p.half * a.asinhc(p.half).square()
    of_x, of_y = a.share_of_arc(1 - t, squared_length), a.share_of_arc(t, squared_length)
    time = a.at_least(of_x * p.x_time + of_y * p.y_time, 1.0) / c.sqrt()
    return _with_time(time, of_x * p.x + of_y * p.y)


def _transport(x: Tensor, y: Tensor, v: Tensor, c: Tensor) -> Tensor:
    """`v + c <y, v> / (1 + cosh(u)) (x + y)` with `u = sqrt(c) d(x, y)`."""
    p, tangent = _points(x, y, c), v[..., 1:]
    v_time = c * a.inner(p.x, tangent) / p.x_time
    k = 0.5 * (c * a.inner(p.b, tangent) - p.time_difference * v_time) / (1 + p.half)
    space, time = tangent + k * (p.x + p.y), v_time + k * (p.x_time + p.y_time)
    far_space, far_time = _far_transport(p.pair, tangent, c)
    far = p.pair.f.far
    return _with_time(torch.where(far, far_time, time) / c.sqrt(), torch.where(far, far_space, space))


def _far_transport(n: far_rows.Pair, v: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The space of a vector that was carried, and its time: linear in its part along `f` and `<n_part, v_part>`."""
    f, whole = n.f, 1 + n.cosh
    v_part, along = f.part(v), f.along(v, c)
    across, slant = c * a.inner(n.n_part, v_part), n.slant / whole
    ahead, behind = f.ahead + n.ahead, f.behind + n.behind
    outwards = (
        0.5 * (f.behind * ahead * (ahead / whole) - f.ahead * (n.across / whole)) * along / f.time
        + ahead / whole * across,
        -(behind / whole + n.behind * slant) * along / f.time + behind / whole * across,
        -slant * along / f.time + across / whole,
    )
    twice = n.behind + f.behind * (2 + 2 * n.across + f.behind * n.ahead)
    inwards = (
        ((n.ahead + slant * ahead) * along + (1 - f.time * (ahead / whole)) * across) / n.time,
        (f.behind * (f.length + n.along) * across - 0.5 * twice * along) / whole / n.time,
        (slant * along - f.time / whole * across) / n.time,
    )
    of_ahead, of_behind, k = (torch.where(n.second, i, o) for i, o in zip(inwards, outwards, strict=True))
    space = 0.5 * (of_ahead - of_behind) / f.length * f.point + k * n.n_part + v_part
    return space, 0.5 * (of_ahead + of_behind)


def _rescale(y: Tensor, c: Tensor, scale: Tensor, *, offset: float, min_squares: float) -> Tensor:
    """`(w / sqrt(c), sqrt((w^2 - 1) / (c ||s||^2)) s)` of rows `(t, s)`, `w = max(offset + scale sigmoid(t), 1)`."""
    space = y[..., 1:]
    w = a.at_least(scale * torch.sigmoid(y[..., :1]) + offset, 1.0)
    squares = a.inner(space, space)
    squares = a.at_least(squares, min_squares) if min_squares else squares
    ratio = (w - 1) * (w + 1) / (c * torch.where(squares == 0, 1.0, squares))
    moves = (squares > 0) & (ratio > 0)
    factor = torch.where(moves, torch.where(moves, ratio, 1.0).sqrt(), 0.0)
    return _with_time(torch.where(squares == 0, 1.0, w) / c.sqrt(), factor * space)


RESCALE = RowFormula(
    name="lorentz_rescale",
    vectors=("y",),
    scalars=("c", "scale"),
    reference=_rescale,
    guards=("offset", "min_squares"),
    time_in=True,
    time_out=True,
)
DIST = RowFormula(
    name="lorentz_dist",
    vectors=("x", "y"),
    reference=_dist,
    guards=("min_argument",),
    gives_number=True,
    time_in=True,
)
FORMULAS = (
    RowFormula(
        name="lorentz_inner",
        vectors=("x", "y"),
        scalars=(),
        reference=_inner,
        gives_number=True,
        time_in=True,
    ),
    RowFormula(
        name="lorentz_expmap0",
        vectors=("v",),
        reference=_expmap0,
        guards=("min_norm", "max_argument"),
        time_in=True,
        time_out=True,
    ),
    RowFormula(name="lorentz_logmap0", vectors=("x",), reference=_logmap0, time_in=True, time_out=True),
    RowFormula(
        name="lorentz_expmap",
        vectors=("x", "v"),
        reference=_expmap,
        guards=("max_argument",),
        time_in=True,
        time_out=True,
    ),
    RowFormula(name="lorentz_logmap", vectors=("x", "y"), reference=_logmap, time_in=True, time_out=True),
    DIST,
    RowFormula(name="lorentz_project", vectors=("x",), reference=_project, time_in=True, time_out=True),
    RowFormula(
        name="lorentz_geodesic",
        vectors=("x", "y"),
        scalars=("c", "t"),
        reference=_geodesic,
        time_in=True,
        time_out=True,
    ),
    RowFormula(
        name="lorentz_transport", vectors=("x", "y", "v"), reference=_transport, time_in=True, time_out=True
    ),
    RESCALE,
)
for _formula in FORMULAS:
    declare(_formula.operator())
