"""HypLL's functions of the ball on stonefx's operators.

Each has HypLL's signature, and answers `NotImplemented` to a call that the operators do not cover. HypLL takes rows
along any dimension; those that are not the last are moved there and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from hypll.tensors import ManifoldTensor
from torch import Tensor

from stonefx.ops import hnnpp_linear, hnnpp_mlr
from stonefx.ops.calling import Caller

from ..operands import fits, is_matrix, multiplies

_ADD = Caller("mobius_add")
_CDIST = Caller("poincare_cdist")
_DIST = Caller("poincare_dist")
_EXPMAP = Caller("expmap")
_EXPMAP0 = Caller("expmap0")
_FACTOR = Caller("conformal_factor")
_LOGMAP = Caller("logmap")
_LOGMAP0 = Caller("logmap0")
_PROJECT = Caller("project")
_TRANSPORT = Caller("poincare_transport")

_TINY = 1e-15
# What HypLL's projection leaves to the boundary, and the length of a tangent vector that reaches it.
_MARGIN = {torch.float32: 4e-3, torch.float64: 1e-5}
_REACH = {dtype: math.atanh(1 - margin) for dtype, margin in _MARGIN.items()}


def _covers(c: Any, *rows: Tensor) -> bool:
    """Whether rows along the last dimension and one curvature, of whatever sign, are what the operators take."""
    return isinstance(c, Tensor) and c.dim() == 0 and c.dtype.is_floating_point and fits(-1, *rows)


def _last(dim: int, *tensors: Tensor) -> tuple[Tensor, ...] | None:
    """Tensors whose rows lie along `dim` of what they broadcast to, with the rows last; None where one has no rows."""
    rank = max(t.dim() for t in tensors)
    if dim in (-1, rank - 1):
        return tensors
    at = dim if dim < 0 else dim - rank
    return tuple(t.movedim(at, -1) for t in tensors) if all(t.dim() >= -at for t in tensors) else None


def _back(result: Tensor, dim: int) -> Tensor:
    return result if dim in (-1, result.dim() - 1) else result.movedim(-1, dim)


def functions() -> dict[str, Callable[..., Any]]:
    """The functions of HypLL by name."""

    def mobius_add(x: Tensor, y: Tensor, c: Tensor, dim: int = -1) -> Any:
        rows = _last(dim, x, y)
        if rows is None or not _covers(c, *rows):
            return NotImplemented
        return _back(_ADD(*rows, c, min_denominator=_TINY), dim)

    def project(x: Tensor, c: Tensor, dim: int = -1, eps: float = -1.0) -> Any:
        rows = _last(dim, x)
        if rows is None or not _covers(c, *rows):
            return NotImplemented
        margin = _MARGIN[x.dtype] if eps < 0 else float(eps)
        return _back(_PROJECT(*rows, c, eps=margin, curvature_offset=_TINY, min_norm=_TINY), dim)

    def expmap0(v: Tensor, c: Tensor, dim: int = -1) -> Any:
        rows = _last(dim, v)
        if rows is None or not _covers(c, *rows):
            return NotImplemented
        return _back(_EXPMAP0(*rows, c, min_norm=_TINY, tanh_limit=_REACH[v.dtype]), dim)

    def logmap0(y: Tensor, c: Tensor, dim: int = -1) -> Any:
        rows = _last(dim, y)
        if rows is None or not _covers(c, *rows):
            return NotImplemented
        return _back(_LOGMAP0(*rows, c, min_norm=_TINY), dim)

    def expmap(x: Tensor, v: Tensor, c: Tensor, dim: int = -1) -> Any:
        rows = _last(dim, x, v)
        if rows is None or not _covers(c, *rows):
            return NotImplemented
        guards = {"min_gap": _TINY, "min_norm": _TINY, "min_denominator": _TINY}
        return _back(_EXPMAP(*rows, c, **guards, max_radius=1 - _MARGIN[x.dtype]), dim)

    def logmap(x: Tensor, y: Tensor, c: Tensor, dim: int = -1) -> Any:
        rows = _last(dim, x, y)
        if rows is None or not _covers(c, *rows):
            return NotImplemented
        return _back(_LOGMAP(*rows, c, min_gap=_TINY, min_denominator=_TINY), dim)

    def transp(x: Tensor, y: Tensor, v: Tensor, c: Tensor, dim: int = -1) -> Any:
        rows = _last(dim, x, y, v)
        if rows is None or not _covers(c, *rows):
            return NotImplemented
        return _back(_TRANSPORT(*rows, c, min_gap=_TINY), dim)

    def dist(x: Tensor, y: Tensor, c: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
        rows = _last(dim, x, y)
        if rows is None or not _covers(c, *rows):
            return NotImplemented
        result = _DIST(*rows, c, min_denominator=_TINY)
        return result.unsqueeze(dim) if keepdim else result

    def inner(x: Tensor, u: Tensor, v: Tensor, c: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
        # Without `keepdim` HypLL multiplies each row's factor with every row's product.
        if not keepdim or dim not in (-1, x.dim() - 1) or not _covers(c, x, u, v):
            return NotImplemented
        return _FACTOR(x, c, min_gap=_TINY).unsqueeze(-1).square() * (u * v).sum(dim=-1, keepdim=True)

    def euc_to_tangent(x: Tensor, u: Tensor, c: Tensor, dim: int = -1) -> Any:
        if dim not in (-1, max(x.dim(), u.dim()) - 1) or not _covers(c, x, u):
            return NotImplemented
        return u / _FACTOR(x, c, min_gap=_TINY).unsqueeze(-1) ** 2

    def cdist(x: Tensor, y: Tensor, c: Tensor) -> Any:
        if x.dim() != 3 or y.dim() != 3 or x.shape[0] != y.shape[0] or not _covers(c, x, y):
            return NotImplemented
        return _CDIST(x, y, c, min_denominator=_TINY)

    def poincare_hyperplane_dists(x: Tensor, z: Tensor, r: Tensor | None, c: Tensor, dim: int = -1) -> Any:
        rows = _layer_operands(x, z, r, c, dim)
        return NotImplemented if rows is None else _back(hnnpp_mlr(*rows, c), dim)

    def poincare_fully_connected(x: Tensor, z: Tensor, bias: Tensor | None, c: Tensor, dim: int = -1) -> Any:
        rows = _layer_operands(x, z, bias, c, dim)
        return NotImplemented if rows is None else _back(hnnpp_linear(*rows, c), dim)

    return {name: value for name, value in locals().items() if callable(value)}


def fully_connected(self: Any, x: ManifoldTensor, z: ManifoldTensor, bias: Tensor | None) -> Any:
    """The layer with its projection, which `hypll.manifolds.poincare_ball.PoincareBall.fully_connected` is."""
    if z.man_dim != 0:
        return NotImplemented
    c = self.c()
    rows = _layer_operands(x.tensor, z.tensor, bias, c, x.man_dim)
    if rows is None:
        return NotImplemented
    result = hnnpp_linear(*rows, c, max_radius=1 - _MARGIN[x.tensor.dtype])
    return ManifoldTensor(data=_back(result, x.man_dim), manifold=self, man_dim=x.man_dim)


def _layer_operands(
    x: Tensor, z: Tensor, bias: Tensor | None, c: Tensor, dim: int
) -> tuple[Tensor, Tensor, Tensor] | None:
    if not isinstance(x, Tensor) or not isinstance(z, Tensor) or z.dim() != 2:
        return None
    rows = _last(dim, x)
    if rows is None or not _covers(c, *rows) or not is_matrix(z.mT, rows[0]) or not multiplies(x):
        return None
    offset = z.new_zeros(z.shape[1]) if bias is None else bias
    if (
        offset.shape != z.shape[1:]
        or not fits(-1, offset)
        or offset.dtype != x.dtype
        or offset.device != x.device
    ):
        return None
    return rows[0], z, offset
