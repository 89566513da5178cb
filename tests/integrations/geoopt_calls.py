"""Each function of geoopt's ball as a call on rows: what every test of its tracing and acceleration goes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from geoopt.manifolds.stereographic import math as ball
from torch import Tensor

Call = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

# `x` and `y` are points, `v` a tangent vector, `k` the curvature.
CALLS: dict[str, Call] = {
    "project": lambda x, y, v, k: ball.project(3 * x, k=k),
    "lambda_x": lambda x, y, v, k: ball.lambda_x(x, k=k, keepdim=True),
    "inner": lambda x, y, v, k: ball.inner(x, v, y, k=k, keepdim=True),
    "norm": lambda x, y, v, k: ball.norm(x, v, k=k, keepdim=True),
    "mobius_add": lambda x, y, v, k: ball.mobius_add(x, y, k=k),
    "mobius_sub": lambda x, y, v, k: ball.mobius_sub(x, y, k=k),
    "gyration": lambda x, y, v, k: ball.gyration(x, y, v, k=k),
    "mobius_coadd": lambda x, y, v, k: ball.mobius_coadd(x, y, k=k),
    "mobius_cosub": lambda x, y, v, k: ball.mobius_cosub(x, y, k=k),
    "mobius_scalar_mul": lambda x, y, v, k: ball.mobius_scalar_mul(v[..., :1], x, k=k),
    "dist": lambda x, y, v, k: ball.dist(x, y, k=k, keepdim=True),
    "dist0": lambda x, y, v, k: ball.dist0(x, k=k, keepdim=True),
    "geodesic": lambda x, y, v, k: ball.geodesic(torch.full((), 0.3, dtype=x.dtype), x, y, k=k),
    "expmap": lambda x, y, v, k: ball.expmap(x, v, k=k),
    "expmap0": lambda x, y, v, k: ball.expmap0(v, k=k),
    "geodesic_unit": lambda x, y, v, k: ball.geodesic_unit(torch.full((), 0.3, dtype=x.dtype), x, v, k=k),
    "logmap": lambda x, y, v, k: ball.logmap(x, y, k=k),
    "logmap0": lambda x, y, v, k: ball.logmap0(x, k=k),
    "mobius_matvec": lambda x, y, v, k: ball.mobius_matvec(_square(v), x, k=k),
    "mobius_pointwise_mul": lambda x, y, v, k: ball.mobius_pointwise_mul(v, x, k=k),
    "mobius_fn_apply": lambda x, y, v, k: ball.mobius_fn_apply(torch.sin, x, k=k),
    "mobius_fn_apply_chain": lambda x, y, v, k: ball.mobius_fn_apply_chain(x, torch.sin, torch.cos, k=k),
    "dist2plane": lambda x, y, v, k: ball.dist2plane(x, y, v, k=k, keepdim=True, signed=True, scaled=True),
    "parallel_transport": lambda x, y, v, k: ball.parallel_transport(x, y, v, k=k),
    "parallel_transport0": lambda x, y, v, k: ball.parallel_transport0(x, v, k=k),
    "parallel_transport0back": lambda x, y, v, k: ball.parallel_transport0back(x, v, k=k),
    "egrad2rgrad": lambda x, y, v, k: ball.egrad2rgrad(x, v, k=k),
    "sproj": lambda x, y, v, k: ball.sproj(x, k=k),
    "inv_sproj": lambda x, y, v, k: ball.inv_sproj(x, k=k),
    "antipode": lambda x, y, v, k: ball.antipode(x, k=k),
    "weighted_midpoint": lambda x, y, v, k: ball.weighted_midpoint(
        x, v[..., 0], k=k, reducedim=[-2], keepdim=True, lincomb=True, posweight=True
    ),
    "weighted_midpoint of all": lambda x, y, v, k: ball.weighted_midpoint(x, k=k if k.dim() == 0 else k[:1]),
}


def _square(v: Tensor) -> Tensor:
    return v[: v.shape[-1]]


def rows(dtype: torch.dtype, k: Tensor, radius: float = 0.7, seed: int = 0) -> Iterator[Tensor]:
    """Two points of that part of the ball's radius, and a tangent vector: `[9, 5]` each."""
    generator = torch.Generator().manual_seed(seed)
    scale = k.detach().abs().clamp_min(1.0).rsqrt()
    for share in (radius, radius, None):
        row = torch.randn(9, 5, generator=generator, dtype=torch.float64)
        if share is not None:
            row = (
                share * row / row.norm(dim=-1, keepdim=True) * torch.rand(9, 1, generator=generator).double()
            )
        yield (row * scale).to(dtype) if share is not None else (0.3 * row).to(dtype)
