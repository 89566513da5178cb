"""Points of the hyperboloid far from the origin, where inner products cancel, against mpmath at 120 digits."""

import math

import mpmath
import pytest
import torch
from mpmath import mp, mpf

from stonefx import ops
from stonefx.geometry import lorentz

# Radii of two points and the angle between them.
PAIRS = [
    (5.0, 25.0, 0.0),
    (8.0, 8.0, 1e-3),
    (10.0, 18.0, 0.0),
    (10.0, 30.0, 0.0),
    (12.0, 12.0, 3.0),
    (14.0, 14.000001, 0.0),
    (15.0, 23.0, 0.0),
    (10.0, 40.0, 1e-6),
    (18.0, 36.0, 0.3),
    (20.0, 60.0, 0.3),
]
DTYPES = [torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def digits():
    with mp.workdps(120):
        yield


def pair(dtype, first, second, angle):
    def point(radius, turn):
        direction = torch.tensor([0.0, 0.6, 0.8, 0.0], dtype=torch.float64)
        turned = torch.tensor([0.0, 0.8, -0.6, 0.0], dtype=torch.float64)
        return lorentz.expmap0((radius * (math.cos(turn) * direction + math.sin(turn) * turned)).to(dtype))

    return point(first, 0.0), point(second, angle)


def exact(x):
    """The point over the stored space components, time first."""
    space = [mpf(entry) for entry in x[1:].double().tolist()]
    return [mpmath.sqrt(1 + sum(s * s for s in space)), *space]


def cosh_of_distance(x, y):
    return x[0] * y[0] - sum(s * t for s, t in zip(x[1:], y[1:], strict=True))


def tolerance(dtype, *radii):
    """What float64 sums leave of `x / (1 + x_time) - y / (1 + y_time)`, and the rounding of the result."""
    return 8 * torch.finfo(dtype).eps + 8 * torch.finfo(torch.float64).eps * math.exp(min(radii))


def close(got, expected, rtol):
    size = mpmath.sqrt(sum(e * e for e in expected))
    error = mpmath.sqrt(sum((mpf(g) - e) ** 2 for g, e in zip(got.double().tolist(), expected, strict=True)))
    assert error <= rtol * size, float(error / size)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("first", "second", "angle"), PAIRS)
def test_distances(dtype, first, second, angle):
    x, y = pair(dtype, first, second, angle)
    expected = mpmath.acosh(cosh_of_distance(exact(x), exact(y)))
    for got in (lorentz.dist(x, y), ops.ROW_FORMULAS["lorentz_dist"].evaluate(x, y, torch.tensor(1.0))):
        close(got.reshape(1), [expected], tolerance(dtype, first, second))
    got = torch.func.jvp(lambda p: lorentz.dist(p, y), (x,), (torch.ones_like(x),))[0]
    close(got.reshape(1), [expected], tolerance(dtype, first, second))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("first", "second", "angle"), PAIRS)
def test_logarithms_and_geodesics(dtype, first, second, angle):
    x, y = pair(dtype, first, second, angle)
    p, q = exact(x), exact(y)
    cosh = cosh_of_distance(p, q)
    d = mpmath.acosh(cosh)
    rtol = 4 * tolerance(dtype, first, second)
    towards = [d / mpmath.sinh(d) * (t - cosh * s) for s, t in zip(p, q, strict=True)]
    close(lorentz.logmap(x, y), towards, rtol)
    middle = [mpmath.sinh(d / 2) / mpmath.sinh(d) * (s + t) for s, t in zip(p, q, strict=True)]
    close(lorentz.geodesic(x, y, 0.5), middle, rtol * (1 + float(d)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("radius", "length"), [(8.0, 3.0), (10.0, -5.0), (14.0, 10.0), (18.0, -1e-3)])
def test_exponentials_along_a_ray(dtype, radius, length):
    x = lorentz.expmap0(torch.tensor([0.0, 0.6 * radius, 0.8 * radius], dtype=dtype))
    p = exact(x)
    norm = mpmath.sqrt(p[1] ** 2 + p[2] ** 2)
    v = torch.tensor([0.0, *(float(length * p[0] * s / norm) for s in p[1:])], dtype=dtype)
    # The tangent vector over the stored space components.
    space = [mpf(entry) for entry in v[1:].double().tolist()]
    v_time = (p[1] * space[0] + p[2] * space[1]) / p[0]
    u = mpmath.sqrt(space[0] ** 2 + space[1] ** 2 - v_time**2)
    expected = [mpmath.cosh(u) * s + mpmath.sinh(u) / u * t for s, t in zip(p, [v_time, *space], strict=True)]
    # The result is a difference of cosh(u) x and sinh(u) / u v where it comes back towards the origin.
    terms = float(mpmath.cosh(u) * p[0] / expected[0])
    for got in (lorentz.expmap(x, v), ops.ROW_FORMULAS["lorentz_expmap"].evaluate(x, v, torch.tensor(1.0))):
        close(
            got,
            expected,
            8 * torch.finfo(dtype).eps + (4 + 4 * abs(length)) * terms * 2.3e-16 * math.exp(radius),
        )


def test_gradients_keep_the_side_that_they_point_to():
    x, y = (p.requires_grad_() for p in pair(torch.float64, 10.0, 14.0, 0.0))
    of_x, of_y = torch.autograd.grad(lorentz.dist(x, y), (x, y))
    direction = torch.tensor([0.6, 0.8, 0.0], dtype=torch.float64)
    # d = asinh(|y|) - asinh(|x|) along the ray
    for grad, sign, radius in ((of_x, -1.0, 10.0), (of_y, 1.0, 14.0)):
        torch.testing.assert_close(
            grad[1:] @ direction, torch.tensor(sign / math.cosh(radius)).double(), rtol=1e-5, atol=0
        )
