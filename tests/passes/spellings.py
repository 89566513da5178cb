"""Spellings of the three maps, as users write them, each with the guards that it implies.

Every function takes rows, then the curvature `c`, a float or a tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Spelling:
    name: str
    target: str
    function: Callable[..., Tensor]
    guards: dict[str, Any] = field(default_factory=dict)


SPELLINGS: list[Spelling] = []


def spelled(target: str, **guards: Any) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        SPELLINGS.append(Spelling(function.__name__, target, function, guards))
        return function

    return add


def root(c: float | Tensor) -> float | Tensor:
    return c.sqrt() if isinstance(c, Tensor) else math.sqrt(c)


def norm(x: Tensor) -> Tensor:
    return x.norm(dim=-1, keepdim=True)


@spelled("expmap0", nan_at_zero=True)
def plain(x, c):
    u = root(c) * norm(x)
    return torch.tanh(u) * x / u


@spelled("expmap0", nan_at_zero=True)
def commuted(x, c):
    return x * (torch.tanh(norm(x) * c**0.5) / (norm(x) * c**0.5))


@spelled("expmap0", nan_at_zero=True)
def reciprocal(x, c):
    u = norm(x) * root(c)
    return u.tanh() * (1 / u) * x


@spelled("expmap0", nan_at_zero=True)
def root_of_sum(x, c):
    u = torch.sqrt((x * x).sum(-1, keepdim=True)) * root(c)
    return torch.mul(x, torch.div(torch.tanh(u), u))


@spelled("expmap0", min_norm=1e-15)
def direction_first(x, c):
    n = norm(x).clamp_min(1e-15)
    return x / n * torch.tanh(root(c) * n) / root(c)


@spelled("expmap0", nan_at_zero=True)
def duplicated_norm(x, c):
    length = torch.linalg.vector_norm(x, dim=-1).unsqueeze(-1)
    return torch.tanh(root(c) * x.pow(2).sum(dim=-1, keepdim=True) ** 0.5) / (root(c) * length) * x


@spelled("expmap0", square_offset=1e-12)
def powers(x, c):
    n = (x.pow(2).sum(-1, keepdim=True) + 1e-12).pow(0.5)
    return (c**0.5 * n).tanh() * x * (c**0.5 * n).pow(-1)


@spelled("expmap0", norm_offset=1e-6)
def offset(x, c):
    n = torch.linalg.norm(x, dim=-1, keepdim=True) + 1e-6
    return torch.tanh(root(c) * n) * x / (root(c) * n)


@spelled("expmap0", min_scaled=1e-7)
def clamped_after_scaling(x, c):
    u = torch.clamp(root(c) * norm(x), min=1e-7)
    return x * torch.tanh(u) / u


@spelled("expmap0", min_norm=1e-10, min_scaled=1e-6, tanh_limit=12.0)
def clamped_twice(x, c):
    u = (norm(x).clamp(min=1e-10) * root(c)).clamp(min=1e-6)
    return x.div(u).mul(torch.tanh(u.clamp(max=12.0)))


@spelled("expmap0", min_norm=1e-6)
def clamped_square(x, c):
    u = torch.sqrt(torch.clamp_min(x.square().sum(-1, True), 1e-12)) * root(c)
    return torch.tanh(u) / u * x


@spelled("expmap0", min_norm=1e-12)
def normalized(x, c):
    return F.normalize(x, dim=-1) * torch.tanh(root(c) * norm(x).clamp_min(1e-12)) / root(c)


@spelled("expmap0", nan_at_zero=True)
def norm_under_rsqrt(x, c):
    square = torch.einsum("...i,...i->...", x, x)[..., None]
    return torch.rsqrt(square) * torch.tanh((c * square).sqrt()) * x / root(c)


@spelled("expmap0", nan_at_zero=True)
def negative_twice(x, c):
    return -torch.tanh(root(c) * norm(-x)) * (-x / (root(c) * norm(x)))


@spelled("logmap0", nan_at_zero=True)
def plain_logmap0(y, c):
    u = root(c) * norm(y)
    return torch.atanh(u) / u * y


@spelled("logmap0", min_norm=1e-15)
def ratio_of_logs(y, c):
    u = root(c) * norm(y).clamp_min(1e-15)
    return 0.5 * torch.log((1 + u) / (1 - u)) * y / u


@spelled("logmap0", norm_offset=1e-7)
def log1p_difference(y, c):
    u = (norm(y) + 1e-7) * root(c)
    return y / u * (torch.log1p(u) - torch.log1p(-u)) / 2


@spelled("mobius_add")
def plain_mobius_add(x, y, c):
    x2, y2, xy = (x * x).sum(-1, True), (y * y).sum(-1, True), (x * y).sum(-1, True)
    return ((1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y) / (1 + 2 * c * xy + c**2 * x2 * y2)


@spelled("mobius_add")
def mobius_add_of_parts(x, y, c):
    x2, y2 = torch.linalg.vector_norm(x, dim=-1, keepdim=True) ** 2, norm(y).square()
    xy = torch.linalg.vecdot(x, y).unsqueeze(-1)
    denominator = torch.addcmul(1 + 2 * xy * c, c * x2, c * y2)
    return x * ((c * (xy + xy + y2) + 1) / denominator) + y * ((1 - x2 * c) / denominator)


@spelled("mobius_add", min_denominator=1e-10)
def difference(x, y, c):
    """`-x` plus `y`, the sign pushed into the formula."""
    x2, y2, xy = (x * x).sum(-1, True), (y * y).sum(-1, True), (x * y).sum(-1, True)
    num = (1 - c * x2) * y - (1 - 2 * c * xy + c * y2) * x
    return num / torch.maximum(1 - 2 * c * xy + c**2 * x2 * y2, torch.full((), 1e-10, dtype=x.dtype))
