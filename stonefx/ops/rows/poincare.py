"""The row operators of the Poincaré ball, `c ||x||^2 < 1`, but for expmap0, logmap0 and mobius_add.

Each is stated as its textbook formula (Ganea et al. 2018) and computed so that no digit is lost: from differences of
points, and with `artanh(u)` from the odds `u^2 / (1 - u^2)`. Guards, all none by default:

- `min_gap`: `1 - c ||x||^2` is kept at this or more;
- `min_norm`: norms are;
- `min_denominator`, `denominator_offset`: the denominator `d` of a Moebius sum becomes
  `max(d, min_denominator) + denominator_offset`;
- `tanh_limit`, `atanh_limit`: bounds of the arguments of tanh and artanh;
- `max_radius`: bound of `sqrt(c) ||result||`.

No gradient passes where a bound holds; where a value is equal to its bound, it does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..library import declare
from . import analytic as a
from .row_formula import RowFormula


def _extra(d: Tensor, min_denominator: float, offset: float) -> Tensor:
    return (a.at_least(d, min_denominator) if min_denominator else d) - d + offset


def _expmap(
    x: Tensor,
    v: Tensor,
    c: Tensor,
    *,
    min_gap: float,
    min_norm: float,
    tanh_limit: float,
    min_denominator: float,
    denominator_offset: float,
    max_radius: float,
) -> Tensor:
    """`x (+) tanh(sqrt(c) lambda_x ||v|| / 2) v / (sqrt(c) ||v||)`."""
    alpha = a.gap(c, x, min_gap)
    half = c * a.at_least(a.inner(v, v), min_norm * min_norm) / alpha.square()
    w = a.tanhc(a.at_most_squared(half, tanh_limit)) * a.shrink_to(tanh_limit, half) / alpha * v
    s = x + w
    apart = c * a.inner(s, s)
    d = alpha * (1 - c * a.inner(w, w)) + apart
    whole = d + _extra(d, min_denominator, denominator_offset)
    point = (alpha * s + apart * x) / whole
    return a.shrink_to(max_radius, c * a.inner(point, point)) * point


def _logmap(
    x: Tensor,
    y: Tensor,
    c: Tensor,
    *,
    min_gap: float,
    min_denominator: float,
    denominator_offset: float,
    atanh_limit: float,
) -> Tensor:
    """`2 / (sqrt(c) lambda_x) artanh(sqrt(c) ||w||) w / ||w||` with `w = -x (+) y`."""
    alpha, beta, b = a.gap(c, x, min_gap), a.gap(c, y, min_gap), y - x
    apart = c * a.inner(b, b)
    d = alpha * beta + apart
    extra = _extra(d, min_denominator, denominator_offset)
    odds = apart * d / (d * alpha * beta + extra * (2 * d + extra))
    k = a.artanhc_of_odds(a.odds_at_most(odds, atanh_limit))
    k = k * a.shrink_to(atanh_limit, apart * d / (d + extra).square())
    return alpha * k * (alpha * b - apart * x) / (d + extra)


def _dist(
    x: Tensor,
    y: Tensor,
    c: Tensor,
    *,
    min_gap: float,
    min_denominator: float,
    denominator_offset: float,
    atanh_limit: float,
) -> Tensor:
    """`2 / sqrt(c) artanh(sqrt(c) ||-x (+) y||)`."""
    both, b = a.signed_gap(c, x, min_gap) * a.signed_gap(c, y, min_gap), y - x
    apart = c * a.inner(b, b)
    d = both + apart
    extra = _extra(d, min_denominator, denominator_offset)
    rest = a.at_least(both + extra * (2 + extra / d), 0.0)
    return 2 * a.asinh_of_quotient(apart, rest, atanh_limit) / c.sqrt()


def _dist0(x: Tensor, c: Tensor, *, min_gap: float, min_norm: float, atanh_limit: float) -> Tensor:
    """`2 / sqrt(c) artanh(sqrt(c) ||x||)`."""
    squares = c * a.at_least(a.inner(x, x), min_norm * min_norm)
    return 2 * a.asinh_of_quotient(squares, a.at_least(1 - squares, min_gap), atanh_limit) / c.sqrt()


def _stretched(
    row: Tensor,
    by: Tensor,
    squares: Tensor,
    c: Tensor,
    min_gap: float,
    min_norm: float,
    atanh_limit: float,
    tanh_limit: float,
    max_radius: float,
) -> Tensor:
    """`tanh(r ||row||) row / ||row||` with `r = by * artanh(u) / u`, `u^2 = squares`, lengths times `sqrt(c)`."""
    odds = squares / a.at_least(1 - squares, min_gap)
    if atanh_limit < 1:
        odds = odds.where(squares <= atanh_limit * atanh_limit, a.odds_of(atanh_limit))
        by = by * a.shrink_to(atanh_limit, squares)
    stretch = by * a.artanhc_of_odds(odds)
    argument = stretch.square() * c * a.at_least(a.inner(row, row), min_norm * min_norm)
    k = stretch * a.tanhc(a.at_most_squared(argument, tanh_limit)) * a.shrink_to(tanh_limit, argument)
    return k * a.shrink_to(max_radius, c * k.square() * a.inner(row, row)) * row


def _scalar_mul(x: Tensor, c: Tensor, r: Tensor, *, min_norm: float, **guards: float) -> Tensor:
    """`tanh(r artanh(sqrt(c) ||x||)) x / (sqrt(c) ||x||)`."""
    squares = c * a.at_least(a.inner(x, x), min_norm * min_norm)
    return _stretched(x, r, squares, c, min_norm=min_norm, **guards)


def _matvec(mx: Tensor, x: Tensor, c: Tensor, *, min_norm: float, **guards: float) -> Tensor:
    """`tanh(||mx|| / ||x|| artanh(sqrt(c) ||x||)) mx / (sqrt(c) ||mx||)`, what follows the product `mx = M x`."""
    squares = c * a.at_least(a.inner(x, x), min_norm * min_norm)
    return _stretched(mx, torch.ones_like(squares), squares, c, min_norm=min_norm, **guards)


def _project(x: Tensor, c: Tensor, *, eps: float, curvature_offset: float, min_norm: float) -> Tensor:
    """Rows longer than `(1 - eps) / sqrt(c + curvature_offset)` shortened to that."""
    squares = a.at_least(a.inner(x, x), min_norm * min_norm)
    return a.shrink_to(1 - eps, squares * (c + curvature_offset)) * x


def _conformal_factor(x: Tensor, c: Tensor, *, min_gap: float) -> Tensor:
    """`2 / (1 - c ||x||^2)`."""
    return 2 / a.signed_gap(c, x, min_gap)


def _geodesic(x: Tensor, y: Tensor, c: Tensor, t: Tensor, *, min_gap: float, max_radius: float) -> Tensor:
    """`x (+) t (x) (-x (+) y)`, as a combination of the points' images on the hyperboloid."""
    alpha, beta, b = a.gap(c, x, min_gap), a.gap(c, y, min_gap), y - x
    odds = c * a.inner(b, b) / (alpha * beta)
    squared_length = 4 * odds * a.asinhc(odds).square()
    of_x, of_y = (
        a.share_of_arc(1 - t, squared_length) * beta,
        a.share_of_arc(t, squared_length) * alpha,
    )
    time = of_x * (2 - alpha) + of_y * (2 - beta)
    point = 2 * (of_x * x + of_y * y) / (alpha * beta + time)
    return a.shrink_to(max_radius, c * a.inner(point, point)) * point


