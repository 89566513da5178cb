"""The row operators of the sphere `||x||^2 = 1/c`; antipodes have no shortest path of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from ..library import declare
from . import analytic as a
from .row_formula import RowFormula

_TINY = 1e-300


def _squared_half_tangent(x: Tensor, y: Tensor) -> Tensor:
    """`tan(u / 2)^2` of the angle `u` between the points, bounded where they are antipodes."""
    apart, together = a.inner(x - y, x - y), a.inner(x + y, x + y)
    opposite = together * 1e30 < apart
    return torch.where(opposite, 1e30, apart / torch.where(opposite, 1.0, together))


def _expmap(x: Tensor, v: Tensor, c: Tensor) -> Tensor:
    """`cos(u) x + sin(u) / u v` with `u = sqrt(c) ||v||`, `v` made tangent and `x` brought to the sphere."""
    squares = a.at_least(a.inner(x, x), _TINY)
    tangent = v - a.inner(x, v) / squares * x
    u2 = c * a.inner(tangent, tangent)
    return a.cos(u2) * x / (c * squares).sqrt() + a.sinc(u2) * tangent


def _logmap(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """`u / sin(u) (y - cos(u) x)` with `u = sqrt(c) d(x, y)`."""
    tangent, b = _squared_half_tangent(x, y), y - x
    return a.atanc(tangent) * (1 + tangent) * (b + 0.5 * c * a.inner(b, b) * x)


def _dist(x: Tensor, y: Tensor, c: Tensor) -> Tensor:
    """`2 / sqrt(c) atan(||x - y|| / ||x + y||)`."""
    apart, together = a.root(a.inner(x - y, x - y)), a.root(a.inner(x + y, x + y))
    return 2 * torch.atan2(apart, together) / c.sqrt()


def _geodesic(x: Tensor, y: Tensor, c: Tensor, t: Tensor) -> Tensor:
    """`(sin((1 - t) u) x + sin(t u) y) / sin(u)` with `u = sqrt(c) d(x, y)`."""
    tangent = _squared_half_tangent(x, y)
    half = a.atanc(tangent)
    squared_length, k = 4 * tangent * half.square(), half * (1 + tangent)
    rest = 1 - t
    return k * (rest * a.sinc(rest.square() * squared_length) * x + t * a.sinc(t * t * squared_length) * y)


def _project(x: Tensor, c: Tensor) -> Tensor:
    """`x / (sqrt(c) ||x||)`; 0 stays 0, with gradient 0."""
    squares = a.inner(x, x)
    zero = squares < _TINY
    return torch.where(zero, 0.0, 1 / (c * torch.where(zero, 1.0, squares)).sqrt()) * x


FORMULAS = (
    RowFormula(name="sphere_expmap", vectors=("x", "v"), reference=_expmap),
    RowFormula(name="sphere_logmap", vectors=("x", "y"), reference=_logmap),
    RowFormula(name="sphere_dist", vectors=("x", "y"), reference=_dist, gives_number=True),
    RowFormula(name="sphere_geodesic", vectors=("x", "y"), scalars=("c", "t"), reference=_geodesic),
    RowFormula(name="sphere_project", vectors=("x",), reference=_project),
)
for _formula in FORMULAS:
    declare(_formula.operator())
