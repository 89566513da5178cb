"""The methods of geoopt's `PoincareBall`, where the sign of the curvature is known and projection is part of a map."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geoopt.manifolds.stereographic.manifold import PoincareBall, PoincareBallExact
from torch import Tensor

from ..operands import fits, is_compiling, is_matrix, is_number
from . import guards
from .ball import FLAT, Ball, dropped, is_weights, planes

_KNOWN = (PoincareBall, PoincareBallExact)


def curvature(ball: PoincareBall) -> Tensor | None:
    """`c` where the operators cover it: one number above 0, and a class whose formulas are known."""
    if type(ball) not in _KNOWN:
        return None
    c: Tensor = ball.c
    if c.dim():
        return None
    if is_compiling() or not c.is_cpu:
        # A softplus, so that only 0 itself is no curvature, of which this is the limit.
        return c.clamp_min(1e-15)
    return c if c.item() > -FLAT else None


def methods(bounds: str) -> dict[str, Callable[..., Any]]:
    """The methods by name; each answers `NotImplemented` to a call that the operators do not cover."""
    plain = Ball(bounds)
    within = Ball(bounds, {dtype: guards.inside(table, dtype) for dtype, table in plain.guards.items()})

    def of(project: bool) -> Ball:
        return within if project else plain

    def dist(self: Any, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x, y) else None
        return NotImplemented if c is None else plain.dist(x, y, c, keepdim)

    def dist2(self: Any, x: Tensor, y: Tensor, *, keepdim: bool = False, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x, y) else None
        return NotImplemented if c is None else plain.dist(x, y, c, keepdim) ** 2

    def dist0(self: Any, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Any:
        c = curvature(self) if fits(dim, x) else None
        return NotImplemented if c is None else plain.dist0(x, c, keepdim)

    def projx(self: Any, x: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x) else None
        return NotImplemented if c is None else plain.project(x, c)

    def lambda_x(self: Any, x: Tensor, *, dim: int = -1, keepdim: bool = False) -> Any:
        c = curvature(self) if fits(dim, x) else None
        return NotImplemented if c is None else plain.lambda_x(x, c, keepdim)

    def inner(
        self: Any, x: Tensor, u: Tensor, v: Tensor | None = None, *, keepdim: bool = False, dim: int = -1
    ) -> Any:
        v = u if v is None else v
        c = curvature(self) if keepdim and fits(dim, x, u, v) else None
        return NotImplemented if c is None else plain.inner(x, u, v, c, keepdim)

    def norm(self: Any, x: Tensor, u: Tensor, *, keepdim: bool = False, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x, u) else None
        return NotImplemented if c is None else plain.norm(x, u, c, keepdim)

    def egrad2rgrad(self: Any, x: Tensor, u: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x, u) else None
        return NotImplemented if c is None else plain.egrad2rgrad(x, u, c)

    def retr(self: Any, x: Tensor, u: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if type(self) is PoincareBall and fits(dim, x, u) else None
        return NotImplemented if c is None else plain.project(x + u, c)

    def retr_transp(self: Any, x: Tensor, u: Tensor, v: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if type(self) is PoincareBall and fits(dim, x, u, v) else None
        if c is None:
            return NotImplemented
        y = plain.project(x + u, c)
        return y, plain.transp(x, y, v, c)

    def expmap_transp(
        self: Any, x: Tensor, u: Tensor, v: Tensor, *, dim: int = -1, project: bool = True
    ) -> Any:
        c = curvature(self) if fits(dim, x, u, v) else None
        if c is None:
            return NotImplemented
        y = of(project).expmap(x, u, c)
        return y, plain.transp(x, y, v, c)

    def transp(self: Any, x: Tensor, y: Tensor, v: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x, y, v) else None
        return NotImplemented if c is None else plain.transp(x, y, v, c)

    def transp0(self: Any, y: Tensor, u: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, y, u) else None
        return NotImplemented if c is None else plain.transp0(y, u, c)

    def transp0back(self: Any, y: Tensor, u: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, y, u) else None
        return NotImplemented if c is None else plain.transp0back(y, u, c)

    def mobius_add(self: Any, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Any:
        c = curvature(self) if fits(dim, x, y) else None
        return NotImplemented if c is None else of(project).mobius_add(x, y, c)

    def mobius_sub(self: Any, x: Tensor, y: Tensor, *, dim: int = -1, project: bool = True) -> Any:
        c = curvature(self) if fits(dim, x, y) else None
        return NotImplemented if c is None else of(project).mobius_add(x, -y, c)

    def mobius_scalar_mul(self: Any, r: Tensor, x: Tensor, *, dim: int = -1, project: bool = True) -> Any:
        c = curvature(self) if fits(dim, x) and is_number(r, x) else None
        return NotImplemented if c is None else of(project).mobius_scalar_mul(r, x, c)

    def mobius_pointwise_mul(self: Any, w: Tensor, x: Tensor, *, dim: int = -1, project: bool = True) -> Any:
        c = curvature(self) if fits(dim, x, w) else None
        return NotImplemented if c is None else of(project).mobius_pointwise_mul(w, x, c)

    def mobius_matvec(self: Any, m: Tensor, x: Tensor, *, dim: int = -1, project: bool = True) -> Any:
        c = curvature(self) if fits(dim, x) and is_matrix(m, x) else None
        return NotImplemented if c is None else of(project).mobius_matvec(m, x, c)

    def geodesic(self: Any, t: Tensor, x: Tensor, y: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x, y) and is_number(t, x) else None
        return NotImplemented if c is None else plain.geodesic(t, x, y, c)

    def expmap(self: Any, x: Tensor, u: Tensor, *, project: bool = True, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x, u) else None
        return NotImplemented if c is None else of(project).expmap(x, u, c)

    def logmap(self: Any, x: Tensor, y: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x, y) else None
        return NotImplemented if c is None else plain.logmap(x, y, c)

    def expmap0(self: Any, u: Tensor, *, dim: int = -1, project: bool = True) -> Any:
        c = curvature(self) if fits(dim, u) else None
        return NotImplemented if c is None else of(project).expmap0(u, c)

    def logmap0(self: Any, x: Tensor, *, dim: int = -1) -> Any:
        c = curvature(self) if fits(dim, x) else None
        return NotImplemented if c is None else plain.logmap0(x, c)

    def dist2plane(
        self: Any,
        x: Tensor,
        p: Tensor,
        a: Tensor,
        *,
        dim: int = -1,
        keepdim: bool = False,
        signed: bool = False,
        scaled: bool = False,
    ) -> Any:
        operands = None if keepdim else planes(x, p, a, dim)
        if operands is None or (c := curvature(self)) is None:
            return NotImplemented
        return plain.dist2plane(*operands, c, signed, scaled)

    def weighted_midpoint(
        self: Any,
        xs: Tensor,
        weights: Tensor | None = None,
        *,
        reducedim: list[int] | None = None,
        dim: int = -1,
        keepdim: bool = False,
        lincomb: bool = False,
        posweight: bool = False,
        project: bool = True,
    ) -> Any:
        if not (fits(dim, xs) and is_weights(weights, xs)) or (c := curvature(self)) is None:
            return NotImplemented
        along = list(range(xs.dim() - 1)) if reducedim is None else reducedim
        mean = plain.weighted_midpoint(xs, weights, c, along, lincomb, posweight)
        mean = plain.project(mean, c) if project else mean
        return dropped(mean, along, keepdim)

    return {
        name: value
        for name, value in locals().items()
        if callable(value) and name not in ("of", "plain", "within")
    }