def _transport(x: Tensor, y: Tensor, v: Tensor, c: Tensor, *, min_gap: float) -> Tensor:
    """`(lambda_x / lambda_y) gyr[y, -x] v`."""
    alpha, beta, b = a.gap(c, x, min_gap), a.gap(c, y, min_gap), y - x
    cv, bv = c * a.inner(x, v), a.inner(b, v)
    of_b = cv * (2 * c * a.inner(x, b) - alpha) - c.square() * a.inner(x, x) * bv
    of_x = c * (alpha * bv - cv * a.inner(b, b))
    return beta / alpha * (v + 2 * (of_x * x + of_b * b) / (alpha * beta + c * a.inner(b, b)))


_SUM = ("min_denominator", "denominator_offset")
_STRETCH = ("min_gap", "min_norm", "atanh_limit", "tanh_limit", "max_radius")

FORMULAS = (
    RowFormula(
        name="expmap",
        vectors=("x", "v"),
        reference=_expmap,
        guards=("min_gap", "min_norm", "tanh_limit", *_SUM, "max_radius"),
    ),
    RowFormula(
        name="logmap", vectors=("x", "y"), reference=_logmap, guards=("min_gap", *_SUM, "atanh_limit")
    ),
    RowFormula(
        name="poincare_dist",
        vectors=("x", "y"),
        reference=_dist,
        guards=("min_gap", *_SUM, "atanh_limit"),
        gives_number=True,
    ),
    RowFormula(
        name="poincare_dist0",
        vectors=("x",),
        reference=_dist0,
        guards=("min_gap", "min_norm", "atanh_limit"),
        gives_number=True,
    ),
    RowFormula(
        name="mobius_scalar_mul",
        vectors=("x",),
        scalars=("c", "r"),
        reference=_scalar_mul,
        guards=_STRETCH,
    ),
    RowFormula(name="mobius_matvec", vectors=("mx", "x"), reference=_matvec, guards=_STRETCH, separate=True),
    RowFormula(
        name="project", vectors=("x",), reference=_project, guards=("eps", "curvature_offset", "min_norm")
    ),
    RowFormula(
        name="conformal_factor",
        vectors=("x",),
        reference=_conformal_factor,
        guards=("min_gap",),
        gives_number=True,
    ),
    RowFormula(
        name="poincare_geodesic",
        vectors=("x", "y"),
        scalars=("c", "t"),
        reference=_geodesic,
        guards=("min_gap", "max_radius"),
    ),
    RowFormula(name="poincare_transport", vectors=("x", "y", "v"), reference=_transport, guards=("min_gap",)),
)
for _formula in FORMULAS:
    declare(_formula.operator())
