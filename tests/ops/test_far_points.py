"""Points of the hyperboloid far from the origin, where inner products cancel, beyond what `test_two_points.py` covers:
exponentials, distance matrices, many dimensions, the references, and neighbours."""

import importlib
import math

import exact
import mpmath
import pair_cases as cases
import pytest
import torch
from mpmath import mp, mpf

from stonefx import ops
from stonefx.geometry import lorentz

DTYPES = [torch.float32, torch.float64]
WIDE = torch.finfo(torch.float64).eps
ONE = torch.tensor(1.0, dtype=torch.float64)


@pytest.fixture(autouse=True)
def digits():
    with cases.digits():
        yield


def close(got, expected, rtol):
    size = exact.norm(expected)
    error = exact.norm(exact.combine((1, cases.numbers(got)), (-1, expected)))
    assert error <= rtol * size, float(error / size)


def overload(name):
    return getattr(torch.ops.stone, name).default


# Of vectors along the ray of the point, and beside it: across by as much as one moves in a unit of time.
@pytest.mark.parametrize("across", [0.0, 2.0])
@pytest.mark.parametrize("length", [3.0, 10.0, -5.0, -1e-3, -40.0])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exponentials(dtype, length, across):
    for radius in (0.3, 8.0, 18.0, 40.0):
        x = cases.point("lorentz_expmap", radius, 0.0, dtype)
        v = torch.tensor([0.0, length * math.cosh(radius), across, 0.0], dtype=torch.float64).to(dtype)
        if length * radius == 400.0 and dtype == torch.float32:
            continue  # beyond the largest float32
        bound = torch.finfo(dtype).eps + (16 + 4 * abs(length)) * WIDE
        rows, upstream = [cases.numbers(x), cases.numbers(v)], [mpf(e) for e in (0.3, -0.2, 0.7, 0.1)]
        for got in (
            overload("lorentz_expmap")(x, v, ONE),
            ops.ROW_FORMULAS["lorentz_expmap"].evaluate(x, v, ONE),
        ):
            close(got, exact.lorentz_expmap(*rows, mpf(1)), bound)
        leaves = [p.double().requires_grad_() for p in (x, v)]
        loss = overload("lorentz_expmap")(*leaves, ONE) @ torch.tensor(
            [0.3, -0.2, 0.7, 0.1], dtype=torch.float64
        )
        expected = cases.gradients("lorentz_expmap", rows, [mpf(1)], upstream)
        for one, other in zip(torch.autograd.grad(loss, leaves), expected, strict=False):
            error = exact.combine((1, cases.numbers(one)), (-1, other))
            errors, sizes = (cases.sizes(row[1:], rows[0][1:]) for row in (error, other))
            assert any(e <= (64 + 16 * abs(length)) * WIDE * s for e, s in zip(errors, sizes, strict=True))


@pytest.mark.parametrize("name", ["lorentz_dist", "lorentz_logmap", "lorentz_geodesic", "lorentz_transport"])
def test_references(name):
    """What forward mode and devices without kernels go through; all operands are double."""
    generator, formula = torch.Generator().manual_seed(2), ops.ROW_FORMULAS[name]
    for x, y in list(cases.pairs(name, torch.float64))[::2]:
        vectors, scalars = cases.operands(name, x, y)
        operands = [*vectors, *(torch.tensor(s, dtype=torch.float64) for s in scalars)]
        result = overload(name)(*operands)
        distance = cases.distance(name, cases.numbers(x), cases.numbers(y))
        allowed = (16 + 4 * distance) * WIDE
        got = formula.evaluate(*operands)
        # a way across the ray of x is a difference of larger terms
        scale = max(1.0, x.norm().item()) * float(distance) if name == "lorentz_logmap" else 0.0
        assert (got - result).norm() <= allowed * max(result.norm().item(), scale), (x, y)
        grad = torch.randn(result.shape, generator=generator, dtype=torch.float64)
        expected = overload(f"{name}_backward")(grad, *operands)
        for one, other in zip(formula.gradients(grad, *operands), expected[: len(vectors)], strict=False):
            # their own rounding of gradients across the ray of the farther point
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9 * other.abs().max().item())


