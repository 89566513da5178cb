"""Rows at the ends of float64: arguments held at their largest, squares near underflow, infinities and NaN."""

import math

import pytest
import torch
from operator_cases import overload

from stonefx import ops
from stonefx.geometry import lorentz, poincare, sphere

ONE = torch.tensor(1.0)


def double(*entries):
    return torch.tensor(entries, dtype=torch.float64)


@pytest.mark.parametrize("length", [7e2, 1e5, 5e8, 1e12, 1e150])
def test_lorentz_exponentials_of_long_vectors_stop_at_the_largest_argument(length):
    largest = math.sinh(690.0)
    v = double(0.0, -0.6 * length, 0.8 * length)
    expected = largest * double(1.0, -0.6, 0.8)
    torch.testing.assert_close(lorentz.expmap0(v), expected, rtol=1e-12, atol=0)
    origin = double(1.0, 0.0, 0.0)
    torch.testing.assert_close(lorentz.expmap(origin, v), expected, rtol=1e-12, atol=0)
    got = overload("lorentz_expmap0_forward")(v, ONE, max_argument=700.0)
    torch.testing.assert_close(got, expected * math.exp(10), rtol=1e-12, atol=0)


def test_a_long_vector_keeps_its_gradient():
    v = double(0.0, 3e6, 4e6).requires_grad_()
    overload("lorentz_expmap0")(v, ONE, max_argument=690.0)[1].backward()
    # sinh(690) times the derivative of v1 / ||v||
    torch.testing.assert_close(v.grad[1:] / math.sinh(690.0), double(0.64, -0.48) / 5e6, rtol=1e-9, atol=0)


@pytest.mark.parametrize("limit", [0.5, 0.99])
def test_logmap0_of_a_row_whose_norm_overflows_is_that_of_torch(limit):
    rows = double(1e200, 1.0, 2.0)
    assert torch.equal(overload("logmap0_forward")(rows, ONE, atanh_limit=limit), double(0.0, 0.0, 0.0))
    assert (
        overload("logmap0_forward")(torch.tensor([math.inf, 1.0]), ONE, atanh_limit=limit).tolist()[1] == 0.0
    )
    assert torch.isfinite(poincare.logmap0(rows)).all()


@pytest.mark.parametrize("name", ["poincare_dist", "klein_dist"])
def test_zero_over_zero_is_nan_in_kernel_and_reference(name):
    x = double(1.0, 0.0)
    assert overload(f"{name}_forward")(x, x, ONE).isnan()
    assert ops.ROW_FORMULAS[name].evaluate(x, x, ONE).isnan()


@pytest.mark.parametrize("apart", [1e-100, 1e-130, 1e-138])
def test_distances_do_not_underflow(apart):
    # At (1, 0) the gap is held at 1e-15, so that d = asinh(||x - y|| / 1e-15).
    x = double(1.0, 0.0).requires_grad_()
    y = double(1.0, apart)
    d = overload("poincare_dist")(x, y, ONE, min_gap=1e-15)
    torch.testing.assert_close(d, double(2e15 * apart)[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(d, x)[0][1], double(-2e15)[0], rtol=1e-12, atol=0)


def test_a_distance_beyond_range_is_infinite():
    y = double(1.0, 1e-3)
    assert overload("poincare_dist_forward")(double(1.0, 0.0), y, ONE, min_gap=1e-160) == math.inf
    assert lorentz.dist(double(0.0, 1e153, 0.0), double(0.0, 1.0, 0.0)).isfinite()


@pytest.mark.parametrize(
    "name", ["lorentz_expmap0", "lorentz_logmap0", "expmap0", "logmap0", "mobius_scalar_mul"]
)
def test_nan_in_a_row_is_passed_on(name):
    scalars = (ONE, torch.tensor(0.5)) if name == "mobius_scalar_mul" else (ONE,)
    got = overload(f"{name}_forward")(double(0.0, math.nan, 0.5), *scalars)
    assert got[1:].isnan().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("length", [1.0001, 3.16, 1e3, 1e6, 1e15, 1e30])
def test_sums_of_points_outside_the_ball_stay_inside(dtype, length):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(500, 8, dtype=dtype, generator=generator) for _ in range(2))
    x, y = length * x / x.norm(dim=-1, keepdim=True), 0.5 * y / y.norm(dim=-1, keepdim=True)
    for a, b in ((x, y), (y, x), (x, 0 * y), (x, x), (x, -x)):
        assert (poincare.mobius_add(a, b).double().norm(dim=-1) < 1).all()
    torch.testing.assert_close(
        poincare.mobius_add(y.double(), 0 * y.double()), y.double(), rtol=1e-15, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_projection_of_zero_onto_the_sphere_has_no_gradient(dtype):
    x = torch.zeros(2, 3, dtype=dtype)
    x[1, 0] = 1e-7
    x.requires_grad_()
    y = sphere.project(x)
    assert y[0].tolist() == [0.0, 0.0, 0.0]
    assert y[1].tolist() == [1.0, 0.0, 0.0]
    assert torch.autograd.grad(y[0].sum(), x)[0][0].tolist() == [0.0, 0.0, 0.0]


def test_products_on_meta():
    x = torch.empty(3, 4, device="meta")
    assert poincare.cdist(x, x, mode="fast").shape == (3, 3)
