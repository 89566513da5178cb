"""The Poincaré ball as libraries spell it, written down from their published definitions."""

from __future__ import annotations

import torch
from cases import case
from torch import Tensor
from torch.nn import functional as F


def root(c: float | Tensor) -> float | Tensor:
    return c**0.5


def norm(x: Tensor) -> Tensor:
    return x.norm(dim=-1, p=2, keepdim=True)


def artanh(x: Tensor, limit: float) -> Tensor:
    x = x.clamp(-limit, limit)
    return (torch.log(1 + x) - torch.log(1 - x)) * 0.5


def artanh_in_double(x: Tensor) -> Tensor:
    z = x.double().clamp(-1 + 1e-15, 1 - 1e-15)
    return (0.5 * (torch.log(1 + z) - torch.log(1 - z))).to(x.dtype)


GEOOPT, HIE = 1 - 1e-7, 1 - 1e-5


def geoopt_tan_k(x: Tensor, c: float | Tensor) -> Tensor:
    """The branch for a negative curvature."""
    k_sqrt = (c + 1e-15) ** 0.5
    return 1 / k_sqrt * (x * k_sqrt).clamp(-15, 15).tanh()


def geoopt_artan_k(x: Tensor, c: float | Tensor) -> Tensor:
    k_sqrt = (c + 1e-15) ** 0.5
    return 1 / k_sqrt * artanh(x * k_sqrt, GEOOPT)


# --- expmap0 ----------------------------------------------------------------------------------------------------------
@case("geoopt", "expmap0", "tangent", min_norm=1e-15, tanh_limit=15.0)
def expmap0(u, c):
    u_norm = u.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    return geoopt_tan_k(u_norm, c) * (u / u_norm)


@case("HIE", "expmap0", "tangent", min_norm=1e-5, tanh_limit=15.0)
def expmap0_of_clamped_norm(u, c):
    u_norm = torch.clamp_min(norm(u), 1e-5)
    return (root(c) * u_norm).clamp(-15, 15).tanh() * u / (root(c) * u_norm)


@case("HGCN", "expmap0", "tangent", min_norm=1e-15, tanh_limit=15.0)
def expmap0_hgcn(u, c):
    u_norm = torch.clamp_min(norm(u), 1e-15)
    return (root(c) * u_norm).clamp(-15, 15).tanh() * u / (root(c) * u_norm)


@case("HypLL", "expmap0", "tangent", min_norm=1e-15)
def expmap0_hypll(v, c):
    v_norm_c_sqrt = v.norm(dim=-1, keepdim=True).clamp_min(1e-15) * root(c)
    return torch.tanh(v_norm_c_sqrt) * v / v_norm_c_sqrt


@case("KGEmb", "expmap0", "tangent", min_norm=1e-15, tanh_limit=15.0)
def expmap0_kgemb(u, c):
    u_norm = u.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    return torch.clamp(root(c) * u_norm, -15, 15).tanh() * u / (root(c) * u_norm)


@case("none", "expmap0", "tangent", min_norm=1e-12)
def expmap0_normalized(x, c):
    return F.normalize(x, dim=-1) * torch.tanh(root(c) * norm(x).clamp_min(1e-12)) / root(c)


@case("none", "expmap0", "tangent", min_norm=1e-12, separate=True)
def expmap0_normalized_without_clamp(x, c):
    return F.normalize(x, dim=-1) * torch.tanh(root(c) * norm(x)) / root(c)


@case("none", "expmap0", "tangent", min_norm=1e-15)
def expmap0_of_square(v, c):
    q = (v * v).sum(-1, keepdim=True).clamp_min(1e-30)
    return v * torch.rsqrt(q) * torch.tanh(root(c) * q.sqrt()) / root(c)


@case("none", "expmap0", "tangent", square_offset=1e-12)
def expmap0_offset(x, c):
    n = torch.sqrt(x.pow(2).sum(-1, keepdim=True) + 1e-12)
    return torch.tanh(root(c) * n) / (root(c) * n) * x


