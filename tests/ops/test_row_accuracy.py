"""Values against 50 digits, for the stored operands: at most 8 eps of the dtype in the norm of the result.

One-point maps hold it from 0 to the last number inside the ball. Two-point maps are as ill conditioned as the gaps
`1 - c ||x||^2` are small: there the bound adds what rounding float64 inner products does to them.
"""

import exact
import mpmath
import pytest
import torch
from operator_cases import points
from row_cases import overload

CURVATURES = (1e-6, 1.0, 1e3)
DTYPES = (torch.float32, torch.float64)
BALL_NORMS = (0.0, 1e-30, 1e-12, 1e-4, 0.03, 0.3, 0.9, 0.999, 1 - 1e-6)
FREE_NORMS = (0.0, 1e-30, 1e-12, 1e-4, 0.03, 0.3, 1.0, 4.0, 20.0)
ONE_POINT = {
    "poincare_dist0": BALL_NORMS,
    "conformal_factor": BALL_NORMS,
    "poincare_to_lorentz": BALL_NORMS,
    "poincare_to_klein": BALL_NORMS,
    "klein_to_poincare": BALL_NORMS,
    "klein_to_lorentz": BALL_NORMS,
    "mobius_scalar_mul": BALL_NORMS,
    "lorentz_expmap0": FREE_NORMS,
    "lorentz_logmap0": FREE_NORMS,
    "lorentz_project": FREE_NORMS,
    "lorentz_to_poincare": FREE_NORMS,
    "lorentz_to_klein": FREE_NORMS,
}
TWO_POINTS = (
    "expmap",
    "logmap",
    "poincare_dist",
    "poincare_geodesic",
    "poincare_transport",
    "klein_add",
    "klein_dist",
    "klein_geodesic",
    "lorentz_expmap",
    "lorentz_logmap",
    "lorentz_dist",
    "lorentz_geodesic",
    "lorentz_transport",
)


def directions(count, dim, seed):
    x = points(count, dim, seed=seed, radius=0.9)
    return x / x.norm(dim=-1, keepdim=True)


def exact_rows(name, vectors, scalars):
    """The textbook's result of each row, as 50 digits allow."""
    rows = []
    for row in zip(*(v.tolist() for v in vectors), strict=True):
        operands = [[mpmath.mpf(e) for e in vector] for vector in row]
        rows.append(getattr(exact, name)(*operands, *(mpmath.mpf(s) for s in scalars)))
    return rows


def worst(result, expected, dtype, allowed):
    """The largest error over its bound."""
    result = result.reshape(len(expected), -1).tolist()
    ratios = []
    for got, row, bound in zip(result, expected, allowed, strict=True):
        error = exact.norm([mpmath.mpf(g) - e for g, e in zip(got, row, strict=True)])
        floor = len(row) * torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
        ratios.append(float(error / (bound * exact.norm(row) + floor)))
    return max(ratios)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [1, 2, 3, 17, 64, 1000])
@pytest.mark.parametrize("name", ONE_POINT)
def test_one_point(name, dim, dtype):
    norms, eps = ONE_POINT[name], torch.finfo(dtype).eps
    # the last norm inside the ball, as far as float64 tells it from the boundary
    last = [1 - torch.finfo(torch.float32).eps] if norms is BALL_NORMS and dtype == torch.float32 else []
    lengths = torch.tensor([*norms, *last], dtype=torch.float64)[:, None]
    for c in CURVATURES if dim <= 17 else (1.0,):
        x = directions(len(lengths), dim, 1) * lengths / c**0.5
        if name.startswith("lorentz"):
            x = torch.cat([torch.zeros(len(x), 1, dtype=torch.float64), x], -1)
        x, scalars = x.to(dtype), [c, 0.7] if name == "mobius_scalar_mul" else [c]
        operands = [torch.tensor(s, dtype=torch.float64) for s in scalars]
        with mpmath.workdps(50):
            expected = exact_rows(name, [x], scalars)
            gaps = [1 - c * sum(mpmath.mpf(e) ** 2 for e in row) for row in x.tolist()]
            inside = [i for i, gap in enumerate(gaps) if norms is FREE_NORMS or gap > eps]
            # 1 - c||x||^2 of a float64 row is known to a few units of float64
            near = 0 if norms is FREE_NORMS else 4
            allowed = [2 * eps + 2.0**-51 + near * 2.0**-53 / max(float(gaps[i]), 1e-16) for i in inside]
            # the exponential multiplies a relative error of its argument by it
            if name == "lorentz_expmap0":
                allowed = [
                    bound + 4 * length * 2.0**-53
                    for bound, length in zip(allowed, lengths[:, 0].tolist(), strict=True)
                ]
            assert all(bound <= 8 * eps for bound, i in zip(allowed, inside, strict=True) if gaps[i] > 0.5)
            result = overload(name)(x, *operands)[inside]
            assert worst(result, [expected[i] for i in inside], dtype, allowed) <= 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [1, 3, 64])
