"""The hyperboloid as libraries spell it, with its time and over space components alone, and what looks so."""

from __future__ import annotations

import math

import torch
from cases import LOOK_ALIKES, LookAlike, case, look_alike
from poincare import norm, root
from torch import Tensor
from torch.nn import functional as F

LIFTED = ("add_time",)


def squares(x: Tensor) -> Tensor:
    return x.pow(2).sum(-1, keepdim=True)


def lifted(x: Tensor, c: float | Tensor) -> Tensor:
    return torch.cat([torch.sqrt(squares(x) + 1 / c), x], -1)


# --- points over space components -------------------------------------------------------------------------------------
@case("Hypformer", "add_time", "any")
def add_time(space, c):
    k = 1 / c
    time = torch.sqrt((space**2).sum(dim=-1, keepdims=True) + k)
    return torch.cat((time, space), dim=-1)


@case("HyperbolicCV", "add_time", "any")
def add_time_of_a_norm(space, c):
    time = torch.sqrt(torch.norm(space, dim=-1, keepdim=True) ** 2 + 1 / c)
    return torch.cat([time, space], dim=-1)


@case("none", "add_time", "any")
def add_time_by_half_a_power(space, c):
    return torch.hstack([(1 / c + torch.einsum("ij,ij->i", space, space)).pow(0.5).unsqueeze(1), space])


@case("geoopt", "lorentz_project", "any")
def lorentz_project(x, c):
    k, dim = 1 / c, -1
    dn = x.size(dim) - 1
    left = torch.sqrt(k + torch.norm(x.narrow(dim, 1, dn), p=2, dim=dim) ** 2).unsqueeze(dim)
    return torch.cat((left, x.narrow(dim, 1, dn)), dim=dim)


@case("HyperCore", "lorentz_project", "any")
def project_by_slices(x, c):
    return torch.cat([torch.sqrt(x[..., 1:].square().sum(-1, keepdim=True) + 1 / c), x[..., 1:]], -1)


@case("none", "lorentz_project", "any")
def project_by_a_split(x, c):
    _, space = torch.split(x, [1, x.shape[-1] - 1], dim=-1)
    return torch.cat([torch.sqrt((space * space).sum(-1, keepdim=True) + 1 / c), space], -1)


# --- maps at the origin -----------------------------------------------------------------------------------------------
@case("MERU", "lorentz_expmap0", "tangent", max_argument=math.asinh(2**15))
def exp_map0(x, curv, eps=1e-8):
    """Space components alone."""
    rc_xnorm = curv**0.5 * torch.norm(x, dim=-1, keepdim=True)
    sinh_input = torch.clamp(rc_xnorm, min=eps, max=math.asinh(2**15))
    return torch.sinh(sinh_input) * x / torch.clamp(rc_xnorm, min=eps)


@case("HGCN", "lorentz_expmap0", "tangent", max_argument=15.0)
def lorentz_expmap0_hgcn(u, c):
    k = 1.0 / c
    x = u.narrow(-1, 1, u.size(-1) - 1)
    x_norm = torch.norm(x, p=2, dim=1, keepdim=True).clamp(min=1e-15)
    theta = (x_norm / k**0.5).clamp(-15, 15)
    return torch.cat([k**0.5 * torch.cosh(theta), k**0.5 * torch.sinh(theta) * x / x_norm], dim=-1)


@case("Hypformer", "lorentz_expmap0", "tangent", max_argument=20.0)
def expmap0_of_a_padded_row(x, c):
    """Rows of zero time."""
    u, k = F.pad(x, (1, 0)), 1 / c
    n = torch.linalg.norm(u[..., 1:], dim=-1, keepdim=True).clamp_min(1e-12)
    theta = (n * k**-0.5).clamp_max(20.0)
    space = u[..., 1:] * (torch.sinh(theta) / n) * k**0.5
    return torch.cat([torch.cosh(theta) * k**0.5, space], -1)


