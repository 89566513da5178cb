"""Pairs of points of every model in both orders, with what the operators must give for them and for their gradients.

Each radius meets each other radius, so that either point is the farther one; the angles between them reach from 0,
where both lie on one ray, to a half turn.
"""

import itertools
import math

import exact
import mpmath
import torch
from mpmath import mp, mpf

from stonefx.ops import ROW_FORMULAS

DIGITS = 260
# Distances from the origin; all but the sphere's are unbounded.
RADII = {
    "lorentz": {
        torch.float32: (0.0, 0.5, 3.0, 16.0, 40.0, 60.0, 85.0),
        torch.float64: (0.0, 0.5, 3.0, 20.0, 60.0, 200.0),
    },
    "ball": dict.fromkeys((torch.float32, torch.float64), (0.0, 1e-6, 0.4, 1.5, 3.0)),
    "sphere": dict.fromkeys((torch.float32, torch.float64), (0.5,)),
}
# "near" is where the distance across is about the distance along: twice the inverse of the smaller sinh.
ANGLES = (0.0, 1e-6, "near", 0.5, math.pi / 2, 3.0, math.pi)
SPHERE_ANGLES = (1e-6, 1e-3, 0.5, math.pi / 2, 3.0)


def names():
    """Every row operator of two points, from the table of the operators, and Moebius addition."""
    pairs = [name for name, formula in ROW_FORMULAS.items() if formula.vectors[:2] == ("x", "y")]
    return (*(name for name in pairs if name != "lorentz_inner"), "mobius_add")


def model(name):
    for label in ("lorentz", "sphere"):
        if name.startswith(label):
            return label
    return "ball"


def point(name, radius, turn, dtype, c=1.0):
    """A point at a distance from the origin; those of the sphere are all on its equator."""
    # exactly of length 1 in float64 where `turn` is 0: one ray has points that are multiples of each other
    first, second = math.cos(turn), math.sin(turn) if turn not in (0.0, math.pi) else 0.0
    size = {"lorentz": math.sinh, "sphere": lambda _: 1.0, "ball": math.tanh}[model(name)]
    if name.startswith("klein"):
        size = lambda r: math.tanh(2 * r)  # noqa: E731
    space = [size(radius) * e / math.sqrt(c) for e in (first, second, 0.0)]
    return torch.tensor([0.0, *space] if model(name) == "lorentz" else space, dtype=torch.float64).to(dtype)


def pairs(name, dtype, c=1.0):
    """`(x, y)` of all radii and angles; a point and itself is left to other tests."""
    kind = model(name)
    radii = RADII[kind][dtype]
    for (one, other), angle in itertools.product(
        itertools.product(radii, repeat=2), SPHERE_ANGLES if kind == "sphere" else ANGLES
    ):
        if angle == "near":
            angle = min(2 * math.exp(-min(one, other)), 0.3)
        if not (kind != "sphere" and one == other and angle == 0) and one + other > 0:
            yield point(name, one, 0.0, dtype, c), point(name, other, angle, dtype, c)


def vector(name, x, dtype):
    """A tangent vector at x, as long along its ray as across it in the geometry."""
    v = torch.tensor([0.3, 0.7, -0.4], dtype=torch.float64)
    if model(name) == "lorentz":
        size = x[1:].double().norm()
        v = torch.cat(
            [torch.zeros(1).double(), v + (0.3 * size / size.clamp_min(1)) * x[1:].double().sign() * size]
        )
    return v.to(dtype)


def operands(name, x, y, c=1.0):
    """All operands of a call, the numbers as Python floats."""
    formula = ROW_FORMULAS.get(name)
    vectors = [x, y, vector(name, x, x.dtype)] if formula and len(formula.vectors) == 3 else [x, y]
    return vectors, [c, 0.3][: len(formula.scalars) if formula else 1]


def numbers(tensor):
    return [mpf(entry) for entry in tensor.detach().double().reshape(-1).tolist()]


def textbook(name, vectors, scalars):
    return getattr(exact, name)(*vectors, *scalars)


def derivative(function, at, index):
    """The derivative of a function of a list for one entry."""
    step = mpf(10) ** (-DIGITS // 4) * (1 + abs(at[index]))
    up, down = list(at), list(at)
    up[index] += step
    down[index] -= step
    return (function(up) - function(down)) / (2 * step)


def gradients(name, vectors, scalars, upstream):
    """The gradients of `<upstream, result>` for the entries of each vector, and for each number."""

    def loss(*inputs):
        count = len(vectors)
        result = textbook(name, inputs[:count], [number[0] for number in inputs[count:]])
        return exact.dot(upstream, result)

    inputs = [*vectors, *([number] for number in scalars)]
    skipped = 1 if model(name) == "lorentz" else 0
    results = []
    for k, each in enumerate(inputs):
        first = skipped if k < len(vectors) else 0
        entries = [
            derivative(lambda e, k=k: loss(*inputs[:k], e, *inputs[k + 1 :]), each, i)
            for i in range(first, len(each))
        ]
        results.append([mpf(0)] * first + entries)
    return results


def distance(name, x, y, c=1.0):
    """In units of the curvature: by how much a rounding of the distance is magnified."""
    kind = {"lorentz": "lorentz_dist", "sphere": "sphere_dist"}.get(model(name))
    kind = kind or ("klein_dist" if name.startswith("klein") else "poincare_dist")
    return float(mpmath.sqrt(c) * getattr(exact, kind)(x, y, mpf(c))[0].real)


def sizes(row, at):
    """A gradient's length, and that with its part along the point stretched as the geometry has it."""
    row, at = list(row), list(at)
    plain = exact.norm(row)
    length = exact.norm(at)
    if not length:
        return plain, plain
    along = exact.dot(row, at) / length
    across = exact.combine((1, row), (-along / length, at))
    return plain, mpmath.sqrt(along**2 * (1 + length**2) + exact.dot(across, across))


def tangent(row, at):
    """A row without its part along a point of the sphere."""
    return exact.combine((1, row), (-exact.dot(row, at) / exact.dot(at, at), at))


def digits():
    return mp.workdps(DIGITS)
