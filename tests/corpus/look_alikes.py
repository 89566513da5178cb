"""What looks like a formula of hyperbolic geometry and is none, with the first difference."""

from __future__ import annotations

import itertools

import torch
from cases import LOOK_ALIKES, LookAlike, look_alike
from torch import Tensor


def norm(x: Tensor) -> Tensor:
    return x.norm(dim=-1, keepdim=True)


def squares(x: Tensor) -> Tensor:
    return x.pow(2).sum(-1, keepdim=True)


# --- a Möbius sum with one of its constants changed ---------------------------------------------------------
PARTS = {
    "2<x, y> of x": 0,
    "||y||^2 of x": 1,
    "||x||^2 of y": 2,
    "2<x, y> below": 3,
    "||x||^2||y||^2 below": 4,
    "1 of y": 5,
    "1 below": 6,
}
CHANGES = {"half of": 0.5, "twice": 2.0, "minus": -1.0, "1.001 times": 1.001}


def _changed_sum(part: int, change: float):
    def function(x, y):
        k = [1.0] * 7
        k[part] = change
        xx, yy, xy = squares(x), squares(y), (x * y).sum(-1, keepdim=True)
        num = (1 + 2 * k[0] * xy + k[1] * yy) * x + (k[5] - k[2] * xx) * y
        return num / (k[6] + 2 * k[3] * xy + k[4] * xx * yy)

    return function


for (_part, _index), (_change, _factor) in itertools.product(PARTS.items(), CHANGES.items()):
    if _part == "1 below" and _factor > 1:  # that is an offset of the denominator, a guard
        continue
    LOOK_ALIKES.append(
        LookAlike(
            f"Möbius sum with {_change} {_part}",
            _changed_sum(_index, _factor),
            2,
            "mobius_add",
            "expected|begins with",
        )
    )


# --- an arcosh or asinh of the squares with one constant changed --------------------------------------------
DISTANCE = {"||x - y||^2": 0, "||x||^2": 1, "||y||^2": 2, "1 of the argument": 3}


def _changed_distance(part: int, change: float):
    def function(x, y):
        k = [1.0] * 4
        k[part] = change
        z = k[3] + 2 * k[0] * squares(x - y) / ((1 - k[1] * squares(x)) * (1 - k[2] * squares(y)))
        return torch.acosh(z)

    return function


for (_part, _index), (_change, _factor) in itertools.product(DISTANCE.items(), CHANGES.items()):
    if _part == "1 of the argument" and _factor < 0:
        continue
    LOOK_ALIKES.append(
        LookAlike(
            f"distance with {_change} {_part}",
            _changed_distance(_index, _factor),
            2,
            "poincare_dist",
            "squared and multiplied out, has .* times .*, expected",
        )
    )


# --- maps at the origin -------------------------------------------------------------------------------------
PROFILES = {
    "squared": (lambda n: torch.tanh(n) ** 2 / n, "raised to the power 2"),
    "over the square": (lambda n: torch.tanh(n) / n**2, "the norm is raised to the power 2"),
    "over the root": (lambda n: torch.tanh(n) / n.sqrt(), "the norm is raised to the power 0.5"),
    "not divided": (lambda n: torch.tanh(n), "there is no norm"),
    "of the square": (lambda n: torch.tanh(n * n) / n, "the norm is raised to the power 2"),
    "of a shifted norm": (
        lambda n: torch.tanh(n - 0.1) / n,
        "is added after the norm is scaled|not a scaled norm",
    ),
    "over a shifted norm": (
        lambda n: torch.tanh(n) / (n - 0.1),
        "is added after the norm is scaled|not a scaled norm",
    ),
    "over one more": (lambda n: torch.tanh(n) / (1 + n * n), "the norm is raised to the power 2"),
    "of a norm from above": (
        lambda n: torch.tanh(n) / n.clamp(1e-5, 2.0),
        "the norm is clamped from above at 2",
    ),
    "of a norm below zero": (
        lambda n: torch.tanh(n) / (n + n.clamp_min(0.5)),
        "not a norm|not a scaled norm",
    ),
    "of two limits": (lambda n: torch.tanh((n - 1).clamp(-1, 15)) / n, "the argument of tanh is clamped"),
}
for _name, (_profile, _reason) in PROFILES.items():

    def _of_tanh(x, profile=_profile):
        return profile(norm(x)) * x

    LOOK_ALIKES.append(LookAlike(f"tanh {_name}", _of_tanh, 1, "expmap0", _reason))


ARTANHS = {
    "squared": (lambda n: torch.atanh(n) ** 2 / n, "raised to the power 2"),
    "over the square": (lambda n: torch.atanh(n) / n**2, "the norm is raised to the power 2"),
    "not divided": (lambda n: torch.atanh(n), "there is no norm"),
    "of the square": (lambda n: torch.atanh(n * n) / n, "the norm is raised to the power 2"),
    "of logs of two norms": (
        lambda n: (torch.log(1 + n) - torch.log(1 - 0.5 * n)) / n,
        r"not those of artanh\(u\)",
    ),
    "of the logs' sum": (lambda n: (torch.log(1 + n) + torch.log(1 - n)) / n, r"not those of artanh\(u\)"),
    "of one log": (lambda n: torch.log(1 + n) / n, r"not those of artanh\(u\)"),
    "of a norm from above": (
        lambda n: torch.atanh(n) / n.clamp(1e-5, 0.5),
        "the norm is clamped from above at 0.5",
    ),
}
for _name, (_profile, _reason) in ARTANHS.items():

    def _of_artanh(x, profile=_profile):
        return profile(norm(x)) * x

    LOOK_ALIKES.append(LookAlike(f"artanh {_name}", _of_artanh, 1, "logmap0", _reason))