@case("none", "lorentz_logmap0", "any", loses=4.0, beside=LIFTED)
def logmap0(x, c):
    """Of a point that is made from its space components, and not further off than 1 at float32's resolution."""
    p = lifted(x, c)
    n = p[..., 1:].norm(dim=-1, keepdim=True).clamp_min(1e-15)
    d = torch.acosh((p[..., :1] * c**0.5).clamp_min(1.0)) / c**0.5
    return torch.cat([torch.zeros_like(p[..., :1]), d * p[..., 1:] / n], -1)


# --- distances --------------------------------------------------------------------------------------------------------
@case("MERU", "lorentz_logmap0", "any", loses=4.0, single=True)
def log_map0(x, curv, eps=1e-8):
    """Space components alone."""
    rc_x_time = torch.sqrt(1 + curv * torch.sum(x**2, dim=-1, keepdim=True))
    distance0 = torch.acosh(torch.clamp(rc_x_time, min=1 + eps))
    rc_xnorm = curv**0.5 * torch.norm(x, dim=-1, keepdim=True)
    return distance0 * x / torch.clamp(rc_xnorm, min=eps)


@case("MERU", "lorentz_cdist", "any", "second", loses=4.0, in_double={"min_distance": math.acosh(1 + 1e-8)})
def pairwise_dist(x, y, curv):
    x_time = torch.sqrt(1 / curv + torch.sum(x**2, dim=-1, keepdim=True))
    y_time = torch.sqrt(1 / curv + torch.sum(y**2, dim=-1, keepdim=True))
    xyl = x @ y.T - x_time @ y_time.T
    return torch.acosh(torch.clamp(-curv * xyl, min=1 + 1e-8)) / curv**0.5


@case("HyCoCLIP", "lorentz_dist", "any", "second", loses=4.0)
def elementwise_dist(x, y, curv):
    x_time = torch.sqrt(1 / curv + torch.sum(x**2, dim=-1))
    y_time = torch.sqrt(1 / curv + torch.sum(y**2, dim=-1))
    xyl = torch.sum(x * y, dim=-1) - x_time * y_time
    return torch.acosh(torch.clamp(-curv * xyl, min=1)) / curv**0.5


@case("geoopt", "lorentz_dist", "any", "second", loses=4.0, beside=2 * LIFTED)
def lorentz_dist(x, y, c):
    u, v, k = lifted(x, c), lifted(y, c), 1 / c
    d, uv = u.size(-1) - 1, u * v
    inner = -uv.narrow(-1, 0, 1).sum(-1) + uv.narrow(-1, 1, d).sum(-1)
    z = -inner / k
    return k**0.5 * torch.log(z + torch.sqrt(torch.clamp_min(z.pow(2) - 1.0, 0.0)))


@case("HGCN", "lorentz_dist", "any", "second", loses=4.0, beside=2 * LIFTED)
def dist_by_the_whole_product(x, y, c):
    u, v, k = lifted(x, c), lifted(y, c), 1 / c
    product = torch.sum(u * v, dim=-1) - 2 * u[..., 0] * v[..., 0]
    return k**0.5 * torch.acosh(torch.clamp(-product / k, min=1.0))


@case("HGCN", "lorentz_cdist", "any", "second", loses=4.0, min_distance=math.acosh(1 + 2**-10))
def pairs_kept_apart(x, y, c):
    times = [torch.sqrt(1 / c + squares(each)) for each in (x, y)]
    products = x @ y.T - times[0] @ times[1].T
    return torch.acosh(torch.clamp(-c * products, min=1 + 2**-10)) / c**0.5


# --- maps at a point, whose rows the graph makes ---------------------------------------------------------------------
def inner(u, v):
    """As geoopt, Hypformer and HyboNet have it."""
    d, uv = u.size(-1) - 1, u * v
    return -uv.narrow(-1, 0, 1) + uv.narrow(-1, 1, d).sum(-1, keepdim=True)


def minkowski_dot(u, v):
    """As HGCN has it."""
    res = torch.sum(u * v, dim=-1) - 2 * u[..., 0] * v[..., 0]
    return res.view((*res.shape, 1))