@pytest.mark.parametrize("name", TWO_POINTS)
def test_two_points(name, dim, dtype):
    eps, count = torch.finfo(dtype).eps, 12
    lengths = torch.tensor([0.0, 1e-9, 0.2, 0.5, 0.9, 0.99] * 2, dtype=torch.float64)[:, None]
    for c in (1e-6, 1.0, 1e3) if dim == 3 else (1.0,):
        x = directions(count, dim, 1) * lengths / c**0.5
        y = directions(count, dim, 2) * lengths.roll(2, 0) / c**0.5
        y[:4] = x[2:6] * (1 + 1e-6)  # neighbours
        x[:4] = x[2:6].clone()
        v = directions(count, dim, 3) * 0.6 / c**0.5
        if name.startswith("lorentz"):
            time = torch.zeros(count, 1, dtype=torch.float64)
            x, y, v = (torch.cat([time, 2 * e], -1) for e in (x, y, v))
        vectors = {"expmap": [x, v], "lorentz_expmap": [x, v]}.get(name.removeprefix("poincare_"), [x, y])
        vectors = [*vectors, v] if name.endswith("transport") else vectors
        vectors = [e.to(dtype) for e in vectors]
        scalars = [c, 0.3] if name.endswith("geodesic") else [c]
        result = overload(name)(*vectors, *(torch.tensor(s, dtype=torch.float64) for s in scalars))
        with mpmath.workdps(90):
            expected = exact_rows(name, vectors, scalars)
            # expmap through the origin and far out again multiplies the rounding of inner products by 1 / alpha^2
            through = 2.0**-49 / (1 - 0.99**2) ** 2 if name == "expmap" else 0.0
            assert worst(result, expected, dtype, [8 * eps + 2.0**-44 + through] * count) <= 1


@pytest.mark.parametrize("name", ["sphere_expmap", "sphere_dist", "sphere_project"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sphere(name, dtype):
    eps = torch.finfo(dtype).eps
    x, y = directions(20, 5, 1) * 2, directions(20, 5, 2) * 2  # c = 1/4
    y[:3] = x[:3] * (1 + 1e-6 * y[:3])
    vectors = [e.to(dtype) for e in ([x] if name == "sphere_project" else [x, y])]
    result = overload(name)(*vectors, torch.tensor(0.25, dtype=torch.float64))
    with mpmath.workdps(50):
        expected = exact_rows(name, vectors, [0.25])
        assert worst(result, expected, dtype, [8 * eps] * 20) <= 1


def test_neighbours_near_the_boundary():
    """Points 1e-6 apart at radius 0.99, in float32: to 1e-3 of the distance and much better."""
    x = (directions(50, 8, 1) * 0.99).float()
    y = (x.double() + directions(50, 8, 2) * 1e-6).float()
    for name in ("poincare_dist", "klein_dist"):
        got = overload(name)(x, y, torch.tensor(1.0))
        with mpmath.workdps(50):
            assert worst(got, exact_rows(name, [x, y], [1.0]), torch.float32, [1e-6] * 50) <= 1