@case("none", "expmap0", "tangent", min_norm=1e-15)
def expmap0_einsum(x, c):
    n = torch.einsum("...i,...i->...", x, x).sqrt().clamp_min(1e-15).unsqueeze(-1)
    return torch.tanh(root(c) * n) / (root(c) * n) * x


# --- logmap0 ----------------------------------------------------------------------------------------------------------
@case("geoopt", "logmap0", "point", min_norm=1e-15, atanh_limit=GEOOPT, limited=True)
def logmap0(y, c):
    y_norm = y.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    return (y / y_norm) * geoopt_artan_k(y_norm, c)


@case("HIE", "logmap0", "point", min_norm=1e-5, atanh_limit=HIE, limited=True)
def logmap0_of_clamped_norm(y, c):
    y_norm = torch.clamp_min(norm(y), 1e-5)
    return y / y_norm / root(c) * artanh(root(c) * y_norm, HIE)


@case("HGCN", "logmap0", "point", min_norm=1e-15, atanh_limit=1 - 1e-15, limited=True)
def logmap0_hgcn(p, c):
    p_norm = norm(p).clamp_min(1e-15)
    scale = 1.0 / root(c) * artanh_in_double(root(c) * p_norm) / p_norm
    return scale * p


@case("HypLL", "logmap0", "point", min_norm=1e-15)
def logmap0_hypll(y, c):
    y_norm_c_sqrt = y.norm(dim=-1, keepdim=True).clamp_min(1e-15) * root(c)
    return torch.atanh(y_norm_c_sqrt) * y / y_norm_c_sqrt


@case("KGEmb", "logmap0", "point", min_norm=1e-15, atanh_limit=HIE, limited=True)
def logmap0_kgemb(y, c):
    y_norm = y.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    return y / y_norm / root(c) * artanh(root(c) * y_norm, HIE)


@case("hyptorch", "logmap0", "point", min_norm=1e-5, atanh_limit=HIE, limited=True)
def logmap0_hyptorch(y, c):
    y_norm = torch.clamp_min(norm(y), 1e-5)
    return y / y_norm / root(c) * torch.atanh(torch.clamp(root(c) * y_norm, -HIE, HIE))


# --- mobius_add -------------------------------------------------------------------------------------------------------
@case("geoopt", "mobius_add", "point", "second", min_denominator=1e-15)
def mobius_add(x, y, c):
    k = -c
    x2, y2 = x.pow(2).sum(dim=-1, keepdim=True), y.pow(2).sum(dim=-1, keepdim=True)
    xy = (x * y).sum(dim=-1, keepdim=True)
    num = (1 - 2 * k * xy - k * y2) * x + (1 + k * x2) * y
    return num / (1 - 2 * k * xy + k**2 * x2 * y2).clamp_min(1e-15)


@case("HIE", "mobius_add", "point", "second", denominator_offset=1e-5)
def mobius_add_offset(x, y, c):
    x2, y2 = x.pow(2).sum(dim=-1, keepdim=True), y.pow(2).sum(dim=-1, keepdim=True)
    xy = (x * y).sum(dim=-1, keepdim=True)
    num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    return num / (1 + 2 * c * xy + c**2 * x2 * y2 + 1e-5)


@case("HGCN", "mobius_add", "point", "second", min_denominator=1e-15)
def mobius_add_hgcn(x, y, c):
    x2, y2 = x.pow(2).sum(dim=-1, keepdim=True), y.pow(2).sum(dim=-1, keepdim=True)
    xy = (x * y).sum(dim=-1, keepdim=True)
    num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    denom = 1 + 2 * c * xy + c**2 * x2 * y2
    return num / denom.clamp_min(1e-15)


