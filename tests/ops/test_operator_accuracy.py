"""Values against 50 digits, from 0 to the boundary and far beyond the flat part of tanh."""

import math

import mpmath
import pytest
import torch
from operator_cases import DTYPES, HYPERBOLIC, arguments, declared, overload, points, relative

DIMS = (1, 2, 3, 17, 64, 1000)
CURVATURES = (1e-6, 0.37, 1.0, 1e3)
TANGENT_NORMS = (0.0, 1e-30, 1e-12, 1e-4, 0.03, 0.3, 1.0, 4.0, 30.0, 1e6, 1e15)
POINT_NORMS = (0.0, 1e-30, 1e-12, 1e-4, 0.03, 0.17, 0.18, 0.5, 0.9, 0.999, 1 - 1e-6)


def rows(dim, norms, c, dtype):
    """Rows whose scaled norm is each of `norms`, up to the rounding of what is stored."""
    direction = points(len(norms), dim, radius=0.9)
    direction = direction / direction.norm(dim=-1, keepdim=True)
    return (direction * torch.tensor(norms, dtype=torch.float64)[:, None] / math.sqrt(c)).to(dtype)


def exact_factor(name, row, c):
    """The factor of the row to 50 digits, and how far a relative error of the norm is magnified in it."""
    with mpmath.workdps(50):
        u = mpmath.sqrt(mpmath.mpf(c) * mpmath.fsum(mpmath.mpf(v) ** 2 for v in row))
        if u == 0:
            return 1.0, 0.0
        if name == "expmap0":
            return mpmath.tanh(u) / u, 1.0
        return mpmath.atanh(u) / u, float(u / ((1 - u**2) * mpmath.atanh(u)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize(("name", "norms"), [("expmap0", TANGENT_NORMS), ("logmap0", POINT_NORMS)])
def test_against_fifty_digits(name, norms, dim, dtype):
    eps, arithmetic = torch.finfo(dtype).eps, torch.finfo(torch.float64).eps
    for c in CURVATURES:
        x = rows(dim, norms, c, dtype)
        y = overload(f"{name}_forward")(x, torch.tensor(c, dtype=torch.float64))
        for source, result in zip(x.tolist(), y.tolist(), strict=True):
            factor, condition = exact_factor(name, source, c)
            # Arithmetic is float64 for both dtypes: only there can an ill-conditioned row lose more.
            bound = 2 * eps + (6 + 4 * condition) * arithmetic
            assert bound <= 8 * eps or condition > 0.5
            with mpmath.workdps(50):
                for v, w in list(zip(source, result, strict=True))[:8]:
                    error = abs(mpmath.mpf(w) - factor * mpmath.mpf(v))
                    assert error <= bound * abs(factor * v) + torch.finfo(dtype).smallest_normal * eps


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [1, 3, 64])
def test_mobius_add_against_fifty_digits(dim, dtype):
    x, y = points(24, dim, dtype=dtype, radius=0.99), points(24, dim, dtype=dtype, seed=7, radius=0.99)
    # nearly opposite points too: differences of neighbours are what distances are made of
    y[:12] = (-x[:12].double() * (1 + 1e-5 * y[:12].double())).to(dtype)
    z = overload("mobius_add_forward")(x, y, torch.tensor(0.9, dtype=torch.float64))
    for u, v, w in zip(x.tolist(), y.tolist(), z.tolist(), strict=True):
        with mpmath.workdps(50):
            c = mpmath.mpf(0.9)
            u, v = [mpmath.mpf(e) for e in u], [mpmath.mpf(e) for e in v]
            uv = mpmath.fsum(a * b for a, b in zip(u, v, strict=True))
            uu, vv = mpmath.fsum(a * a for a in u), mpmath.fsum(b * b for b in v)
            d = 1 + 2 * c * uv + c * c * uu * vv
            of_u, of_v = (1 + 2 * c * uv + c * vv) / d, (1 - c * uu) / d
            # c||x + y||^2 is the part of the denominator that rounding of 1 - c||x||^2 does not touch.
            condition = float(1 / (1 - c * uu) + 1 / (1 - c * vv))
            length = mpmath.sqrt(mpmath.fsum((of_u * a + of_v * b) ** 2 for a, b in zip(u, v, strict=True)))
            error = mpmath.sqrt(
                mpmath.fsum(
                    (mpmath.mpf(g) - of_u * a - of_v * b) ** 2 for a, b, g in zip(u, v, w, strict=True)
                )
            )
            assert error <= (torch.finfo(dtype).eps + 4 * condition * torch.finfo(torch.float64).eps) * length


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [1, 5, 64])
def test_opposite_points_cancel_exactly(dim, dtype):
    x = points(50, dim, dtype=dtype)
    assert torch.equal(overload("mobius_add_forward")(-x, x, torch.tensor(0.9)), torch.zeros_like(x))


# float64 is not its own judge: the tests above measure it.
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float64], ids=str)
@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("name", HYPERBOLIC)
def test_narrower_dtypes_against_the_float64_reference(name, dim, dtype):
    args = arguments(name, dtype, batch=(37,), dim=dim)
    got = overload(f"{name}_forward")(*args)
    assert got.dtype == dtype
    assert relative(got, declared(name).reference(*(a.double() for a in args))) < 8 * torch.finfo(dtype).eps


def test_half_types_over_their_whole_range():
    """Every bfloat16 and float16 passes through an identity map unchanged: both conversions are exact."""
    for dtype in (torch.bfloat16, torch.float16):
        x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        finite = x[x.isfinite()].reshape(-1, 1)
        tiny = torch.tensor(1e-90, dtype=torch.float64)
        assert torch.equal(overload("expmap0_forward")(finite, tiny), finite)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_results_round_as_torch_rounds(dtype):
    x = torch.logspace(-9, 4, 4001, dtype=torch.float64).to(dtype).reshape(-1, 1)
    c = torch.tensor(0.01, dtype=torch.float64)
    wide = overload("expmap0_forward")(x.float(), c)
    assert torch.equal(overload("expmap0_forward")(x, c), wide.to(dtype))


def test_logmap0_at_and_beyond_the_boundary():
    y = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.6, 0.0]])
    free = overload("logmap0_forward")(y, torch.tensor(1.0))
    assert free[0, 0] == math.inf and free[1].isnan().all() and free[2].isfinite().all()
    held = overload("logmap0_forward")(y, torch.tensor(1.0), atanh_limit=1 - 1e-5)
    torch.testing.assert_close(held[:2, 0], torch.full((2,), math.atanh(1 - 1e-5)), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["expmap0", "logmap0"])
def test_curvature_that_is_not_positive(name):
    x = torch.tensor([[0.1, 0.2]])
    for c in (0.0, -1.0):
        assert overload(f"{name}_forward")(x, torch.tensor(c)).isnan().all()
        assert declared(name).reference(x, torch.tensor(c)).isnan().all()
    assert torch.equal(overload(f"{name}_forward")(x, torch.tensor(0.0), min_scaled=1e-15), x)


@pytest.mark.parametrize("name", HYPERBOLIC)
def test_nan_in_a_row_stays_in_that_row(name):
    args = list(arguments(name, torch.float32, batch=(4,), dim=3))
    args[0] = args[0].clone()
    args[0][1, 2] = math.nan
    result = overload(f"{name}_forward")(*args)
    assert result[1].isnan().all()
    assert result[[0, 2, 3]].isfinite().all()