def tangent(x, v, c, dot=inner):
    """`v` with some time, projected to the tangent space at `x`."""
    u = torch.cat([v[..., :1] * 0.3, v], -1)
    return u + c * dot(x, u) * x


@case("geoopt", "lorentz_expmap", "any", "second", beside=LIFTED, single=True)
def expmap_at_a_point(x, v, c):
    """Lengths below 1e-4 are taken for that, which float32 cannot tell from what they are."""
    p, k = lifted(x, c), 1 / c
    u = tangent(p, v, c)
    nomin = torch.sqrt(torch.clamp_min(inner(u, u), 1e-8))
    return torch.cosh(nomin / k**0.5) * p + k**0.5 * torch.sinh(nomin / k**0.5) * u / nomin


@case("HGCN", "lorentz_expmap", "any", "second", beside=LIFTED, max_argument=15.0)
def expmap_at_a_point_hgcn(x, v, c):
    p, k = lifted(x, c), 1 / c
    u = tangent(p, v, c, minkowski_dot)
    theta = torch.sqrt(torch.clamp(minkowski_dot(u, u), min=1e-15)) / k**0.5
    theta = torch.clamp(theta, min=1e-15)
    return torch.cosh(theta.clamp(-15, 15)) * p + torch.sinh(theta.clamp(-15, 15)) * u / theta


@case("geoopt", "lorentz_logmap", "any", "second", loses=4.0, beside=2 * LIFTED, min_norm=1e-4)
def logmap_at_a_point(x, y, c):
    p, q, k = lifted(x, c), lifted(y, c), 1 / c
    d = k**0.5 * torch.acosh(torch.clamp_min(-inner(p, q) / k, 1.0))
    nomin = q + 1.0 / k * inner(p, q) * p
    return d * nomin / torch.sqrt(torch.clamp_min(inner(nomin, nomin), 1e-8))


@case("none", "lorentz_logmap", "any", "second", loses=4.0, beside=2 * LIFTED, min_norm=1e-3)
def logmap_of_half_the_way(x, y, c):
    p, q = lifted(x, c), lifted(y, c)
    z = -c * minkowski_dot(p, q)
    w = q - z * p
    return torch.acosh(z.clamp_min(1.0)) * 0.5 / c**0.5 * (w / minkowski_dot(w, w).clamp_min(1e-6).sqrt())


# --- other models -----------------------------------------------------------------------------------------------------
@case("geoopt", "lorentz_to_poincare", "any", beside=LIFTED)
def lorentz_to_poincare(x, c):
    p = lifted(x, c)
    return p.narrow(-1, 1, p.size(-1) - 1) / (p.narrow(-1, 0, 1) + (1 / c) ** 0.5)


@case("none", "lorentz_to_klein", "any", beside=LIFTED)
def lorentz_to_klein(x, c):
    p = lifted(x, c)
    return p[..., 1:] / p[..., :1]


@case("none", "klein_to_lorentz", "point")
def klein_to_lorentz(x, c):
    width = torch.sqrt(1 - c * squares(x))
    return torch.cat([1 / (root(c) * width), x / width], -1)


# --- linear layers ----------------------------------------------------------------------------------------------------
@case("HyboNet", "lorentz_rescale", "any", offset=1.1, min_squares=1e-8)
def linear(x, c):
    """What follows the product, at the curvature 1 that it has there."""
    x_narrow = x.narrow(-1, 1, x.shape[-1] - 1)
    time = x.narrow(-1, 0, 1).sigmoid() * math.exp(2.3) + 1.1
    scale = (time * time - 1) / (x_narrow * x_narrow).sum(dim=-1, keepdim=True).clamp_min(1e-8)
    return torch.cat([time, x_narrow * scale.sqrt()], dim=-1)