@case("HypLL", "mobius_add", "point", "second", min_denominator=1e-15)
def mobius_add_hypll(x, y, c):
    broadcasted_x2, broadcasted_y2 = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    xy = torch.sum(x * y, dim=-1, keepdim=True)
    num = (1 + 2 * c * xy + c * broadcasted_y2) * x + (1 - c * broadcasted_x2) * y
    return num / torch.clamp_min(1 + 2 * c * xy + c**2 * broadcasted_x2 * broadcasted_y2, 1e-15)


# --- expmap, logmap ---------------------------------------------------------------------------------------------------
def factor(x: Tensor, c: float | Tensor, low: float = 1e-15) -> Tensor:
    gap = 1 - c * x.pow(2).sum(-1, keepdim=True)
    return 2 / (gap.clamp_min(low) if low else gap)


@case(
    "geoopt",
    "expmap",
    "second",
    "tangent",
    min_gap=1e-15,
    min_norm=1e-15,
    tanh_limit=15.0,
    min_denominator=1e-15,
)
def expmap(x, u, c):
    u_norm = u.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    second_term = geoopt_tan_k(factor(x, c) / 2.0 * u_norm, c) * (u / u_norm)
    return mobius_add(x, second_term, c)


@case("HIE", "expmap", "second", "tangent", min_norm=1e-5, tanh_limit=15.0, denominator_offset=1e-5)
def expmap_without_clamp(x, u, c):
    u_norm = torch.clamp_min(norm(u), 1e-5)
    second_term = (root(c) / 2 * factor(x, c, 0.0) * u_norm).clamp(-15, 15).tanh() * u / (root(c) * u_norm)
    return mobius_add_offset(x, second_term, c)


@case("HypLL", "expmap", "second", "tangent", min_gap=1e-15, min_norm=1e-15, min_denominator=1e-15)
def expmap_hypll(x, v, c):
    v_norm = v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    lambda_x = 2 / (1 - c * x.pow(2).sum(dim=-1, keepdim=True)).clamp_min(1e-15)
    c_sqrt = root(c)
    second_term = torch.tanh(c_sqrt * lambda_x * v_norm / 2) * v / (c_sqrt * v_norm)
    return mobius_add(x, second_term, c)


@case("geoopt", "logmap", "second", "point", min_gap=1e-15, min_denominator=1e-15, atanh_limit=GEOOPT)
def logmap(x, y, c):
    sub = mobius_add(-x, y, c)
    sub_norm = sub.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    return 2.0 * geoopt_artan_k(sub_norm, c) * (sub / (factor(x, c) * sub_norm))


@case("HIE", "logmap", "second", "point", denominator_offset=1e-5, atanh_limit=HIE)
def logmap_without_clamp(x, y, c):
    sub = mobius_add_offset(-x, y, c)
    sub_norm = norm(sub)
    return 2 / (root(c) * factor(x, c, 0.0)) * artanh(root(c) * sub_norm, HIE) * sub / sub_norm


@case("HypLL", "logmap", "second", "point", min_gap=1e-15, min_denominator=1e-15)
def logmap_hypll(x, y, c):
    min_x_y = mobius_add(-x, y, c)
    n = min_x_y.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    lambda_x = 2 / (1 - c * x.pow(2).sum(dim=-1, keepdim=True)).clamp_min(1e-15)
    return 2 / (root(c) * lambda_x) * torch.atanh(root(c) * n) * min_x_y / n


# --- project ----------------------------------------------------------------------------------------------------------
@case("geoopt", "project", "any", min_norm=1e-15, limited=True)
def project(x, c):
    maxnorm = (1 - 4e-3) / (c + 1e-15) ** 0.5
    n = x.norm(dim=-1, keepdim=True, p=2).clamp_min(1e-15)
    return torch.where(n > maxnorm, x / n * maxnorm, x)


