"""Distance matrices against 50 digits: near points, far points, and points near the boundary."""

import math

import mpmath
import pytest
import torch
from cdist_cases import DTYPES, NAMES, exact_distance, in_model, operands
from operator_cases import module, overload, points

from stonefx.geometry import poincare

NORMS = (0.0, 1e-30, 1e-12, 1e-4, 0.1, 0.5, 0.9, 0.99, 0.9999, 1 - 1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 2, 17, 64])
@pytest.mark.parametrize("c", [1e-6, 0.37, 1e3])
def test_against_fifty_digits(c, dim, dtype):
    eps = torch.finfo(dtype).eps
    direction = points(len(NORMS), dim, radius=0.5)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    x = (direction * torch.tensor(NORMS, dtype=torch.float64)[:, None] / math.sqrt(c)).to(dtype)
    got = overload("poincare_cdist_forward")(
        x, x.flip(0) * 0.97, torch.tensor(c, dtype=torch.float64)
    ).tolist()
    for row, u in zip(got, x.tolist(), strict=True):
        for value, v in zip(row, (x.flip(0) * 0.97).tolist(), strict=True):
            exact, condition = exact_distance(u, v, c)
            # arithmetic near the boundary is float64 for both dtypes
            bound = 3 * eps + 2 * condition * torch.finfo(torch.float64).eps
            assert abs(mpmath.mpf(value) - exact) <= bound * exact


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (70, 3, 5), (3, 131, 64), (65, 66, 1000)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_narrow_dtypes_against_the_float64_reference(name, shape, dtype):
    rows, columns, dim = shape
    x, y, c = operands(name, dtype, rows=rows, columns=columns, dim=dim)
    got = overload(f"{name}_forward")(x, y, c)
    assert got.dtype == dtype
    exact = module(name).reference(x.double(), y.double(), c)
    assert ((got.double() - exact).abs() <= 3 * torch.finfo(dtype).eps * exact).all()


def test_near_duplicates_near_the_boundary():
    """Points 1e-6 apart at radius 0.99: artanh of a Moebius sum gives NaN or 5 % error here."""
    x = torch.tensor([[0.99, 0.0, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.99, 1e-6, 0.0], [0.99 - 1e-6, 0.0, 0.0]], dtype=torch.float64)
    x, y = x.float(), y.float()
    got = overload("poincare_cdist_forward")(x, y, torch.tensor(1.0))
    for value, v in zip(got[0].tolist(), y.tolist(), strict=True):
        exact, _ = exact_distance(x[0].tolist(), v, 1.0)
        assert abs(value - float(exact)) < 1e-3 * float(exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_point_is_at_distance_zero_of_itself(name, dtype):
    x, _, c = operands(name, dtype, rows=70, dim=19, radius=0.9)
    d = overload(f"{name}_forward")(x, x, c)
    assert torch.equal(d.diagonal(), torch.zeros(70, dtype=dtype))
    assert torch.equal(d, d.mT)


def test_tiny_and_huge_coordinates_in_float32():
    """Squares of these leave the range of float32; the distances do not."""
    tiny = torch.tensor([[1e-30, 0.0], [0.0, 3e-25], [0.0, 0.0]])
    got = overload("poincare_cdist_forward")(tiny, tiny, torch.tensor(1.0))
    expected = 2 * (tiny[:, None].double() - tiny[None].double()).norm(dim=-1)
    torch.testing.assert_close(got.double(), expected, rtol=1e-6, atol=0)
    huge = torch.tensor([[1e20, 0.0], [0.0, 3e20]])
    c = torch.tensor(1e-42, dtype=torch.float64)
    got = overload("poincare_cdist_forward")(huge, huge, c)
    exact, _ = exact_distance(huge[0].tolist(), huge[1].tolist(), 1e-42)
    assert abs(got[0, 1].item() - float(exact)) < 1e-6 * float(exact)


def test_the_boundary_and_beyond():
    x = torch.tensor([[1.0, 0.0], [1.5, 0.0], [0.0, 0.5]])
    free = overload("poincare_cdist_forward")(x, x[2:], torch.tensor(1.0))
    assert free[0, 0] == math.inf and free[1, 0].isnan() and free[2, 0] == 0
    held = overload("poincare_cdist_forward")(x, x, torch.tensor(1.0), min_alpha=1e-9)
    assert held.isfinite().all() and held[0, 1] > 20
    capped = overload("poincare_cdist_forward")(x, x[2:], torch.tensor(1.0), atanh_limit=1 - 1e-5)
    assert capped[0, 0].item() == pytest.approx(2 * math.atanh(1 - 1e-5), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_a_point_stays_with_its_pairs(name):
    x, y, c = operands(name, torch.float32, rows=3, columns=70)
    x[1, 2] = math.nan
    d = overload(f"{name}_forward")(x, y, c)
    assert d[1].isnan().all() and d[[0, 2]].isfinite().all()


def test_the_geometry_is_finite_everywhere():
    x = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 0.0], [0.6, 0.8]]).requires_grad_()
    d = poincare.cdist(x, x)
    assert d.isfinite().all() and not d.diagonal().any()
    d.sum().backward()
    assert x.grad.isfinite().all()


def exact_hyperboloid(x, y, c):
    with mpmath.workdps(60):
        x, y, c = [mpmath.mpf(v) for v in x[1:]], [mpmath.mpf(v) for v in y[1:]], mpmath.mpf(c)
        s, t = (mpmath.sqrt(1 / c + mpmath.fsum(v * v for v in p)) for p in (x, y))
        inner = s * t - mpmath.fsum(a * b for a, b in zip(x, y, strict=True))
        return mpmath.acosh(max(c * inner, 1)) / mpmath.sqrt(c), float(mpmath.sqrt(c) * (s + t))


def exact_klein(x, y, c):
    with mpmath.workdps(60):
        x, y, c = [mpmath.mpf(v) for v in x], [mpmath.mpf(v) for v in y], mpmath.mpf(c)
        a, b = (1 - c * mpmath.fsum(v * v for v in p) for p in (x, y))
        inner = 1 - c * mpmath.fsum(v * w for v, w in zip(x, y, strict=True))
        return mpmath.acosh(max(inner / mpmath.sqrt(a * b), 1)) / mpmath.sqrt(c), float(1 / a + 1 / b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [0.37, 1e3])
@pytest.mark.parametrize(
    ("name", "exact"), [("lorentz_cdist", exact_hyperboloid), ("klein_cdist", exact_klein)]
)
def test_other_models_against_sixty_digits(name, exact, c, dtype):
    """Near points, far points, and points along one ray, where the hyperboloid's own formula cancels."""
    radii = torch.tensor([0.0, 1e-3, 0.5, 2.0, 2.001, 5.0, 5.5], dtype=torch.float64)
    ray = points(1, 4, radius=0.5)
    ray = ray / ray.norm()
    ball = torch.tanh(radii / 2)[:, None] * torch.cat([ray.expand(7, 4), -ray.expand(7, 4)]).reshape(2, 7, 4)
    x = in_model(name, ball.reshape(14, 4), c).to(dtype)
    eps, wide = torch.finfo(dtype).eps, torch.finfo(torch.float64).eps
    got = overload(f"{name}_forward")(x, x, torch.tensor(c, dtype=torch.float64))
    for i, u in enumerate(x.tolist()):
        for j, v in enumerate(x.tolist()):
            expected, condition = exact(u, v, c)
            error = abs(mpmath.mpf(got[i, j].item()) - expected)
            assert error <= 3 * eps * expected + 2 * condition * wide / math.sqrt(c)
