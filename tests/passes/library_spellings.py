"""The three maps as libraries spell them: formulas written down from their published definitions."""

from __future__ import annotations

import torch
from spellings import SPELLINGS, root, spelled
from torch import Tensor

__all__ = ["SPELLINGS"]


def clamped_artanh(u: Tensor, limit: float) -> Tensor:
    u = u.clamp(-limit, limit)
    return (torch.log(1 + u) - torch.log(1 - u)) * 0.5


@spelled("expmap0", min_norm=1e-15, tanh_limit=15.0)
def geoopt_expmap0(u, c):
    k = -c
    k_sqrt = (abs(k) + 1e-15) ** 0.5
    u_norm = u.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    return 1 / k_sqrt * (u_norm * k_sqrt).clamp(-15, 15).tanh() * (u / u_norm)


@spelled("expmap0", min_norm=1e-5, tanh_limit=15.0)
def hie_expmap0(u, c):
    sqrt_c = c**0.5
    u_norm = torch.clamp_min(u.norm(dim=-1, p=2, keepdim=True), 1e-5)
    return (sqrt_c * u_norm).clamp(-15, 15).tanh() * u / (sqrt_c * u_norm)


@spelled("expmap0", min_norm=1e-15)
def hypll_expmap0(v, c):
    v_norm_c_sqrt = v.norm(dim=-1, keepdim=True).clamp_min(1e-15) * root(c)
    return torch.tanh(v_norm_c_sqrt) * v / v_norm_c_sqrt


@spelled("logmap0", min_norm=1e-15, atanh_limit=1 - 1e-7)
def geoopt_logmap0(y, c):
    k_sqrt = (abs(-c) + 1e-15) ** 0.5
    y_norm = y.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    return (y / y_norm) * (1 / k_sqrt * clamped_artanh(y_norm * k_sqrt, 1 - 1e-7))


@spelled("logmap0", min_norm=1e-5, atanh_limit=1 - 1e-5)
def hie_logmap0(y, c):
    sqrt_c = c**0.5
    y_norm = torch.clamp_min(y.norm(dim=-1, p=2, keepdim=True), 1e-5)
    return y / y_norm / sqrt_c * clamped_artanh(sqrt_c * y_norm, 1 - 1e-5)


@spelled("logmap0", min_norm=1e-15, atanh_limit=1 - 1e-5)
def hgcn_logmap0(p, c):
    sqrt_c = c**0.5
    p_norm = p.norm(dim=-1, p=2, keepdim=True).clamp_min(1e-15)
    scale = 1.0 / sqrt_c * clamped_artanh(sqrt_c * p_norm, 1 - 1e-5) / p_norm
    return scale * p


@spelled("logmap0", min_norm=1e-15)
def hypll_logmap0(y, c):
    y_norm_c_sqrt = y.norm(dim=-1, keepdim=True).clamp_min(1e-15) * root(c)
    return torch.atanh(y_norm_c_sqrt) * y / y_norm_c_sqrt


@spelled("mobius_add", min_denominator=1e-15)
def geoopt_mobius_add(x, y, c):
    k = -c
    x2 = x.pow(2).sum(dim=-1, keepdim=True)
    y2 = y.pow(2).sum(dim=-1, keepdim=True)
    xy = (x * y).sum(dim=-1, keepdim=True)
    num = (1 - 2 * k * xy - k * y2) * x + (1 + k * x2) * y
    return num / (1 - 2 * k * xy + k**2 * x2 * y2).clamp_min(1e-15)


@spelled("mobius_add", denominator_offset=1e-5)
def hie_mobius_add(x, y, c):
    x2 = x.pow(2).sum(dim=-1, keepdim=True)
    y2 = y.pow(2).sum(dim=-1, keepdim=True)
    xy = (x * y).sum(dim=-1, keepdim=True)
    num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    return num / (1 + 2 * c * xy + c**2 * x2 * y2 + 1e-5)


@spelled("mobius_add", min_denominator=1e-15)
def hgcn_mobius_add(x, y, c):
    x2 = x.pow(2).sum(dim=-1, keepdim=True)
    y2 = y.pow(2).sum(dim=-1, keepdim=True)
    xy = (x * y).sum(dim=-1, keepdim=True)
    num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    denom = 1 + 2 * c * xy + c**2 * x2 * y2
    return num / denom.clamp_min(1e-15)


@spelled("mobius_add", min_denominator=1e-15)
def hypll_mobius_add(x, y, c):
    x2, y2 = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    xy = torch.sum(y * x, dim=-1, keepdim=True)
    num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    return num / torch.clamp_min(1 + 2 * c * xy + c**2 * x2 * y2, 1e-15)
