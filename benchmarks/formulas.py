"""Hyperbolic geometry as users spell it in plain torch, with the guards users give it."""

from __future__ import annotations

import torch


def expmap0(v: torch.Tensor, c: float) -> torch.Tensor:
    """Tangent rows `[*batch, dim]` at the origin to points: `tanh(sqrt(c)||v||) v / (sqrt(c)||v||)`.

    >>> expmap0(torch.tensor([[0.0, 0.0]]), 1.0)
    tensor([[0., 0.]])
    """
    n = c**0.5 * v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return torch.tanh(n) * v / n


def logmap0(x: torch.Tensor, c: float) -> torch.Tensor:
    """Points `[*batch, dim]` to tangent rows at the origin, the inverse of `expmap0`.

    >>> logmap0(expmap0(torch.tensor([[0.25, 0.0]]), 1.0), 1.0)
    tensor([[0.2500, 0.0000]])
    """
    n = c**0.5 * x.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return torch.atanh(n.clamp(max=1 - 1e-6)) * x / n


def mobius_add(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """Moebius sum of points `[*batch, dim]`.

    >>> mobius_add(torch.tensor([[0.5, 0.0]]), torch.tensor([0.0, 0.0]), 1.0)
    tensor([[0.5000, 0.0000]])
    """
    xy = (x * y).sum(dim=-1, keepdim=True)
    x2 = x.pow(2).sum(dim=-1, keepdim=True)
    y2 = y.pow(2).sum(dim=-1, keepdim=True)
    numerator = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    denominator = 1 + 2 * c * xy + c**2 * x2 * y2
    return numerator / denominator.clamp_min(1e-15)


def dist(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """Distance `[*batch]` of points `[*batch, dim]`: `2 / sqrt(c) artanh(sqrt(c) ||-x + y||)`.

    >>> dist(torch.tensor([[0.5, 0.0]]), torch.tensor([[0.5, 0.0]]), 1.0)
    tensor([0.])
    """
    n = c**0.5 * mobius_add(-x, y, c).norm(dim=-1)
    return 2 / c**0.5 * torch.atanh(n.clamp(max=1 - 1e-7))


def dist0(x: torch.Tensor, c: float) -> torch.Tensor:
    """Distance `[*batch]` of points from the origin."""
    return 2 / c**0.5 * torch.atanh((c**0.5 * x.norm(dim=-1)).clamp(max=1 - 1e-7))


def mobius_scalar_mul(r: float, x: torch.Tensor, c: float) -> torch.Tensor:
    """Points `[*batch, dim]` at `r` times their distance from the origin."""
    n = c**0.5 * x.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return torch.tanh(r * torch.atanh(n.clamp(max=1 - 1e-7))) * x / n


def conformal_factor(x: torch.Tensor, c: float) -> torch.Tensor:
    """`2 / (1 - c ||x||^2)`, `[*batch, 1]`."""
    return 2 / (1 - c * x.pow(2).sum(dim=-1, keepdim=True)).clamp_min(1e-15)


def expmap(x: torch.Tensor, v: torch.Tensor, c: float) -> torch.Tensor:
    """The point that the geodesic from `x` with velocity `v` reaches at time 1."""
    n = c**0.5 * v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return mobius_add(x, torch.tanh(conformal_factor(x, c) * n / 2) * v / n, c)


def logmap(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """The velocity at `x` of the geodesic that reaches `y` at time 1."""
    w = mobius_add(-x, y, c)
    n = c**0.5 * w.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return 2 / conformal_factor(x, c) * torch.atanh(n.clamp(max=1 - 1e-7)) * w / n


def parallel_transport(x: torch.Tensor, y: torch.Tensor, v: torch.Tensor, c: float) -> torch.Tensor:
    """Tangent rows at `x`, carried to `y` along the geodesic: `gyr[y, -x] v lambda_x / lambda_y`."""
    u = -x
    u2, y2 = (each.pow(2).sum(dim=-1, keepdim=True) for each in (u, y))
    uy, uv, yv = ((a * b).sum(dim=-1, keepdim=True) for a, b in ((y, u), (u, v), (y, v)))
    a = -(c**2) * yv * u2 + c * uv + 2 * c**2 * uy * uv
    b = -(c**2) * uv * y2 - c * yv
    d = 1 + 2 * c * uy + c**2 * y2 * u2
    gyration = v + 2 * (a * y + b * u) / d.clamp_min(1e-15)
    return gyration * conformal_factor(x, c) / conformal_factor(y, c)


def project(x: torch.Tensor, c: float, eps: float = 4e-3) -> torch.Tensor:
    """Rows `[*batch, dim]`, pulled back to radius `(1 - eps) / sqrt(c)` where they lie beyond."""
    norm = x.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    limit = (1 - eps) / c**0.5
    return torch.where(norm > limit, x / norm * limit, x)


def lorentz_inner(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """`-x0 y0 + <x, y>`, `[*batch]`."""
    product = x * y
    return product[..., 1:].sum(-1) - product[..., 0]


def lorentz_dist(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """Distance `[*batch]` of points of the hyperboloid: `arcosh(-c <x, y>) / sqrt(c)`."""
    return torch.acosh((-c * lorentz_inner(x, y)).clamp_min(1 + 1e-7)) / c**0.5


def lorentz_expmap0(v: torch.Tensor, c: float) -> torch.Tensor:
    """Tangent rows `(0, v)` at the origin to points of the hyperboloid."""
    space = v[..., 1:]
    n = c**0.5 * space.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return torch.cat([torch.cosh(n) / c**0.5, torch.sinh(n) * space / n], dim=-1)


def lorentz_logmap0(x: torch.Tensor, c: float) -> torch.Tensor:
    """Points of the hyperboloid to tangent rows `(0, v)` at the origin."""
    time, space = x[..., :1], x[..., 1:]
    distance = torch.acosh((c**0.5 * time).clamp_min(1 + 1e-7)) / c**0.5
    n = space.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return torch.cat([torch.zeros_like(time), distance * space / n], dim=-1)


def lorentz_expmap(x: torch.Tensor, v: torch.Tensor, c: float) -> torch.Tensor:
    """The point that the geodesic of the hyperboloid from `x` with velocity `v` reaches at time 1."""
    n = (c * lorentz_inner(v, v)).clamp_min(1e-8).sqrt()[..., None]
    return torch.cosh(n) * x + torch.sinh(n) * v / n


def klein_dist(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """Distance `[*batch]` of points of the Klein ball: `arcosh((1 - c <x, y>) / sqrt(..)) / sqrt(c)`."""
    x2, y2 = (c * each.pow(2).sum(dim=-1) for each in (x, y))
    ratio = (1 - c * (x * y).sum(dim=-1)) / ((1 - x2) * (1 - y2)).clamp_min(1e-15).sqrt()
    return torch.acosh(ratio.clamp_min(1 + 1e-7)) / c**0.5


def poincare_to_klein(x: torch.Tensor, c: float) -> torch.Tensor:
    """`2 x / (1 + c ||x||^2)`."""
    return 2 * x / (1 + c * x.pow(2).sum(dim=-1, keepdim=True))


def klein_to_poincare(x: torch.Tensor, c: float) -> torch.Tensor:
    """`x / (1 + sqrt(1 - c ||x||^2))`."""
    return x / (1 + (1 - c * x.pow(2).sum(dim=-1, keepdim=True)).clamp_min(1e-15).sqrt())


def cdist(x: torch.Tensor, y: torch.Tensor, c: float) -> torch.Tensor:
    """Distances `[n, m]` of all pairs of points of the Poincare ball, through an `[n, m, dim]` difference."""
    return dist(x[:, None], y[None], c)


def mlr(x: torch.Tensor, points: torch.Tensor, normals: torch.Tensor, c: float) -> torch.Tensor:
    """Logits `[batch, classes]` of Ganea et al. (2018), through `[classes, batch, dim]` Moebius sums."""
    moved = mobius_add(-points[:, None], x[None], c)
    length = normals.norm(dim=-1)[:, None]
    inner = (moved * normals[:, None]).sum(-1)
    gap = (1 - c * moved.pow(2).sum(-1)) * length
    factor = conformal_factor(points, c) * length / c**0.5
    return (factor * torch.asinh(2 * c**0.5 * inner / gap.clamp_min(1e-15))).T


def poincare_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, c: float) -> torch.Tensor:
    """`project(mobius_add(mobius_matvec(weight, x), bias))` with a point as bias."""
    mapped = x @ weight.T
    n, m = (each.norm(dim=-1, keepdim=True).clamp_min(1e-15) for each in (x, mapped))
    root = c**0.5
    moved = torch.tanh(m / n * torch.atanh((root * n).clamp(max=1 - 1e-7))) * mapped / (root * m)
    return project(mobius_add(moved, bias, c), c)