# --- norms that are no 2-norm -------------------------------------------------------------------------------
NORMS = {
    "1-norm": (lambda x: x.norm(p=1, dim=-1, keepdim=True), "norm with p = 1"),
    "3-norm": (lambda x: x.norm(p=3, dim=-1, keepdim=True), "norm with p = 3"),
    "largest entry": (
        lambda x: torch.linalg.vector_norm(x, ord=float("inf"), dim=-1, keepdim=True),
        "p = inf",
    ),
    "norm of the matrix": (lambda x: torch.linalg.vector_norm(x), r"over dims \[-2, -1\]"),
}
for (_name, (_norm, _reason)), _target in itertools.product(NORMS.items(), ("expmap0", "logmap0")):

    def _of_norm(x, taken=_norm, target=_target):
        n = taken(x)
        return (torch.tanh(n) if target == "expmap0" else torch.atanh(0.1 * n)) / n * x

    LOOK_ALIKES.append(LookAlike(f"{_target} of the {_name}", _of_norm, 1, _target, _reason))


# --- scalar multiples and products --------------------------------------------------------------------------
@look_alike(1, "mobius_scalar_mul", "different curvature inside and outside")
def scalar_mul_of_two_curvatures(x):
    return torch.tanh(0.3 * torch.atanh(0.5 * norm(x))) * x / norm(x)


@look_alike(1, "mobius_scalar_mul", "a norm is guarded by norm_offset = 0.001")
def scalar_mul_with_an_offset(x):
    n = norm(x) + 1e-3
    return torch.tanh(0.3 * torch.atanh(n)) * x / n


@look_alike(1, "mobius_scalar_mul", "norms are clamped at 0.001 and at 0.01")
def scalar_mul_of_two_clamps(x):
    return torch.tanh(0.3 * torch.atanh(norm(x).clamp_min(1e-3))) * x / norm(x).clamp_min(1e-2)


@look_alike(1, "mobius_scalar_mul", "depends on the row")
def scalar_mul_by_the_norm(x):
    n = norm(x)
    return torch.tanh(n * torch.atanh(n)) * x / n


@look_alike(2, "mobius_matvec", "the quotient of norms has the factor 2, expected 1")
def matvec_with_a_factor(m, x):
    return torch.tanh(2 * norm(m) / norm(x) * torch.atanh(norm(x))) * m / norm(m)


@look_alike(2, "mobius_matvec", "different curvature inside and outside")
def matvec_of_two_curvatures(m, x):
    return torch.tanh(norm(m) / norm(x) * torch.atanh(0.5 * norm(x))) * m / norm(m)


@look_alike(2, "mobius_matvec", "a norm is guarded by norm_offset = 0.001")
def matvec_with_an_offset(m, x):
    return torch.tanh(norm(m) / norm(x) * torch.atanh(norm(x))) * m / (norm(m) + 1e-3)


# --- numbers ------------------------------------------------------------------------------------------------
@look_alike(1, "poincare_dist0", "the norm is raised to the power 2")
def dist0_of_the_square(x):
    return 2 * torch.atanh(squares(x).squeeze(-1))


@look_alike(1, "poincare_dist0", "norm_offset = 0.001")
def dist0_with_an_offset(x):
    return 2 * torch.atanh(x.norm(dim=-1) + 1e-3)


@look_alike(2, "poincare_dist", "the argument of acosh is clamped from above at 50")
def arcosh_clamped_from_above(x, y):
    z = 1 + 2 * squares(x - y) / ((1 - squares(x)) * (1 - squares(y)))
    return torch.acosh(z.clamp(1.0, 50.0))


@look_alike(2, "poincare_dist", "squared and multiplied out")
def arcosh_with_an_offset_below(x, y):
    return torch.acosh(1 + 2 * squares(x - y) / ((1 - squares(x)) * (1 - squares(y)) + 1e-7))


@look_alike(2, "poincare_dist", "squared and multiplied out")
def arsinh_without_its_root(x, y):
    return 2 * torch.asinh(squares(x - y) / ((1 - squares(x)) * (1 - squares(y))))


# --- gaps to the boundary that are not kept alike ---------------------------------------------------------------------
def _arcosh_of_gaps(below):
    def function(x, y):
        return torch.acosh(1 + 2 * squares(x - y) / below(1 - squares(x), 1 - squares(y))).squeeze(-1)

    return function


GAPS = {
    "two bounds": lambda a, b: a.clamp_min(1e-5) * b.clamp_min(1e-4),
    "one bound": lambda a, b: a.clamp_min(1e-5) * b,
    "a bound of the product": lambda a, b: (a * b).clamp_min(1e-5),
    "bounds from above": lambda a, b: a.clamp_max(0.9) * b.clamp_max(0.9),
    "offsets": lambda a, b: (a + 1e-5) * (b + 1e-5),
}
for _name, _below in GAPS.items():
    LOOK_ALIKES.append(
        LookAlike(f"gaps with {_name}", _arcosh_of_gaps(_below), 2, "poincare_dist", "acosh of 1 ")
    )
