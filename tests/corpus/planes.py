"""Class scores and distances to hyperplanes as libraries spell them."""

from __future__ import annotations

import math

import torch
from cases import LOOK_ALIKES, LookAlike, case
from poincare import mobius_add, root
from torch import Tensor

HIE_LEAST, GEOOPT_LEAST = math.log(1e-5), math.log(1e-15)
GEOOPT_GUARDS = {
    "min_denominator": 1e-15,
    "min_square": 1e-15,
    "quotient_offset": 1e-15,
    "min_result": GEOOPT_LEAST,
}


def squares(x: Tensor, dim: int = -1) -> Tensor:
    return x.pow(2).sum(dim, keepdim=True)


def arsinh(x: Tensor, least: float) -> Tensor:
    return (x + torch.sqrt(1 + x.pow(2))).clamp_min(least).log()


def sum_of_pairs(x: Tensor, y: Tensor, c) -> Tensor:
    """HIE's Möbius sum of all pairs."""
    xy = torch.einsum("ij,kj->ik", (x, y))
    x2, y2 = squares(x), squares(y)
    num = 1 + 2 * c * xy + c * y2.permute(1, 0)
    num = num.unsqueeze(2) * x.unsqueeze(1)
    num = num + (1 - c * x2).unsqueeze(2) * y
    denom = 1 + 2 * c * xy + c**2 * x2 * y2.permute(1, 0)
    return num / (denom.unsqueeze(2) + 1e-5)


@case(
    "HIE",
    "poincare_mlr",
    "point",
    "normal",
    "second",
    beside=("conformal_factor",),
    cancels=True,
    denominator_offset=1e-5,
    min_result=HIE_LEAST,
)
def hyperbolic_softmax(x, a, p, c):
    lambda_p = 2 / (1 - c * p.pow(2).sum(dim=1))
    k = lambda_p * torch.norm(a, dim=1) / root(c)
    d = sum_of_pairs(-p, x, c)
    num = 2 * root(c) * torch.sum(d * a.unsqueeze(1), dim=-1)
    denom = torch.norm(a, dim=1, keepdim=True) * (1 - c * d.pow(2).sum(dim=2))
    return (k.unsqueeze(1) * arsinh(num / denom, 1e-5)).permute(1, 0)


@case(
    "HIE",
    "poincare_mlr",
    "point",
    "normal",
    "second",
    cancels=True,
    denominator_offset=1e-5,
    min_result=HIE_LEAST,
)
def scores_of_scaled_normals(x, a, p, c):
    """As in its layer, whose normals are those at the origin, scaled."""
    a = a * (1 - c * squares(p))
    d = sum_of_pairs(-p, x, c)
    num = 2 * root(c) * torch.sum(d * a.unsqueeze(1), dim=-1)
    denom = torch.norm(a, dim=1, keepdim=True) * (1 - c * d.pow(2).sum(dim=2))
    return arsinh(num / denom, 1e-5)


def geoopt_dist2plane(x, p, a, c, signed, scaled, dim):
    """geoopt's, for a curvature below 0."""
    diff = mobius_add(-p, x, c) if dim == -1 else _mobius_add_along(-p, x, c, dim)
    diff_norm2 = diff.pow(2).sum(dim=dim).clamp_min(1e-15)
    sc_diff_a = (diff * a).sum(dim=dim)
    if not signed:
        sc_diff_a = sc_diff_a.abs()
    a_norm = a.norm(dim=dim, p=2)
    denom = (1 - c * diff_norm2) * a_norm
    denom = torch.sign(denom.sign() + 0.5) * denom.abs().add(1e-15)
    distance = arsinh(2.0 * sc_diff_a / denom * root(c), 1e-15) / root(c)
    return distance * a_norm if scaled else distance


def _mobius_add_along(x, y, c, dim):
    x2, y2, xy = squares(x, dim), squares(y, dim), (x * y).sum(dim, keepdim=True)
    num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    return num / (1 + 2 * c * xy + c**2 * x2 * y2).clamp_min(1e-15)


@case("geoopt", "poincare_mlr", "point", "second", "normal", cancels=True, **GEOOPT_GUARDS)
def dist2plane(x, p, a, c):
    return geoopt_dist2plane(x.unsqueeze(-2), p, a, c, signed=True, scaled=True, dim=-1)


@case("geoopt", "poincare_mlr", "point", "second", "normal", unsigned=True, cancels=True, **GEOOPT_GUARDS)
def dist2plane_without_a_sign(x, p, a, c):
    return geoopt_dist2plane(x[:, None], p[None], a[None], c, signed=False, scaled=False, dim=-1)


@case("geoopt", "poincare_mlr", "point", "normal", cancels=True, **GEOOPT_GUARDS)
def layer_of_planes(x, p, c):
    """Its layer: planes through points that are their normals as well, rows along the last but one dimension."""
    points = p.permute(1, 0)
    return geoopt_dist2plane(x.unsqueeze(-1), points, points, c, signed=True, scaled=False, dim=-2)