def test_forward_mode_is_right_far_out():
    x, y = (cases.point("lorentz_dist", r, 0.0, torch.float64) for r in (60.0, 3.0))
    towards = torch.tensor([0.0, math.cosh(60.0), 0.0, 0.0], dtype=torch.float64)
    value, derivative = torch.func.jvp(lambda p: lorentz.dist(p, y), (x,), (towards,))
    torch.testing.assert_close(
        torch.stack([value, derivative]), torch.tensor([57.0, 1.0]).double(), rtol=1e-12, atol=0
    )


# Points of one ray and beside it, one of them twice.
RADII = {torch.float32: (0.0, 1.0, 12.0, 40.0, 60.0, 85.0), torch.float64: (0.0, 1.0, 3.0, 20.0, 60.0, 150.0)}


def matrix(dtype):
    rows = [
        cases.point("lorentz_dist", radius, turn, dtype)
        for radius in RADII[dtype]
        for turn in (0.0, 1e-9, 2 * math.exp(-radius), 0.5, 3.0)
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_distance_matrices(dtype):
    x = matrix(dtype)
    got, rows = lorentz.cdist(x, x), [cases.numbers(row) for row in x]
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            expected = exact.lorentz_dist(one, other, mpf(1))[0].real
            # what the images in the ball keep of a pair of points that is not taken apart
            bound = 4 * torch.finfo(dtype).eps + (1e-12 if dtype == torch.float64 else 1e-8)
            assert abs(mpf(got[i, j].item()) - expected) <= bound * expected + WIDE, (i, j)
    reference = importlib.import_module("stonefx.ops.pairs.lorentz_cdist").reference(x, x, ONE)
    torch.testing.assert_close(got, reference, rtol=8 * torch.finfo(dtype).eps + 2e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_of_distance_matrices(dtype):
    """As those of all pairs by `dist`, which `test_two_points.py` compares with mpmath."""
    x, y = matrix(dtype).requires_grad_(), matrix(dtype)[::2].clone().requires_grad_()
    c = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(x), len(y), generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(
        dtype
    )
    got = torch.autograd.grad(lorentz.cdist(x, y, c), (x, y, c), weights)
    wide = [p.detach().double().requires_grad_() for p in (x, y)]
    pairs = lorentz.dist(wide[0][:, None], wide[1], c)
    expected = torch.autograd.grad(pairs, (*wide, c), weights.double())
    tight = 4 * torch.finfo(dtype).eps + (1e-11 if dtype == torch.float64 else 1e-7)
    for one, other, points in zip(got, expected, (x, y), strict=False):
        error = (one.double() - other).norm(dim=-1)
        # the terms of a row may cancel: its largest is about that of the distance across, at most 1
        along = 1 / (1 + points[:, 1:].detach().double().square().sum(-1)).sqrt()
        assert (error <= tight * (other.norm(dim=-1) + len(x) * along)).all(), (
            error / other.norm(dim=-1)
        ).max()
    assert abs(got[2] - expected[2]) <= tight * (weights.abs().double() * pairs.detach()).sum()


def many_dimensions(dtype, seed):
    v = torch.randn(1, 4096, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lorentz.expmap0(torch.nn.functional.pad(64 * v / v.norm(), (1, 0)).to(dtype))[0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tangents_of_length_64_in_4096_dimensions(dtype):
    x, other = many_dimensions(dtype, 1), many_dimensions(dtype, 2)
    near = lorentz.expmap0(lorentz.logmap0(x) * 0.5)  # of one ray, to a rounding of each entry
    twice = torch.cat([x[:1], x[1:] / 2**20])  # of one ray
    bound = 8 * torch.finfo(dtype).eps + 1e-12
    for p, q in ((x, other), (other, x), (x, near), (near, x), (x, twice), (twice, x)):
        a, b = (cases.numbers(row) for row in (p, q))
        distance = exact.lorentz_dist(a, b, mpf(1))
        close(lorentz.dist(p, q), distance, bound)
        close(lorentz.cdist(p[None], q[None]), distance, bound)
        close(lorentz.geodesic(p, q, 0.25), exact.lorentz_geodesic(a, b, mpf(1), mpf(1) / 4), bound)
        if float(distance[0]) * float(exact.lifted(a[1:], 1)[0]) < torch.finfo(dtype).max:
            close(lorentz.logmap(p, q), exact.lorentz_logmap(a, b, mpf(1)), bound)
        p, q = (row.clone().requires_grad_() for row in (p, q))
        grads = [
            torch.autograd.grad(d.sum(), (p, q))
            for d in (lorentz.dist(p, q), lorentz.cdist(p[None], q[None]))
        ]
        lifted = [exact.lifted(row[1:], 1) for row in (a, b)]
        for index, (one, two) in enumerate((lifted, lifted[::-1])):
            along = exact.combine((two[0] / one[0], one[1:]), (-1, two[1:]))
            expected = [mpf(0), *exact.scaled(along, 1 / mpmath.sinh(distance[0]))]
            for of_pair in grads:
                close(of_pair[index], expected, 4 * bound)


def test_neighbours_far_out_keep_their_distance():
    """One unit in the last place across the ray, at every radius of float64."""
    for radius in (5.0, 20.0, 36.0, 60.0, 150.0):
        x = cases.point("lorentz_dist", radius, 0.7, torch.float64)
        y = x.clone()
        y[2] = torch.nextafter(y[2], torch.tensor(math.inf, dtype=torch.float64))
        expected = exact.lorentz_dist(cases.numbers(x), cases.numbers(y), mpf(1))
        for p, q in ((x, y), (y, x)):
            close(lorentz.dist(p, q), expected, 64 * WIDE)
            close(lorentz.cdist(p[None], q[None]), expected, 64 * WIDE)
        assert lorentz.dist(x, x) == 0 and lorentz.cdist(x[None], x[None]) == 0


def test_gradients_keep_the_side_that_they_point_to():
    # d = |asinh(|y|) - asinh(|x|)| along the ray
    for one, other in ((10.0, 14.0), (60.0, 14.0), (150.0, 40.0)):
        x, y = (cases.point("lorentz_dist", r, 0.0, torch.float64).requires_grad_() for r in (one, other))
        of_x, of_y = torch.autograd.grad(lorentz.dist(x, y), (x, y))
        side = math.copysign(1.0, one - other)
        expected = torch.zeros(2, 4, dtype=torch.float64)
        expected[:, 1] = torch.tensor([side / math.cosh(one), -side / math.cosh(other)], dtype=torch.float64)
        torch.testing.assert_close(torch.stack([of_x, of_y]), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("c", [1e-3, 7.0])
def test_other_curvatures(c):
    x, y = (
        cases.point("lorentz_dist", r, t, torch.float64, c) for r, t in ((50.0, 0.3), (30.0, 0.3 + 1e-12))
    )
    for p, q in ((x, y), (y, x)):
        a, b = cases.numbers(p), cases.numbers(q)
        close(lorentz.dist(p, q, c), exact.lorentz_dist(a, b, mpf(c)), 64 * WIDE)
        close(lorentz.cdist(p[None], q[None], c), exact.lorentz_dist(a, b, mpf(c)), 64 * WIDE)
        close(lorentz.logmap(p, q, c), exact.lorentz_logmap(a, b, mpf(c)), 256 * WIDE)
        close(lorentz.geodesic(p, q, 0.3, c), exact.lorentz_geodesic(a, b, mpf(c), mpf(0.3)), 256 * WIDE)
    assert mp.dps == cases.DIGITS


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("c", [0.1, 0.5, 0.7, 1.0, 1.3, 2.0])
def test_pairs_at_the_origin(c, dtype):
    """The product of their times is 1 to rounding, on either side."""
    space = torch.zeros(5, 3, dtype=dtype)
    space[2, 0], space[3], space[4] = 1e-12, 1e-160 if dtype == torch.float64 else 1e-30, 0.5
    x = lorentz.project(torch.cat([torch.zeros(5, 1, dtype=dtype), space], -1), c).requires_grad_()
    distances = lorentz.cdist(x, x.detach(), c)
    expected = lorentz.dist(x.detach()[:, None], x.detach()[None], c)
    torch.testing.assert_close(distances, expected, rtol=16 * torch.finfo(dtype).eps, atol=1e-150)
    assert bool((distances[:2, :2] == 0).all())
    curvature = torch.tensor(c, dtype=dtype, requires_grad=True)
    for result in (distances.sum(), lorentz.cdist(x, x.detach(), curvature).sum()):
        assert torch.autograd.grad(result, x)[0].isfinite().all()
