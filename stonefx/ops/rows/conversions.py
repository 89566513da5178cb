"""Row operators from one model of hyperbolic space to another: isometries, all along the ray of the point.

`min_gap` keeps `1 - c ||x||^2` at that or more, `max_radius` bounds `sqrt(c) ||result||`; both are none by default.
The time component of a point of the hyperboloid is taken from its space components.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..library import declare
from . import analytic as a
from .row_formula import RowFormula


def _poincare_to_lorentz(x: Tensor, c: Tensor, *, min_gap: float) -> Tensor:
    """`(1 + c ||x||^2, 2 sqrt(c) x) / (sqrt(c) (1 - c ||x||^2))`."""
    alpha = a.gap(c, x, min_gap)
    return torch.cat([(2 - alpha) / (alpha * c.sqrt()), 2 / alpha * x], -1)


def _poincare_to_klein(x: Tensor, c: Tensor, *, max_radius: float) -> Tensor:
    """`2 x / (1 + c ||x||^2)`."""
    squares = c * a.inner(x, x)
    k = 2 / (1 + squares)
    return k * a.shrink_to(max_radius, k.square() * squares) * x


def _lorentz_to_poincare(x: Tensor, c: Tensor, *, max_radius: float) -> Tensor:
    """`x / (1 + sqrt(c) x0)`."""
    space = x[..., 1:]
    squares = c * a.inner(space, space)
    k = 1 / (1 + (1 + squares).sqrt())
    return k * a.shrink_to(max_radius, k.square() * squares) * space


def _lorentz_to_klein(x: Tensor, c: Tensor, *, max_radius: float) -> Tensor:
    """`x / (sqrt(c) x0)`."""
    space = x[..., 1:]
    squares = c * a.inner(space, space)
    k = 1 / (1 + squares).sqrt()
    return k * a.shrink_to(max_radius, k.square() * squares) * space


def _klein_to_poincare(x: Tensor, c: Tensor, *, min_gap: float, max_radius: float) -> Tensor:
    """`x / (1 + sqrt(1 - c ||x||^2))`."""
    k = 1 / (1 + a.gap(c, x, min_gap).sqrt())
    return k * a.shrink_to(max_radius, k.square() * c * a.inner(x, x)) * x


def _klein_to_lorentz(x: Tensor, c: Tensor, *, min_gap: float) -> Tensor:
    """`(1, sqrt(c) x) / sqrt(c (1 - c ||x||^2))`."""
    width = a.gap(c, x, min_gap).sqrt()
    return torch.cat([1 / (width * c.sqrt()), x / width], -1)


_GAP, _RADIUS = ("min_gap",), ("max_radius",)

FORMULAS = (
    RowFormula(
        name="poincare_to_lorentz",
        vectors=("x",),
        reference=_poincare_to_lorentz,
        guards=_GAP,
        time_out=True,
    ),
    RowFormula(name="poincare_to_klein", vectors=("x",), reference=_poincare_to_klein, guards=_RADIUS),
    RowFormula(
        name="lorentz_to_poincare",
        vectors=("x",),
        reference=_lorentz_to_poincare,
        guards=_RADIUS,
        time_in=True,
    ),
    RowFormula(
        name="lorentz_to_klein", vectors=("x",), reference=_lorentz_to_klein, guards=_RADIUS, time_in=True
    ),
    RowFormula(
        name="klein_to_poincare", vectors=("x",), reference=_klein_to_poincare, guards=(*_GAP, *_RADIUS)
    ),
    RowFormula(
        name="klein_to_lorentz", vectors=("x",), reference=_klein_to_lorentz, guards=_GAP, time_out=True
    ),
)
for _formula in FORMULAS:
    declare(_formula.operator())
