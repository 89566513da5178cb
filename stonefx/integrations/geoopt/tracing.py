"""geoopt's functions of either curvature without branches on its sign, which Dynamo would break at.

Each computes what the scripted function of the same name does, to rounding, for curvatures of any and of mixed signs.
Where a form is not the one of a row's sign, its argument is 0, so that no gradient of it is infinite.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import geoopt
import torch
from geoopt.manifolds.stereographic import math as stereographic
from torch import Tensor

from stonefx.integrations.dynamo import Tracing
from stonefx.integrations.fingerprints import fingerprint, unknown_version

VERSIONS = ("0.5.1",)


def _signs(k: Tensor) -> tuple[Tensor, Tensor]:
    """Where a curvature counts as 0, and its sign."""
    flat = k.isclose(torch.zeros((), device=k.device, dtype=k.dtype))
    return flat, torch.where(flat, torch.zeros_like(k), k.sign())


def _root(k: Tensor) -> Tensor:
    return (k.abs() + 1e-15).sqrt()


def _only(where: Tensor, x: Tensor) -> Tensor:
    return torch.where(where, x, torch.zeros_like(x))


def tan_k(x: Tensor, k: Tensor) -> Tensor:
    """`tanh(sqrt(-k) x) / sqrt(-k)`, or the tangent."""
    flat, sign = _signs(k)
    root = _root(k)
    scaled = x * root
    round_ = _only(sign.gt(0), scaled).clamp_max(1e38).tan()
    curved = torch.where(sign.gt(0), round_, scaled.clamp(-15, 15).tanh()) * root.reciprocal()
    return torch.where(flat, stereographic.tan_k_zero_taylor(_only(flat, x), k, order=1), curved)


def artan_k(x: Tensor, k: Tensor) -> Tensor:
    """`artanh(sqrt(-k) x) / sqrt(-k)`, or the inverse tangent."""
    flat, sign = _signs(k)
    root = _root(k)
    scaled = x * root
    inside = scaled.clamp(-1 + 1e-7, 1 - 1e-7)
    artanh = (torch.log(1 + inside) - torch.log(1 - inside)) * 0.5
    curved = torch.where(sign.gt(0), scaled.atan(), artanh) * root.reciprocal()
    return torch.where(flat, stereographic.artan_k_zero_taylor(_only(flat, x), k, order=1), curved)


def arsin_k(x: Tensor, k: Tensor) -> Tensor:
    """`asinh(sqrt(-k) x) / sqrt(-k)`, or the inverse sine."""
    flat, sign = _signs(k)
    root = _root(k)
    scaled = x * root
    # Only beside other signs is the argument of the inverse sine kept inside its range.
    inside = torch.where(sign.gt(0).all(), scaled, scaled.clamp(-1 + 1e-7, 1 - 1e-7))
    arsinh = (scaled + torch.sqrt(1 + scaled.pow(2))).clamp_min(1e-15).log()
    curved = torch.where(sign.gt(0), inside.asin(), arsinh) * root.reciprocal()
    return torch.where(flat, stereographic.arsin_k_zero_taylor(_only(flat, x), k), curved)


def sin_k(x: Tensor, k: Tensor) -> Tensor:
    """`sinh(sqrt(-k) x) / sqrt(-k)`, or the sine."""
    flat, sign = _signs(k)
    root = _root(k)
    scaled = x * root
    curved = torch.where(sign.gt(0), scaled.sin(), _only(sign.le(0), scaled).sinh()) * root.reciprocal()
    return torch.where(flat, stereographic.sin_k_zero_taylor(_only(flat, x), k), curved)


def mobius_matvec(m: Tensor, x: Tensor, k: Tensor, dim: int = -1) -> Tensor:
    """`exp0(m log0(x))`; a product that is 0 stays so."""
    if m.dim() > 2 and dim != -1:
        raise RuntimeError("broadcasted Möbius matvec is supported for the last dim only")
    x_norm = x.norm(dim=dim, keepdim=True, p=2).clamp_min(1e-15)
    if dim != -1 or m.dim() == 2:
        mx = torch.tensordot(x, m, ([dim], [1]))
    else:
        mx = torch.matmul(m, x.unsqueeze(-1)).squeeze(-1)
    mx_norm = mx.norm(dim=dim, keepdim=True, p=2).clamp_min(1e-15)
    result = tan_k(mx_norm / x_norm * artan_k(x_norm, k), k) * (mx / mx_norm)
    zero = torch.zeros(1, dtype=result.dtype, device=result.device)
    return torch.where((mx == 0).all(dim=dim, keepdim=True), zero, result)


def mobius_pointwise_mul(w: Tensor, x: Tensor, k: Tensor, dim: int = -1) -> Tensor:
    """`exp0(w log0(x))`, elementwise; a product that is 0 stays so."""
    x_norm = x.norm(dim=dim, keepdim=True, p=2).clamp_min(1e-15)
    wx = w * x
    wx_norm = wx.norm(dim=dim, keepdim=True, p=2).clamp_min(1e-15)
    result = tan_k(wx_norm / x_norm * artan_k(x_norm, k), k) * (wx / wx_norm)
    zero = torch.zeros((), dtype=result.dtype, device=result.device)
    return torch.where(wx.isclose(zero).all(dim=dim, keepdim=True), zero, result)


def antipode(x: Tensor, k: Tensor, dim: int = -1) -> Tensor:
    """The point opposite of `x`; `-x` where space has no such point."""
    v = x / x.norm(p=2, dim=dim, keepdim=True).clamp_min(1e-15)
    far = stereographic._geodesic_unit(math.pi * _root(k).reciprocal(), x, v, k, dim=dim)
    return torch.where(k.gt(0), far, -x)


def weighted_midpoint(
    xs: Tensor,
    k: Tensor,
    weights: Tensor | None = None,
    reducedim: list[int] | None = None,
    dim: int = -1,
    keepdim: bool = False,
    lincomb: bool = False,
    posweight: bool = False,
) -> Tensor:
    """The midpoint of points along some dimensions, and with `lincomb` the linear combination."""
    if reducedim is None:
        reducedim = list(range(xs.dim()))
        reducedim.pop(dim)
    gamma = stereographic._lambda_x(xs, k=k, dim=dim, keepdim=True)
    one = torch.ones((), dtype=xs.dtype, device=xs.device)
    weights = one if weights is None else weights.unsqueeze(dim)
    if posweight:
        negative = weights.lt(0)
        xs = torch.where(negative, antipode(xs, k, dim=dim), xs)
        weights = torch.where(negative.any(), weights.abs(), weights)
    denominator = ((gamma - 1) * weights).sum(reducedim, keepdim=True)
    nominator = (gamma * weights * xs).sum(reducedim, keepdim=True)
    two_mean = nominator / stereographic.clamp_abs(denominator, 1e-10)
    half = torch.full((), 0.5, dtype=xs.dtype, device=xs.device)
    mean = stereographic._mobius_scalar_mul(half, two_mean, k=k, dim=dim)
    opposite = antipode(mean, k, dim=dim)
    near, far = (
        stereographic._dist(point, xs, k=k, keepdim=True, dim=dim).sum(reducedim, keepdim=True)
        for point in (mean, opposite)
    )
    mean = torch.where(k.gt(0) & (far < near), opposite, mean)
    if lincomb:
        if weights.numel() == 1:
            alpha = weights.clone()
            for d in reducedim:
                alpha = alpha * xs.size(d)
        else:
            alpha = torch.broadcast_tensors(weights, gamma)[0].sum(reducedim, keepdim=True)
        mean = stereographic._mobius_scalar_mul(alpha, mean, k=k, dim=dim)
    if not keepdim:
        for seen, d in enumerate(reducedim):
            mean = mean.squeeze(d - seen)
    return mean


# Scripted function of geoopt -> what stands in its place, and the fingerprint of what it stands for.
REPLACEMENTS: dict[str, tuple[Callable[..., Any], str]] = {
    "tan_k": (tan_k, "5b01b1cd7354a949"),
    "artan_k": (artan_k, "ea02cb7a0a9613c1"),
    "arsin_k": (arsin_k, "f492ec3ed3dddd1a"),
    "sin_k": (sin_k, "4ab9341d3a5308be"),
    "_mobius_matvec": (mobius_matvec, "3ac7b1097806c2c0"),
    "_mobius_pointwise_mul": (mobius_pointwise_mul, "99741455995e8410"),
    "_antipode": (antipode, "3ff986f52f7d52d3"),
    "_weighted_midpoint": (weighted_midpoint, "04f2825274bbbe7b"),
}


def tracing() -> Tracing:
    """How geoopt is traced, of a version that is known."""
    left = unknown_version("geoopt", geoopt.__version__, VERSIONS)
    functions: dict[Any, Callable[..., Any]] = {}
    for name, (made, expected) in REPLACEMENTS.items() if not left else ():
        original = getattr(stereographic, name, None)
        if fingerprint(original) == expected:
            functions[original] = made
        else:
            left += (f"geoopt: {name} is traced as it is: its source is not that of geoopt {VERSIONS[0]}",)
    return Tracing("geoopt", functions, left=left)
