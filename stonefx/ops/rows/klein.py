"""The row operators of the Klein ball, `c ||x||^2 < 1`, where geodesics are straight.

`min_gap` keeps `1 - c ||x||^2` at that or more, `max_radius` bounds `sqrt(c) ||result||`; both are none by default.
"""

from __future__ import annotations

from torch import Tensor

from ..library import declare
from . import analytic as a
from .row_formula import RowFormula


def _odds(x: Tensor, b: Tensor, c: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """`sinh(sqrt(c) d)^2` of `x` and `x + b`."""
    return c * (alpha * a.inner(b, b) + c * a.inner(x, b).square()) / (alpha * beta)


def _add(x: Tensor, y: Tensor, c: Tensor, *, min_gap: float, max_radius: float) -> Tensor:
    """Einstein addition, `(x + y / g + c g / (1 + g) <x, y> x) / (1 + c <x, y>)`, `g = 1 / sqrt(1 - c ||x||^2)`."""
    alpha, beta, s = a.gap(c, x, min_gap), a.gap(c, y, min_gap), x + y
    d = 0.5 * (alpha + beta + c * a.inner(s, s))
    width = alpha.sqrt()
    point = (c * a.inner(x, s) / (1 + width) * x + width * s) / d
    return a.shrink_to(max_radius, c * a.inner(point, point)) * point


def _dist(x: Tensor, y: Tensor, c: Tensor, *, min_gap: float) -> Tensor:
    """`arcosh((1 - c <x, y>) / sqrt((1 - c ||x||^2) (1 - c ||y||^2))) / sqrt(c)`."""
    odds = _odds(x, y - x, c, a.gap(c, x, min_gap), a.gap(c, y, min_gap))
    return a.asinh_of_square(odds) / c.sqrt()


def _geodesic(x: Tensor, y: Tensor, c: Tensor, t: Tensor, *, min_gap: float, max_radius: float) -> Tensor:
    """The point of the segment from `x` to `y` that has gone `t` of their distance."""
    alpha, beta, b = a.gap(c, x, min_gap), a.gap(c, y, min_gap), y - x
    odds = _odds(x, b, c, alpha, beta)
    squared_length = odds * a.asinhc(odds).square()
    of_x, of_y = (
        a.share_of_arc(1 - t, squared_length) * beta.sqrt(),
        a.share_of_arc(t, squared_length) * alpha.sqrt(),
    )
    point = x + of_y / (of_x + of_y) * b
    return a.shrink_to(max_radius, c * a.inner(point, point)) * point


_BOTH = ("min_gap", "max_radius")

FORMULAS = (
    RowFormula(name="klein_add", vectors=("x", "y"), reference=_add, guards=_BOTH),
    RowFormula(
        name="klein_dist", vectors=("x", "y"), reference=_dist, guards=("min_gap",), gives_number=True
    ),
    RowFormula(
        name="klein_geodesic", vectors=("x", "y"), scalars=("c", "t"), reference=_geodesic, guards=_BOTH
    ),
)
for _formula in FORMULAS:
    declare(_formula.operator())
