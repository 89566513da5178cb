"""geoopt's functions of the ball on stonefx's operators, for curvatures below 0.

Each has geoopt's signature, and answers `NotImplemented` to a call that the operators do not cover.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from geoopt.manifolds.stereographic import math as stereographic
from torch import Tensor
from torch.nn.functional import linear

from stonefx.ops.calling import Caller
from stonefx.ops.pairs.poincare_mlr import distances_to_planes

from ..operands import fits, is_compiling, is_matrix, is_number, multiplies
from .guards import BOUNDS, MARGIN, Guards

_ADD = Caller("mobius_add")
_CDIST = Caller("poincare_cdist")
_DIST = Caller("poincare_dist")
_DIST0 = Caller("poincare_dist0")
_EXPMAP = Caller("expmap")
_EXPMAP0 = Caller("expmap0")
_FACTOR = Caller("conformal_factor")
_LOGMAP = Caller("logmap")
_LOGMAP0 = Caller("logmap0")
_MATVEC = Caller("mobius_matvec")
_PROJECT = Caller("project")
_SCALAR_MUL = Caller("mobius_scalar_mul")
_TRANSPORT = Caller("poincare_transport")

# A curvature nearer to 0 counts as none in geoopt.
FLAT = -1e-8


def is_negative(k: Any, x: Tensor, rows: bool = True) -> bool:
    """Whether a curvature is below 0 everywhere, and one number or, with `rows`, one for each row.

    A compiler cannot know. In eager that waits for the device, as geoopt itself does.
    """
    if is_compiling() or not isinstance(k, Tensor):
        return False
    if k.dim() == 0:
        return bool(k.item() < FLAT)
    return rows and k.dtype == x.dtype and k.shape[-1] == 1 and k.dim() <= x.dim() and bool((k < FLAT).all())


class Ball:
    """The formulas, for rows that the operators cover and a curvature `c` above 0.

    Args:
        bounds: "library" for geoopt's guards, "stonefx" for stonefx's own.
        tables: guards by dtype, in the place of these.
    """

    def __init__(self, bounds: str, tables: dict[torch.dtype, Guards] | None = None) -> None:
        self.guards = tables or {dtype: BOUNDS[bounds](dtype) for dtype in MARGIN}

    def project(self, x: Tensor, c: Tensor, eps: float = -1) -> Tensor:
        """Rows shortened to what geoopt's margin, or `eps`, leaves to the boundary."""
        margin = MARGIN[x.dtype] if eps < 0 else float(eps)
        return _PROJECT(x, c, eps=margin, curvature_offset=1e-15, min_norm=1e-15)

    def lambda_x(self, x: Tensor, c: Tensor, keepdim: bool = False) -> Tensor:
        """The conformal factor of each point."""
        return _kept(_FACTOR(x, c, **self.guards[x.dtype]["conformal_factor"]), keepdim)

    def inner(self, x: Tensor, u: Tensor, v: Tensor, c: Tensor, keepdim: bool = False) -> Tensor:
        """The product of two tangent vectors of each point."""
        return self.lambda_x(x, c, keepdim) ** 2 * (u * v).sum(dim=-1, keepdim=keepdim)

    def norm(self, x: Tensor, u: Tensor, c: Tensor, keepdim: bool = False) -> Tensor:
        """The length of a tangent vector of each point."""
        return self.lambda_x(x, c, keepdim) * u.norm(dim=-1, keepdim=keepdim, p=2)

    def egrad2rgrad(self, x: Tensor, grad: Tensor, c: Tensor) -> Tensor:
        """The Riemannian gradient."""
        return grad / self.lambda_x(x, c, True) ** 2

    def transp0(self, y: Tensor, v: Tensor, c: Tensor) -> Tensor:
        """A tangent vector of the origin, transported to `y`."""
        return v * (2 / self.lambda_x(y, c, True))

    def transp0back(self, x: Tensor, v: Tensor, c: Tensor) -> Tensor:
        """A tangent vector of `x`, transported to the origin."""
        return v * (self.lambda_x(x, c, True) / 2)

    def mobius_add(self, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """`x (+) y`."""
        return _ADD(x, y, c, **self.guards[x.dtype]["mobius_add"])

    def mobius_scalar_mul(self, r: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """`r (x) x`."""
        return _SCALAR_MUL(x, c, r, **self.guards[x.dtype]["mobius_scalar_mul"])

    def mobius_matvec(self, m: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """`m (x) x` for one matrix `[out, dim]`."""
        return _MATVEC(linear(x, m), x, c, **self.guards[x.dtype]["mobius_matvec"])

    def mobius_pointwise_mul(self, w: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """`diag(w) (x) x`."""
        return _MATVEC(w * x, x, c, **self.guards[x.dtype]["mobius_matvec"])

    def dist(self, x: Tensor, y: Tensor, c: Tensor, keepdim: bool = False) -> Tensor:
        """The distance; a matrix of them where the points broadcast so."""
        guards = self.guards[x.dtype]["dist"]
        if c.dim() == 0 and (x.dim() == 3 or y.dim() == 3) and (pair := all_pairs(x, y)) is not None:
            gap = guards.get("min_gap", 0.0)
            limits = {name: value for name, value in guards.items() if name != "min_gap"}
            return _kept(_CDIST(*pair, c, min_alpha=gap, **limits), keepdim)
        return _kept(_DIST(x, y, c, **guards), keepdim)

    def dist0(self, x: Tensor, c: Tensor, keepdim: bool = False) -> Tensor:
        """The distance of the origin."""
        return _kept(_DIST0(x, c, **self.guards[x.dtype]["dist0"]), keepdim)

    def geodesic(self, t: Tensor, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """The point at time `t`, in geoopt's three steps, each with its guards."""
        return self.mobius_add(x, self.mobius_scalar_mul(t, self.mobius_add(-x, y, c), c), c)

    def expmap(self, x: Tensor, u: Tensor, c: Tensor) -> Tensor:
        """The point that `u` leads to from `x`."""
        return _EXPMAP(x, u, c, **self.guards[x.dtype]["expmap"])

    def expmap0(self, u: Tensor, c: Tensor) -> Tensor:
        """The point that `u` leads to from the origin."""
        return _EXPMAP0(u, c, **self.guards[u.dtype]["expmap0"])

    def logmap(self, x: Tensor, y: Tensor, c: Tensor) -> Tensor:
        """The vector that leads from `x` to `y`."""
        return _LOGMAP(x, y, c, **self.guards[x.dtype]["logmap"])

    def logmap0(self, y: Tensor, c: Tensor) -> Tensor:
        """The vector that leads from the origin to `y`."""
        return _LOGMAP0(y, c, **self.guards[y.dtype]["logmap0"])

    def transp(self, x: Tensor, y: Tensor, v: Tensor, c: Tensor) -> Tensor:
        """A tangent vector of `x`, transported to `y`."""
        return _TRANSPORT(x, y, v, c, **self.guards[x.dtype]["transport"])

    def dist2plane(
        self, x: Tensor, p: Tensor, a: Tensor, c: Tensor, signed: bool = False, scaled: bool = False
    ) -> Tensor:
        """`[*batch, planes]` for points `[*batch, dim]` and planes `[planes, dim]`."""
        result = distances_to_planes(x, p, a, c, **self.guards[x.dtype]["planes"])
        result = result if signed else result.abs()
        return result * a.norm(dim=-1) if scaled else result

    def weighted_midpoint(
        self,
        xs: Tensor,
        weights: Tensor | None,
        c: Tensor,
        along: list[int],
        lincomb: bool = False,
        posweight: bool = False,
    ) -> Tensor:
        """The midpoint along these dimensions, which are kept; `weights` have none for the coordinates."""
        gamma = self.lambda_x(xs, c, True)
        w = torch.ones((), dtype=xs.dtype, device=xs.device) if weights is None else weights.unsqueeze(-1)
        if posweight:
            xs = torch.where(w.lt(0), -xs, xs)
            w = w.abs() if is_compiling() or bool(w.lt(0).any()) else w
        denominator = ((gamma - 1) * w).sum(along, keepdim=True)
        sign = torch.where(denominator < 0, -1.0, 1.0).to(xs.dtype)
        mean = _weighted_sum(gamma * xs, w, along) / (sign * (denominator.abs() + 1e-10))
        half = torch.full((), 0.5, dtype=xs.dtype, device=xs.device)
        mean = self.mobius_scalar_mul(half, mean, c)
        if not lincomb:
            return mean
        if w.numel() == 1:
            count = 1
            for d in along:
                count *= xs.size(d)
            alpha = w * count
        else:
            alpha = torch.broadcast_tensors(w, gamma)[0].sum(along, keepdim=True)
        return self.mobius_scalar_mul(alpha, mean, c)


def _weighted_sum(rows: Tensor, w: Tensor, along: list[int]) -> Tensor:
    if tuple(along) in ((-2,), (rows.dim() - 2,)) and w.dim() >= 2 and w.shape[-2] == rows.shape[-2] > 1:
        # As a product where many midpoints share the points, so that no weighted copy of them is made for each.
        return w.mT @ rows
    return (w * rows).sum(along, keepdim=True)


def _kept(result: Tensor, keepdim: bool) -> Tensor:
    return result.unsqueeze(-1) if keepdim else result


def all_pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor] | None:
    """`[n, dim]` and `[m, dim]` of a call over all pairs, `[n, 1, dim]` against `[1, m, dim]` or `[m, dim]`."""
    if x.dim() != 3 or x.shape[1] != 1 or x.shape[0] == 1:
        return None
    if y.dim() == 3 and y.shape[0] == 1:
        return x.squeeze(1), y.squeeze(0)
    return (x.squeeze(1), y) if y.dim() == 2 else None


def planes(x: Tensor, p: Tensor, a: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Points `[*batch, dim]` and planes `[planes, dim]` of a call of dist2plane over all pairs; None for another."""
    if p.dim() != 2 or p.shape != a.shape or x.dim() < 2:
        return None
    if dim in (-1, x.dim() - 1) and (dim == -1 or x.dim() == 2) and x.shape[-2] == 1:
        rows = x.squeeze(-2)
    elif dim == -2 and x.shape[-1] == 1:
        # `[*batch, dim, 1]` against `[dim, planes]`, as in geoopt's layer.
        rows, p, a = x.squeeze(-1), p.mT, a.mT
    else:
        return None
    return (rows, p, a) if fits(-1, rows, p, a) and multiplies(rows) else None


def is_weights(weights: Tensor | None, xs: Tensor) -> bool:
    """Whether weights of a midpoint have the points' dtype, and autocast leaves a product alone."""
    if weights is None:
        return True
    return isinstance(weights, Tensor) and weights.dtype == xs.dtype and multiplies(xs)


def dropped(mean: Tensor, along: list[int], keepdim: bool) -> Tensor:
    """The midpoint without the dimensions that it was taken along, as geoopt drops them."""
    if not keepdim:
        for seen, d in enumerate(along):
            mean = mean.squeeze(d - seen)
    return mean


def functions(ball: Ball) -> dict[str, Callable[..., Any]]:
    """The functions of `geoopt.manifolds.stereographic.math` by name."""

    def project(x: Tensor, *, k: Tensor, dim: int = -1, eps: float = -1) -> Any:
        return ball.project(x, -k, eps) if fits(dim, x) and is_negative(k, x) else NotImplemented

    def lambda_x(x: Tensor, *, k: Tensor, keepdim: bool = False, dim: int = -1) -> Any:
        return (
            ball.lambda_x(x, -k, keepdim) if fits(dim, x) and is_negative(k, x, keepdim) else NotImplemented
        )

    def inner(x: Tensor, u: Tensor, v: Tensor, *, k: Tensor, keepdim: bool = False, dim: int = -1) -> Any:
        # Without `keepdim` geoopt multiplies each row's factor with every row's product.
        covered = keepdim and fits(dim, x, u, v) and is_negative(k, x)
        return ball.inner(x, u, v, -k, keepdim) if covered else NotImplemented

    def norm(x: Tensor, u: Tensor, *, k: Tensor, keepdim: bool = False, dim: int = -1) -> Any:
        covered = fits(dim, x, u) and is_negative(k, x, keepdim)
        return ball.norm(x, u, -k, keepdim) if covered else NotImplemented

    def mobius_add(x: Tensor, y: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.mobius_add(x, y, -k) if fits(dim, x, y) and is_negative(k, x) else NotImplemented

    def mobius_sub(x: Tensor, y: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.mobius_add(x, -y, -k) if fits(dim, x, y) and is_negative(k, x) else NotImplemented

    def mobius_scalar_mul(r: Tensor, x: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        covered = fits(dim, x) and is_number(r, x) and is_negative(k, x)
        return ball.mobius_scalar_mul(r, x, -k) if covered else NotImplemented

    def mobius_matvec(m: Tensor, x: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        covered = fits(dim, x) and is_matrix(m, x) and is_negative(k, x)
        return ball.mobius_matvec(m, x, -k) if covered else NotImplemented

    def mobius_pointwise_mul(w: Tensor, x: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        covered = fits(dim, x, w) and is_negative(k, x)
        return ball.mobius_pointwise_mul(w, x, -k) if covered else NotImplemented

    def dist(x: Tensor, y: Tensor, *, k: Tensor, keepdim: bool = False, dim: int = -1) -> Any:
        covered = fits(dim, x, y) and is_negative(k, x, keepdim)
        return ball.dist(x, y, -k, keepdim) if covered else NotImplemented

    def dist0(x: Tensor, *, k: Tensor, keepdim: bool = False, dim: int = -1) -> Any:
        return ball.dist0(x, -k, keepdim) if fits(dim, x) and is_negative(k, x, keepdim) else NotImplemented

    def geodesic(t: Tensor, x: Tensor, y: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        covered = fits(dim, x, y) and is_number(t, x) and is_negative(k, x)
        return ball.geodesic(t, x, y, -k) if covered else NotImplemented

    def expmap(x: Tensor, u: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.expmap(x, u, -k) if fits(dim, x, u) and is_negative(k, x) else NotImplemented

    def expmap0(u: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.expmap0(u, -k) if fits(dim, u) and is_negative(k, u) else NotImplemented

    def logmap(x: Tensor, y: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.logmap(x, y, -k) if fits(dim, x, y) and is_negative(k, x) else NotImplemented

    def logmap0(y: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.logmap0(y, -k) if fits(dim, y) and is_negative(k, y) else NotImplemented

    def mobius_fn_apply(
        fn: Callable[..., Any], x: Tensor, *args: Any, k: Tensor, dim: int = -1, **kwargs: Any
    ) -> Any:
        if not (fits(dim, x) and is_negative(k, x)):
            return NotImplemented
        moved = fn(ball.logmap0(x, -k), *args, **kwargs)
        return geoopt_expmap0(moved, k=k, dim=dim)

    def mobius_fn_apply_chain(x: Tensor, *fns: Callable[..., Any], k: Tensor, dim: int = -1) -> Any:
        if not fns or not (fits(dim, x) and is_negative(k, x)):
            return NotImplemented
        moved = ball.logmap0(x, -k)
        for fn in fns:
            moved = fn(moved)
        return geoopt_expmap0(moved, k=k, dim=dim)

    def geoopt_expmap0(u: Tensor, *, k: Tensor, dim: int) -> Any:
        result = expmap0(u, k=k, dim=dim)
        return stereographic._expmap0(u, k, dim=dim) if result is NotImplemented else result

    def dist2plane(
        x: Tensor,
        p: Tensor,
        a: Tensor,
        *,
        k: Tensor,
        keepdim: bool = False,
        signed: bool = False,
        scaled: bool = False,
        dim: int = -1,
    ) -> Any:
        operands = None if keepdim or k.dim() else planes(x, p, a, dim)
        if operands is None or not is_negative(k, x):
            return NotImplemented
        return ball.dist2plane(*operands, -k, signed, scaled)

    def parallel_transport(x: Tensor, y: Tensor, v: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.transp(x, y, v, -k) if fits(dim, x, y, v) and is_negative(k, x) else NotImplemented

    def parallel_transport0(y: Tensor, v: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.transp0(y, v, -k) if fits(dim, y, v) and is_negative(k, y) else NotImplemented

    def parallel_transport0back(x: Tensor, v: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.transp0back(x, v, -k) if fits(dim, x, v) and is_negative(k, x) else NotImplemented

    def egrad2rgrad(x: Tensor, grad: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return ball.egrad2rgrad(x, grad, -k) if fits(dim, x, grad) and is_negative(k, x) else NotImplemented

    def weighted_midpoint(
        xs: Tensor,
        weights: Tensor | None = None,
        *,
        k: Tensor,
        reducedim: list[int] | None = None,
        dim: int = -1,
        keepdim: bool = False,
        lincomb: bool = False,
        posweight: bool = False,
    ) -> Any:
        if k.dim() or not (fits(dim, xs) and is_weights(weights, xs) and is_negative(k, xs)):
            return NotImplemented
        along = list(range(xs.dim() - 1)) if reducedim is None else reducedim
        return dropped(ball.weighted_midpoint(xs, weights, -k, along, lincomb, posweight), along, keepdim)

    return {name: value for name, value in locals().items() if callable(value) and name not in _HELPERS}


_HELPERS = ("ball", "geoopt_expmap0")