@case("Ganea", "poincare_mlr", "point", "second", "normal", beside=("conformal_factor",))
def scores(x, p, a, c):
    """Equation 25, as it stands."""
    u, v = -p, x.unsqueeze(-2)
    uv, uu, vv = (u * v).sum(-1, keepdim=True), squares(u), squares(v)
    d = ((1 + 2 * c * uv + c * vv) * u + (1 - c * uu) * v) / (1 + 2 * c * uv + c**2 * uu * vv)
    length = a.norm(dim=-1)
    argument = 2 * root(c) * (d * a).sum(-1) / (length * (1 - c * d.square().sum(-1)))
    return 2 / (1 - c * uu.squeeze(-1)) * length / root(c) * torch.asinh(argument)


@case("HypLL", "poincare_mlr", "point", "normal", "second", min_length=1e-15)
def hyperplane_dists(x, z, r, c):
    z, r, s = z.mT, r[:, 0], root(c)
    lam = 2 / (1 - c * squares(x))
    z_norm = z.norm(dim=0).clamp_min(1e-15)
    two_csqrt_r = 2.0 * s * r
    argument = s * lam / z_norm * torch.matmul(x, z) * two_csqrt_r.cosh() - (lam - 1) * two_csqrt_r.sinh()
    return 2 * z_norm / s * torch.asinh(argument)


@case("HypLL", "poincare_mlr", "point", "normal", min_length=1e-15)
def hyperplane_dists_through_the_origin(x, z, c):
    z, s = z.mT, root(c)
    lam = 2 / (1 - c * squares(x))
    z_norm = z.norm(dim=0).clamp_min(1e-15)
    return 2 * z_norm / s * torch.asinh(s * lam / z_norm * torch.matmul(x, z))


@case(
    "HNN++",
    "poincare_mlr",
    "point",
    "normal",
    "second",
    cancels=True,
    unit=True,
    min_alpha=1e-15,
    min_result=GEOOPT_LEAST,
)
def unidirectional_mlr(x, z, r, c):
    z, r, s = z.mT, r[:, 0], root(c)
    z_norm = z.norm(dim=0).clamp_min(1e-15)
    drcr = 2.0 * s * r
    rcx = s * x
    cx2 = squares(rcx)
    product = 2.0 * torch.matmul(rcx, z / z_norm) * drcr.cosh() - (1.0 + cx2) * drcr.sinh()
    return 2 * z_norm / s * arsinh(product / torch.clamp_min(1.0 - cx2, 1e-15), 1e-15)


# --- what only looks like scores ----------------------------------------------------------------------------
def _origin(x, z, of_gap=-1.0, factor=2.0, length=lambda z: z.norm(dim=0), lift=lambda u: u, gap=lambda g: g):
    z = z.mT
    return torch.asinh(lift(factor * torch.matmul(x, z) / (length(z) * gap(1 + of_gap * squares(x)))))


def _shifted(x, z, sign=-1.0, lift=1.0, inside=1.0, of_gap=1.0):
    z, t = z.mT, z[:, 0]
    product = 2.0 * torch.matmul(x, z) / z.norm(dim=0) * t.cosh()
    rest = (lift + of_gap * squares(x)) * (inside * t).sinh()
    return torch.asinh((product + sign * rest) / (1 - squares(x)))


PRODUCT = "has the factor .*, expected"
CHANGED = {
    "with another sign in the gap": (_origin, {"of_gap": 1.0}, r"nothing is divided by 1 - c"),
    "with the gap of another curvature": (_origin, {"of_gap": -2.0}, PRODUCT),
    "of half of the product": (_origin, {"factor": 1.0}, PRODUCT),
    "of minus the product": (_origin, {"factor": -2.0}, PRODUCT),
    "over the square of the length": (_origin, {"length": lambda z: z.norm(dim=0) ** 2}, PRODUCT),
    "over the root of the length": (_origin, {"length": lambda z: z.norm(dim=0).sqrt()}, PRODUCT),
    "over twice the length": (_origin, {"length": lambda z: 2 * z.norm(dim=0)}, PRODUCT),
    "over a length from above": (_origin, {"length": lambda z: z.norm(dim=0).clamp_max(1.0)}, PRODUCT),
    "over a 1-norm": (_origin, {"length": lambda z: z.norm(p=1, dim=0)}, PRODUCT),
    "with an offset in the gap": (_origin, {"gap": lambda g: g + 1e-3}, PRODUCT),
    "of a gap from above": (_origin, {"gap": lambda g: g.clamp_max(0.5)}, r"nothing is divided by 1 - c"),
    "of a shifted argument": (_origin, {"lift": lambda u: u + 0.1}, "not multiplied by cosh"),
    "with HyperCore's factor": (_origin, {"gap": lambda g: 1 / g}, "in more than one term"),
    "with half a lift": (_shifted, {"of_gap": 0.5}, "beside the product stands"),
    "with a lift of another sign": (_shifted, {"of_gap": -1.0}, "beside the product stands"),
    "without a lift": (_shifted, {"of_gap": 0.0}, "beside the product stands"),
    "with twice the shift in one place": (_shifted, {"inside": 2.0}, "beside the product stands"),
    "with twice the offset": (_shifted, {"sign": -2.0}, "beside the product stands"),
}
for _name, (_function, _options, _reason) in CHANGED.items():

    def _changed(x, z, function=_function, options=_options):
        return function(x, z, **options)

    LOOK_ALIKES.append(LookAlike(f"scores {_name}", _changed, 2, "poincare_mlr", _reason))