# --- look-alikes ------------------------------------------------------------------------------------------------------
TIMES = {
    "half the square": lambda n: torch.sqrt(1 + 0.5 * n * n),
    "a norm": lambda n: torch.sqrt(1 + n),
    "a difference": lambda n: torch.sqrt(1 - n * n),
    "no root": lambda n: 1 + n * n,
    "an offset behind": lambda n: torch.sqrt(1 + n * n) + 1e-3,
    "a clamp": lambda n: torch.sqrt((0.5 + n * n).clamp_min(1.0)),
}
for _name, _time in TIMES.items():

    def _with_time(x, time=_time):
        return torch.cat([time(norm(x)), x], -1)

    LOOK_ALIKES.append(
        LookAlike(
            f"space components under {_name}", _with_time, 1, "add_time", "the time is .*, expected .*sqrt"
        )
    )


PARTS = {
    "sinh of twice the norm": lambda n: (torch.cosh(n), torch.sinh(2 * n) / n),
    "cosh of twice the norm": lambda n: (torch.cosh(2 * n), torch.sinh(n) / n),
    "twice the time": lambda n: (2 * torch.cosh(n), torch.sinh(n) / n),
    "a limited sinh alone": lambda n: (torch.cosh(n), torch.sinh(n.clamp_max(15)) / n),
    "the time of a point at rest": lambda n: (torch.ones_like(n), torch.sinh(n) / n),
}
for _name, _parts in PARTS.items():

    def _mapped(x, parts=_parts):
        time, factor = parts(norm(x).clamp_min(1e-15))
        return torch.cat([time, factor * x], -1)

    LOOK_ALIKES.append(
        LookAlike(
            f"expmap0 of the hyperboloid with {_name}",
            _mapped,
            1,
            "lorentz_expmap0",
            "the time is .*, expected .*cosh",
        )
    )


@look_alike(1, "lorentz_expmap0", "the norm is raised to the power 2")
def sinh_over_the_square(x):
    return torch.sinh(norm(x)) / squares(x) * x


@look_alike(1, "lorentz_expmap0", "one of two norms alone is guarded, by min_norm = 0.01")
def sinh_over_a_clamped_norm(x):
    return torch.sinh(norm(x)) / norm(x).clamp_min(1e-2) * x


@look_alike(1, "lorentz_logmap0", "one of two norms alone is guarded, by argument_min_norm = 0.0013")
def logmap0_of_hgcn(x):
    """All points nearer than 1.4e-3 get one length."""
    theta = torch.clamp(torch.sqrt(1 + squares(x)), min=1.0 + 1e-6)
    return torch.acosh(theta) * x / norm(x).clamp_min(1e-15)


@look_alike(1, "lorentz_logmap0", "one of two norms alone is guarded, by min_norm = 0.0001")
def logmap0_of_geoopt(x):
    """Points nearer than 1e-4 get shorter vectors."""
    theta = torch.sqrt(1 + squares(x))
    return torch.acosh(theta) * x / torch.sqrt(squares(x).clamp_min(1e-8))


@look_alike(1, "lorentz_rescale", "may be below 1 / s")
def rescaled_below_the_hyperboloid(x):
    time = x[..., :1].sigmoid() * 2 + 0.5
    return torch.cat([time, x[..., 1:] * ((time**2 - 1) / squares(x[..., 1:])).sqrt()], -1)


@look_alike(1, "lorentz_rescale", "expected the square of the time less 1 / c")
def rescaled_by_another_time(x):
    time = x[..., :1].sigmoid() * 2 + 1.1
    return torch.cat([time, x[..., 1:] * ((time - 1) / squares(x[..., 1:])).sqrt()], -1)


@look_alike(2, "lorentz_dist", "squared and multiplied out")
def hyperboloid_with_a_plus(x, y):
    return torch.acosh(
        torch.sqrt(1 + squares(x)) * torch.sqrt(1 + squares(y)) + (x * y).sum(-1, keepdim=True)
    )


@look_alike(2, "lorentz_dist", "squared and multiplied out")
def hyperboloid_of_two_curvatures(x, y):
    return torch.acosh(
        torch.sqrt(1 + squares(x)) * torch.sqrt(1 + 2 * squares(y)) - (x * y).sum(-1, keepdim=True)
    )


@look_alike(1, "klein_to_lorentz", "expected a time of")
def klein_under_another_time(x):
    width = torch.sqrt(1 - squares(x))
    return torch.cat([2 / width, x / width], -1)
