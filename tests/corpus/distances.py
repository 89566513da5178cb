"""Distances as libraries spell them, of rows and of all pairs."""

from __future__ import annotations

import math

import torch
from cases import case
from poincare import GEOOPT, HIE, artanh, geoopt_artan_k, mobius_add, mobius_add_offset, root
from torch import Tensor


def squares(x: Tensor) -> Tensor:
    return x.pow(2).sum(-1, keepdim=True)


@case("geoopt", "poincare_dist", "point", "second", limited=True, min_denominator=1e-15, atanh_limit=GEOOPT)
def dist(x, y, c):
    return 2.0 * geoopt_artan_k(mobius_add(-x, y, c).norm(dim=-1, p=2), c)


@case("HIE", "poincare_dist", "point", "second", limited=True, denominator_offset=1e-5, atanh_limit=HIE)
def dist_offset(x, y, c):
    return 2 / root(c) * artanh(root(c) * mobius_add_offset(-x, y, c).norm(dim=-1, p=2), HIE)


@case("HGCN", "poincare_dist", "point", "second", limited=True, min_denominator=1e-15, atanh_limit=HIE)
def dist_hgcn(x, y, c):
    return artanh(root(c) * mobius_add(-x, y, c).norm(dim=-1, p=2, keepdim=False), HIE) * 2 / root(c)


@case("HypLL", "poincare_dist", "point", "second", min_denominator=1e-15)
def dist_hypll(x, y, c):
    return 2 / root(c) * (root(c) * mobius_add(-x, y, c).norm(dim=-1)).atanh()


@case("Nickel and Kiela", "poincare_dist", "point", "second", loses=4.0)
def dist_by_arcosh(x, y, c):
    z = 1 + 2 * c * squares(x - y) / ((1 - c * squares(x)) * (1 - c * squares(y)))
    return (torch.acosh(z) / root(c)).squeeze(-1)


@case(
    "Poincaré embeddings", "poincare_dist", "point", "second", loses=4.0, min_distance=math.acosh(1 + 2**-16)
)
def dist_by_a_clamped_arcosh(x, y, c):
    z = c * squares(x - y) / ((1 - c * squares(x)) * (1 - c * squares(y))) * 2 + 1
    return (torch.acosh(z.clamp(min=1 + 2**-16)) / root(c)).squeeze(-1)


@case("Poincaré embeddings", "poincare_dist", "point", "second", limited=True, loses=4.0, min_gap=2**-16)
def dist_of_limited_squares(x, y, c):
    """As the curvature 1 has it."""
    x, y = root(c) * x, root(c) * y
    x2, y2 = (torch.clamp(torch.sum(each * each, dim=-1), 0, 1 - 2**-16) for each in (x, y))
    z = torch.sum(torch.pow(x - y, 2), dim=-1) / ((1 - x2) * (1 - y2)) * 2 + 1
    return torch.log(z + torch.sqrt(torch.pow(z, 2) - 1)) / root(c)


@case("none", "poincare_dist", "point", "second", limited=True, min_gap=1e-5)
def dist_by_asinh_of_guarded_gaps(x, y, c):
    gaps = [(1 - c * squares(each)).clamp_min(1e-5) for each in (x, y)]
    return (2 / root(c) * torch.asinh((c * squares(x - y) / (gaps[0] * gaps[1])).sqrt())).squeeze(-1)


@case("none", "poincare_cdist", "point", "second", limited=True, loses=4.0, min_alpha=2**-16)
def pairs_of_limited_squares(x, y, c):
    x, y = root(c) * x, root(c) * y
    gaps = [1 - each.pow(2).sum(-1).clamp_max(1 - 2**-16) for each in (x, y)]
    apart = (x[:, None] - y[None]).pow(2).sum(-1)
    return torch.acosh(1 + 2 * apart / (gaps[0][:, None] * gaps[1][None])) / root(c)


@case("none", "klein_dist", "point", "second", loses=4.0, min_distance=math.acosh(1 + 2**-16))
def klein_dist_of_a_clamped_argument(x, y, c):
    z = (1 - c * (x * y).sum(-1, keepdim=True)) / (1 - c * squares(x)).sqrt() / (1 - c * squares(y)).sqrt()
    return (torch.acosh(torch.clamp_min(z, 1 + 2**-16)) / root(c)).squeeze(-1)


@case("none", "poincare_dist", "point", "second")
def dist_by_asinh(x, y, c):
    z = c * squares(x - y) / ((1 - c * squares(x)) * (1 - c * squares(y)))
    return (2 * torch.asinh(z.sqrt()) / root(c)).squeeze(-1)


@case("none", "klein_dist", "point", "second", loses=4.0)
def klein_dist(x, y, c):
    xy = (x * y).sum(-1, keepdim=True)
    z = (1 - c * xy) / torch.sqrt((1 - c * squares(x)) * (1 - c * squares(y)))
    return (torch.acosh(z) / root(c)).squeeze(-1)


@case("HypLL", "poincare_cdist", "point", "second", min_denominator=1e-15)
def cdist(x, y, c):
    return 2 / root(c) * (root(c) * mobius_add(-x.unsqueeze(1), y.unsqueeze(0), c).norm(dim=-1)).atanh()


@case("geoopt", "poincare_cdist", "point", "second", limited=True, min_denominator=1e-15, atanh_limit=GEOOPT)
def dist_of_pairs(x, y, c):
    return dist(x[:, None], y[None], c)


@case("HIE", "poincare_cdist", "point", "second", limited=True, denominator_offset=1e-5, atanh_limit=HIE)
def dist_matrix(x, y, c):
    """The Möbius sum of all pairs by an einsum."""
    x = -x
    xy = torch.einsum("ij,kj->ik", (x, y))
    x2, y2 = x.pow(2).sum(-1, keepdim=True), y.pow(2).sum(-1, keepdim=True)
    num = 1 + 2 * c * xy + c * y2.permute(1, 0)
    num = num.unsqueeze(2) * x.unsqueeze(1)
    num = num + (1 - c * x2).unsqueeze(2) * y
    denom = 1 + 2 * c * xy + c**2 * x2 * y2.permute(1, 0)
    res = num / (denom.unsqueeze(2) + 1e-5)
    return 2 / root(c) * artanh(root(c) * torch.norm(res, dim=-1), HIE)


@case("none", "poincare_cdist", "point", "second", loses=4.0)
def cdist_by_a_product(x, y, c):
    apart = squares(x) - 2 * x @ y.t() + squares(y).t()
    z = 1 + 2 * c * apart / ((1 - c * squares(x)) * (1 - c * squares(y).t()))
    return torch.acosh(z) / root(c)


@case("none", "klein_cdist", "point", "second", loses=4.0)
def klein_cdist(x, y, c):
    z = (1 - c * (x @ y.mT)) / torch.sqrt((1 - c * squares(x)) * (1 - c * squares(y)).mT)
    return torch.acosh(z) / root(c)


@case("none", "klein_cdist", "point", "second", loses=4.0)
def klein_dist_of_pairs(x, y, c):
    return klein_dist(x[:, None], y[None], c)
