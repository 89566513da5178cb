"""geoopt's functions of the hyperboloid on stonefx's operators, which take the space components of a point as given.

Their gradients for the ambient components differ from geoopt's, which differentiate the stored time too; the Riemannian
gradients agree. So they are used only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from stonefx.geometry.bounds import ALL
from stonefx.ops.calling import Caller

from ..operands import fits, is_compiling

_DIST = Caller("lorentz_dist")
_EXPMAP = Caller("lorentz_expmap")
_EXPMAP0 = Caller("lorentz_expmap0")
_INNER = Caller("lorentz_inner")
_LOGMAP = Caller("lorentz_logmap")
_LOGMAP0 = Caller("lorentz_logmap0")
_PROJECT = Caller("lorentz_project")
_TRANSPORT = Caller("lorentz_transport")


def _covers(dim: int, k: Any, *points: Tensor) -> bool:
    if not (fits(dim, *points) and points[0].shape[-1] >= 2 and isinstance(k, Tensor) and k.numel() == 1):
        return False
    return k.dim() <= 1 and (is_compiling() or k.item() > 0)


def _c(k: Tensor) -> Tensor:
    # In float64: the points may be, where the parameter is float32.
    return k.double().reciprocal().reshape(())


def _kept(result: Tensor, keepdim: bool) -> Tensor:
    return result.unsqueeze(-1) if keepdim else result


def functions() -> dict[str, Callable[..., Any]]:
    """The functions of `geoopt.manifolds.lorentz.math` by name."""

    def inner(u: Tensor, v: Tensor, *, keepdim: bool = False, dim: int = -1) -> Any:
        return _kept(_INNER(u, v), keepdim) if fits(dim, u, v) and u.shape[-1] >= 2 else NotImplemented

    def dist(x: Tensor, y: Tensor, *, k: Tensor, keepdim: bool = False, dim: int = -1) -> Any:
        return _kept(_DIST(x, y, _c(k)), keepdim) if _covers(dim, k, x, y) else NotImplemented

    def expmap(x: Tensor, u: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        limit = ALL[x.dtype].argument if x.dtype in ALL else 0.0
        return _EXPMAP(x, u, _c(k), max_argument=limit) if _covers(dim, k, x, u) else NotImplemented

    def expmap0(u: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        limit = ALL[u.dtype].argument if u.dtype in ALL else 0.0
        return _EXPMAP0(u, _c(k), max_argument=limit) if _covers(dim, k, u) else NotImplemented

    def logmap(x: Tensor, y: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return _LOGMAP(x, y, _c(k)) if _covers(dim, k, x, y) else NotImplemented

    def logmap0(y: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return _LOGMAP0(y, _c(k)) if _covers(dim, k, y) else NotImplemented

    def project(x: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return _PROJECT(x, _c(k)) if _covers(dim, k, x) else NotImplemented

    def parallel_transport(x: Tensor, y: Tensor, v: Tensor, *, k: Tensor, dim: int = -1) -> Any:
        return _TRANSPORT(x, y, v, _c(k)) if _covers(dim, k, x, y, v) else NotImplemented

    return {name: value for name, value in locals().items() if callable(value)}
