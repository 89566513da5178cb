"""Distances to hyperplanes against the printed formulas with every pair spelled out, guards included."""

import itertools
import re

import mpmath
import pytest
import torch
from operator_cases import overload, points, requiring

from stonefx import ops


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spelled(x, p, a, c, **guards):
    """The Möbius sum of all pairs, and asinh."""
    u, v = -p, x.unsqueeze(-2)
    uv, uu, vv = (u * v).sum(-1, keepdim=True), (u * u).sum(-1, keepdim=True), (v * v).sum(-1, keepdim=True)
    below = 1 + 2 * c * uv + c**2 * uu * vv
    below = below.clamp_min(guards.get("min_denominator", 0)) + guards.get("denominator_offset", 0)
    w = ((1 + 2 * c * uv + c * vv) * u + (1 - c * uu) * v) / below
    square = w.square().sum(-1).clamp_min(guards.get("min_square", 0))
    gap = (1 - c * square).clamp_min(guards.get("min_gap", -1e9))
    quotient = gap * a.norm(dim=-1).clamp_min(guards.get("min_length", 0))
    offset = guards.get("quotient_offset", 0)
    quotient = quotient + torch.where(quotient < 0, -offset, offset)
    value = torch.asinh(2 * c.sqrt() * (w * a).sum(-1) / quotient)
    value = value.abs() if guards.get("unsigned") else value
    return value.clamp_min(guards.get("min_result", -1e9))


def spelled_shifted(x, z, c, shift, **guards):
    s, square = c.sqrt(), x.square().sum(-1, keepdim=True)
    z = z if guards.get("unit") else z / z.norm(dim=-1, keepdim=True).clamp_min(guards.get("min_length", 0))
    gap = (1 - c * square).clamp_min(guards.get("min_alpha", -1e9))
    value = torch.asinh((2 * s * (x @ z.mT) * shift.cosh() - (1 + c * square) * shift.sinh()) / gap)
    return value.clamp_min(guards.get("min_result", -1e9))


C = torch.tensor(0.8, dtype=torch.float64)
CASES = {
    "poincare_planes": (spelled, lambda: (points(6, 5), points(4, 5, seed=1), random(4, 5), C)),
    "hnnpp_planes": (spelled_shifted, lambda: (points(6, 5), random(4, 5), C, random(4, seed=2))),
}
# Each guard where it acts on some of the pairs.
GUARDS = {
    "poincare_planes": [
        {},
        {"min_denominator": 0.9},
        {"denominator_offset": 0.1},
        {"min_square": 0.3},
        {"min_gap": 0.6},
        {"min_length": 2.0},
        {"quotient_offset": 0.2},
        {"min_result": -0.3},
        {"unsigned": True},
        {"min_denominator": 0.9, "denominator_offset": 0.1, "min_square": 0.3, "quotient_offset": 0.1},
    ],
    "hnnpp_planes": [{}, {"min_alpha": 0.6}, {"min_length": 2.0}, {"min_result": -0.3}, {"unit": True}],
}
GUARDED = [(name, guards) for name in CASES for guards in GUARDS[name]]


@pytest.mark.parametrize("name, guards", GUARDED, ids=str)
def test_values_and_gradients(name, guards):
    formula, make = CASES[name]
    got, expected = requiring(make()), requiring(make())
    mine, theirs = overload(name)(*got, **guards), formula(*expected, **guards)
    torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)
    plain = formula(*make())
    if guards:
        assert (theirs - plain).abs().max() > 1e-3, "the guard does not act"
    grad = random(6, 4, seed=3)
    mine.backward(grad)
    theirs.backward(grad)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name, guards", GUARDED, ids=str)
def test_gradcheck(name, guards):
    x, *rest = CASES[name][1]()
    args = requiring((x[:2], *rest))
    assert torch.autograd.gradcheck(lambda *a: overload(name)(*a, **guards), args)


def exact(x, p, a, c, offset):
    """The formula with 40 digits, of one pair."""
    with mpmath.workdps(40):
        x, p, a = ([mpmath.mpf(v) for v in row.tolist()] for row in (x, p, a))
        c = mpmath.mpf(c)
        xx, pp, xp = (mpmath.fdot(u, v) for u, v in ((x, x), (p, p), (x, p)))
        below = 1 - 2 * c * xp + c**2 * xx * pp + offset
        w = [((1 - c * pp) * v - (1 - 2 * c * xp + c * xx) * u) / below for u, v in zip(p, x, strict=True)]
        gap = 1 - c * mpmath.fdot(w, w)
        return float(mpmath.asinh(2 * mpmath.sqrt(c) * mpmath.fdot(w, a) / (mpmath.norm(a) * gap)))


PLACES = {"origin": 1e-6, "interior": 0.5, "boundary": 1 - 1e-4, "outside": 1.2}
# How far the rounding of 1 - ||x||^2 is amplified.
AMPLIFIED = {"origin": 1.0, "interior": 8.0, "boundary": 1e5, "outside": 64.0}


@pytest.mark.parametrize("offset", [0.0, 1e-5])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_place_against_40_digits(dtype, place, offset):
    x = torch.nn.functional.normalize(random(5, 3), dim=-1) * PLACES[place]
    x, p, a = (
        x.to(dtype),
        (0.4 * torch.nn.functional.normalize(random(3, 3, seed=1), dim=-1)).to(dtype),
        random(3, 3, seed=2).to(dtype),
    )
    c = torch.tensor(1.0, dtype=dtype)
    found = overload("poincare_planes")(x, p, a, c, denominator_offset=offset).double()
    assert found.isfinite().all()
    for i, j in itertools.product(range(5), range(3)):
        wanted = exact(x[i], p[j], a[j], 1.0, offset)
        assert abs(found[i, j].item() - wanted) <= 64 * AMPLIFIED[place] * torch.finfo(dtype).eps


@pytest.mark.parametrize("name, guards", GUARDED, ids=str)
def test_no_temporary_of_all_pairs_and_coordinates(name, guards):
    from torch.utils._python_dispatch import TorchDispatchMode

    x, normals, largest = points(30, 40), random(20, 40), []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            largest.extend(
                t.numel() for t in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(t)
            )
            return out

    operands = (points(20, 40, seed=1), normals, C) if name == "poincare_planes" else (normals, C, random(20))
    args = requiring((x, *operands))
    with Sizes():
        overload(name)(*args, **guards).sum().backward()
    assert max(largest) <= 30 * 40


ERRORS = [
    (
        "poincare_planes",
        (random(2, 3), random(4, 3), random(5, 3), C),
        "expected x [*batch, dim], p [planes, dim] and a [planes, dim], got [2, 3], [4, 3] and [5, 3]; p has a point "
        "and a a normal for each plane",
    ),
    (
        "hnnpp_planes",
        (random(2, 3), random(4, 3), C, random(5)),
        "expected x [*batch, dim], z [planes, dim] and shift [planes], got [2, 3], [4, 3] and [5]; z has a normal and "
        "shift a number for each plane",
    ),
    ("poincare_planes", (random(2, 3), random(4, 3).float(), random(4, 3), C), "x and p must have one dtype"),
]


@pytest.mark.parametrize("name, args, message", ERRORS, ids=str)
def test_errors(name, args, message):
    with pytest.raises(RuntimeError, match=re.escape(message)):
        overload(name)(*args)


def test_a_negative_guard_is_an_error():
    with pytest.raises(RuntimeError, match="min_gap must be at least 0, got -1"):
        ops.poincare_planes(*CASES["poincare_planes"][1](), min_gap=-1.0)
