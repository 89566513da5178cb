"""Weighted midpoints: sums of points, and what brings a sum back to its model. The sums are float64."""

from __future__ import annotations

import torch
from torch import Tensor

from stonefx.ops.calling import Caller
from stonefx.ops.curvature import operand

from .bounds import bounds

_CONFORMAL_FACTOR = Caller("conformal_factor")
_LORENTZ_PROJECT = Caller("lorentz_project")
_PROJECT = Caller("project")


def _prepare(
    function: str, points: Tensor, weights: Tensor | None, c: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Points, weights `[*batch, n, 1]` and the curvature of the points and of the result, in float64."""
    if points.dim() < 2:
        raise ValueError(
            f"{function}: points must be [*batch, n, dim], got {list(points.shape)}; stack the points of one "
            "midpoint along dimension -2"
        )
    curvature = operand(function, points, c)
    of_points = curvature.unsqueeze(-2) if curvature.dim() else curvature
    wide = points.double()
    shares = torch.ones_like(wide[..., :1]) if weights is None else weights.double().unsqueeze(-1)
    return wide, shares, of_points, curvature.to(device=points.device, dtype=torch.float64)


def _into_ball(row: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    return _PROJECT(row, c, eps=1 - bounds(dtype).radius).to(dtype)


def gyromidpoint(points: Tensor, weights: Tensor | None, c: float | Tensor) -> Tensor:
    """`sum w g x / (D + sqrt(D^2 - c ||sum w g x||^2))`, `D = sum w (g - 1)`, `g` the conformal factor."""
    wide, shares, of_points, curvature = _prepare("gyromidpoint", points, weights, c)
    factor = _CONFORMAL_FACTOR(wide, of_points, min_gap=bounds(points.dtype).gap).unsqueeze(-1)
    total = (shares * factor * wide).sum(-2)
    time = (shares * (factor - 1)).sum(-2)
    squares = time.square() - curvature * total.square().sum(-1, keepdim=True)
    return _into_ball(total / (time + squares.clamp_min(1e-300).sqrt()), curvature, points.dtype)


def einstein_midpoint(points: Tensor, weights: Tensor | None, c: float | Tensor) -> Tensor:
    """`sum w g x / sum w g`, `g = 1 / sqrt(1 - c ||x||^2)`."""
    wide, shares, of_points, curvature = _prepare("einstein_midpoint", points, weights, c)
    factor = _CONFORMAL_FACTOR(wide, of_points, min_gap=bounds(points.dtype).gap).unsqueeze(-1)
    gamma = shares * (0.5 * factor).sqrt()
    return _into_ball((gamma * wide).sum(-2) / gamma.sum(-2), curvature, points.dtype)


def centroid(points: Tensor, weights: Tensor | None, c: float | Tensor) -> Tensor:
    """`s / sqrt(-c <s, s>)`, `s = sum w x`."""
    wide, shares, of_points, curvature = _prepare("centroid", points, weights, c)
    total = (shares * _LORENTZ_PROJECT(wide, of_points)).sum(-2)
    time, space = total[..., :1], total[..., 1:]
    squares = time.square() - space.square().sum(-1, keepdim=True)
    scaled = total / (curvature * squares.clamp_min(1e-300)).sqrt()
    return _LORENTZ_PROJECT(scaled, curvature).to(points.dtype)