@case("HIE", "project", "any", min_norm=1e-5, limited=True)
def project_hie(x, c):
    n = torch.clamp_min(x.norm(dim=-1, keepdim=True, p=2), 1e-5)
    maxnorm = (1 - 1e-3) / root(c)
    return torch.where(n > maxnorm, x / n * maxnorm, x)


@case("HGCN", "project", "any", min_norm=1e-15, limited=True)
def project_hgcn(x, c):
    n = torch.clamp_min(x.norm(dim=-1, keepdim=True, p=2), 1e-15)
    maxnorm = (1 - 4e-3) / root(c)
    return torch.where(n > maxnorm, x / n * maxnorm, x)


@case("none", "project", "any", limited=True)
def project_by_a_factor(x, c):
    return x * ((1 - 1e-3) / root(c) / norm(x)).clamp(max=1.0)


# --- mobius_matvec, mobius_scalar_mul ---------------------------------------------------------------------------------
@case("geoopt", "mobius_matvec", "any", "second", min_norm=1e-15, atanh_limit=GEOOPT, tanh_limit=15.0)
def mobius_matvec(mx, x, c):
    x_norm = x.norm(dim=-1, keepdim=True, p=2).clamp_min(1e-15)
    mx_norm = mx.norm(dim=-1, keepdim=True, p=2).clamp_min(1e-15)
    res_c = geoopt_tan_k(mx_norm / x_norm * geoopt_artan_k(x_norm, c), c) * (mx / mx_norm)
    cond = (mx == 0).all(dim=-1, keepdim=True)
    return torch.where(cond, torch.zeros(1, dtype=res_c.dtype), res_c)


@case("HGCN", "mobius_matvec", "any", "second", min_norm=1e-15, atanh_limit=HIE, tanh_limit=15.0)
def mobius_matvec_hgcn(mx, x, c):
    x_norm = norm(x).clamp_min(1e-15)
    mx_norm = norm(mx).clamp_min(1e-15)
    res = (mx_norm / x_norm * artanh(root(c) * x_norm, HIE)).clamp(-15, 15).tanh() * mx / (mx_norm * root(c))
    return torch.where((mx == 0).all(-1, keepdim=True), torch.zeros((), dtype=res.dtype), res)


@case(
    "geoopt", "mobius_scalar_mul", "point", min_norm=1e-15, atanh_limit=GEOOPT, tanh_limit=15.0, limited=True
)
def mobius_scalar_mul(x, c):
    x_norm = x.norm(dim=-1, keepdim=True, p=2).clamp_min(1e-15)
    return geoopt_tan_k(0.3 * geoopt_artan_k(x_norm, c), c) * (x / x_norm)


@case("HypLL", "mobius_scalar_mul", "point", min_norm=1e-15)
def mobius_scalar_mul_hypll(x, c):
    n = x.norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return torch.tanh(2.5 * torch.atanh(root(c) * n)) * x / (root(c) * n)


# --- numbers ----------------------------------------------------------------------------------------------------------
@case("geoopt", "poincare_dist0", "point", atanh_limit=GEOOPT, limited=True)
def dist0(x, c):
    return 2 * geoopt_artan_k(x.norm(dim=-1, p=2), c)


@case("HIE", "poincare_dist0", "point", atanh_limit=HIE, limited=True)
def dist0_hie(x, c):
    return 2 / root(c) * artanh(root(c) * x.norm(dim=-1, p=2), HIE)


@case("HypLL", "poincare_dist0", "point")
def dist0_hypll(x, c):
    return 2 / root(c) * torch.atanh(root(c) * x.norm(dim=-1))


@case("none", "klein_to_poincare", "point")
def klein_to_poincare(x, c):
    return x / (1 + torch.sqrt(1 - c * (x * x).sum(-1, keepdim=True)))


@case("HIE", "poincare_to_klein", "point")
def poincare_to_klein(x, c):
    return 2 * x / (1 + c * x.pow(2).sum(-1, keepdim=True))
