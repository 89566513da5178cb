"""Every operator of two points against mpmath, for the stored operands, in both orders of these, near and far.

Operators come from the table: a new one is tested as soon as `exact.py` has its textbook formula. Errors count in the
norm of the result; `(4 + d)` roundings of float64 beside one of the dtype are what a distance of `d` may cost, since
sinh(d) multiplies a relative error of its argument by d.
"""

import exact
import pair_cases as cases
import pytest
import torch
from mpmath import mpf

NAMES = cases.names()
DTYPES = (torch.float32, torch.float64)
WIDE = torch.finfo(torch.float64).eps
FLOOR = mpf(10) ** -100


def bound(name, dtype, x, y):
    # float64 inner products near the boundary of a ball are rounded as 1 is, and not as 1 - ||x||^2
    ball = sum(8 / (1 - exact.dot(p, p)) for p in (x, y)) if cases.model(name) == "ball" else 0
    return torch.finfo(dtype).eps + (8 + ball + 2 * cases.distance(name, x, y)) * WIDE


def overload(name):
    return getattr(torch.ops.stone, name).default


@pytest.fixture(autouse=True)
def digits():
    with cases.digits():
        yield


def tensors(scalars):
    return [torch.tensor(s, dtype=torch.float64) for s in scalars]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_values(name, dtype):
    for x, y in cases.pairs(name, dtype):
        vectors, scalars = cases.operands(name, x, y)
        got = cases.numbers(overload(name)(*vectors, *tensors(scalars)))
        p, q = cases.numbers(x), cases.numbers(y)
        expected = cases.textbook(name, [cases.numbers(v) for v in vectors], [mpf(s) for s in scalars])
        error, size = exact.norm(exact.combine((1, got), (-1, expected))), exact.norm(expected)
        if name == "lorentz_logmap":
            # where the way to y is across the ray of x, what is along it is a difference of larger terms
            size = max(size, cases.distance(name, p, q) * exact.lifted(p[1:], 1)[0])
        if size < torch.finfo(dtype).max / 4:
            # where the result is 0, mpmath has what its own digits leave of it
            assert error <= bound(name, dtype, p, q) * size + FLOOR, (x, y, float(error / size))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_gradients(name, dtype):
    generator = torch.Generator().manual_seed(1)
    for x, y in list(cases.pairs(name, dtype))[::3]:
        vectors, scalars = cases.operands(name, x, y)
        vectors = [v.clone().requires_grad_() for v in vectors]
        scalars_ = [s.requires_grad_() for s in tensors(scalars)]
        result = overload(name)(*vectors, *scalars_)
        if not result.isfinite().all():  # beyond the largest float32
            continue
        upstream = torch.randn(result.shape, generator=generator, dtype=torch.float64).to(dtype)
        got = torch.autograd.grad(result, (*vectors, *scalars_), upstream)
        p, q = cases.numbers(x), cases.numbers(y)
        rows = [cases.numbers(v) for v in vectors]
        numbers = [mpf(s) for s in scalars]
        expected = cases.gradients(name, rows, numbers, cases.numbers(upstream))
        # Moebius addition combines rows in the type of its entries, the others in float64; on one line the terms of
        # its gradient are 1 / (1 - |x| |y|) times as large as their sum
        terms = 8 / (1 - exact.norm(p) * exact.norm(q)) if name == "mobius_add" else 4
        allowed = terms * bound(name, dtype, p, q)
        for k, (one, other) in enumerate(zip(got[: len(rows)], expected, strict=False)):
            error = exact.combine((1, cases.numbers(one)), (-1, other))
            at = rows[k] if k < 2 else p
            if cases.model(name) == "sphere":
                # formulas may differ in how they go on beside the sphere
                error, other = (cases.tangent(row, at) for row in (error, other))
            first = 1 if cases.model(name) == "lorentz" else 0
            errors, lengths = (cases.sizes(row[first:], at[first:]) for row in (error, other))
            ratios = [float(e / (allowed * s + FLOOR)) for e, s in zip(errors, lengths, strict=True)]
            assert min(ratios) <= 1, (x, y, k, ratios)
        # A curvature scales all rows, and the result back; a time moves it along the whole way.
        on_result = abs(exact.dot(cases.numbers(upstream), cases.numbers(result)))
        on_rows = sum(abs(exact.dot(row, other)) for row, other in zip(rows, expected, strict=False))
        whole = exact.norm(cases.numbers(upstream)) * exact.norm(cases.numbers(result))
        scales = [(on_rows + on_result) / (2 * numbers[0]), (2 + cases.distance(name, p, q)) * whole]
        for one, (other,), scale in zip(got[len(rows) :], expected[len(rows) :], scales, strict=False):
            if cases.model(name) != "sphere":
                assert abs(mpf(one.item()) - other) <= allowed * scale + FLOOR, (x, y, scalars)
