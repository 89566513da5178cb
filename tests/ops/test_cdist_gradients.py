"""Gradients of distance matrices: numerically, against float64, at coincident points, and guarded."""

import pytest
import torch
from cdist_cases import NAMES, operands, space
from operator_cases import module, overload, relative, requiring


def gradients(function, args, grad):
    args = requiring(args)
    return torch.autograd.grad(function(*args), args, grad)


def weights(*shape, seed=5):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck_twice(name):
    args = requiring(operands(name, rows=3, columns=2, dim=3))
    assert torch.autograd.gradcheck(overload(name), args)
    assert torch.autograd.gradgradcheck(overload(name), args)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 3, 4, 5), (3, 2, 5), (3, 1, 1)),
        ((4, 5), (2, 3, 5), ()),
        ((2, 1, 4, 5), (1, 3, 2, 5), (2, 3, 1, 1)),
    ],
)
def test_gradcheck_of_batches_that_broadcast(name, shapes):
    x, y, _ = operands(name, rows=1, columns=1, dim=space(name, 5))
    x, y = (
        p.expand(shape) * torch.linspace(0.3, 1, shape[-2], dtype=p.dtype)[:, None]
        for p, shape in zip((x, y), shapes[:2], strict=True)
    )
    c = torch.rand(shapes[2], dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.2
    args = requiring((x.contiguous(), y.contiguous(), c))
    assert torch.autograd.gradcheck(overload(name), args)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (70, 3, 5), (3, 131, 64), (66, 70, 300)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_against_autograd_on_the_reference(name, shape, dtype):
    rows, columns, dim = shape
    x, y, c = operands(name, dtype, rows=rows, columns=columns, dim=dim)
    grad = weights(rows, columns).to(dtype)
    got = gradients(overload(name), (x, y, c), grad)
    exact = gradients(module(name).reference, (x.double(), y.double(), c), grad.double())
    narrow = module(name).gradients(grad.double(), x.double(), y.double(), c)
    for one, other, explicit, operand in zip(got, exact, narrow, (x, y, c), strict=True):
        assert one.dtype == operand.dtype
        # sums of hundreds of pairs of either sign
        assert relative(one, other) < 16 * max(torch.finfo(dtype).eps, 2e-15)
        torch.testing.assert_close(explicit.reshape(other.shape), other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"min_alpha": 0.6},
        {"atanh_limit": 0.5},
        {"min_alpha": 0.5, "atanh_limit": 0.7},
        {"denominator_offset": 0.05},
        {"min_denominator": 0.9},
        {"min_denominator": 0.8, "denominator_offset": 0.02, "min_alpha": 0.4, "atanh_limit": 0.8},
    ],
    ids=str,
)
def test_guards_against_autograd_on_the_reference(options):
    x, y, c = operands("poincare_cdist", rows=20, columns=30)
    grad = weights(20, 30)
    torch.testing.assert_close(
        overload("poincare_cdist")(x, y, c, **options), module("poincare_cdist").reference(x, y, c, **options)
    )
    got = gradients(lambda *a: overload("poincare_cdist")(*a, **options), (x, y, c), grad)
    exact = gradients(lambda *a: module("poincare_cdist").reference(*a, **options), (x, y, c), grad)
    plain = gradients(overload("poincare_cdist"), (x, y, c), grad)
    for one, other, unguarded in zip(got, exact, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
        assert not torch.allclose(one, unguarded, rtol=1e-3)
    for one, other in zip(module("poincare_cdist").gradients(grad, x, y, c, **options), exact, strict=True):
        torch.testing.assert_close(one.reshape(other.shape), other, rtol=1e-11, atol=1e-12)


DENOMINATORS = [
    {"denominator_offset": 1e-5},
    {"min_denominator": 0.7},
    {"min_denominator": 0.5, "denominator_offset": 0.1},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("options", DENOMINATORS, ids=str)
def test_denominators_are_those_of_the_operator_on_rows(options, dtype):
    """`poincare_dist` on all pairs; sizes that fill no tile, and pairs that are near and equal."""
    x, y, c = operands("poincare_cdist", dtype, rows=70, columns=131, dim=9)
    y[:3] = x[:3]
    if dtype.itemsize >= 4:
        y[3:6] = x[3:6] * (1 + 64 * torch.finfo(dtype).eps)
    eps, wide = torch.finfo(dtype).eps, (x.double(), y.double(), c)

    def by_rows(x, y, c):
        return overload("poincare_dist")(x.unsqueeze(-2), y.unsqueeze(-3), c, **options)

    exact = by_rows(*wide)
    got = overload("poincare_cdist")(x, y, c, **options)
    torch.testing.assert_close(got.double(), exact, rtol=8 * max(eps, 1e-15), atol=1e-300)
    grad = weights(70, 131).to(dtype)
    apart = (exact > 0) & (exact > 1e-3 * exact.max())  # the cusp of equal points has gradient 0 in both
    grad = torch.where(apart, grad, 0)
    own = gradients(lambda *a: overload("poincare_cdist")(*a, **options), (x, y, c), grad)
    for one, other in zip(own, gradients(by_rows, wide, grad.double()), strict=True):
        assert relative(one, other) < 32 * max(eps, 2e-15)


@pytest.mark.parametrize("options", DENOMINATORS, ids=str)
def test_gradcheck_twice_with_denominators(options):
    args = requiring(operands("poincare_cdist", rows=3, columns=2, dim=3))
    assert torch.autograd.gradcheck(lambda *a: overload("poincare_cdist")(*a, **options), args)
    assert torch.autograd.gradgradcheck(lambda *a: overload("poincare_cdist")(*a, **options), args)


def test_equal_and_boundary_points_with_denominators():
    x = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])  # the first on the boundary, to rounding
    grad_x, grad_y, grad_c = gradients(
        lambda *a: overload("poincare_cdist")(*a, min_alpha=1e-7, denominator_offset=1e-5),
        (x, x.clone(), torch.tensor(1.0)),
        torch.ones(3, 3),
    )
    assert all(torch.isfinite(g).all() for g in (grad_x, grad_y, grad_c))
    alone = gradients(
        lambda *a: overload("poincare_cdist")(*a, denominator_offset=1e-5),
        (x[1:2], x[1:2].clone(), torch.tensor(1.0)),
        torch.ones(1, 1),
    )
    assert not any(g.any() for g in alone)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_coincident_points_have_gradient_zero(name, dtype):
    x, _, c = operands(name, dtype, rows=1, dim=4)
    grad_x, grad_y, grad_c = gradients(overload(name), (x, x.clone(), c), torch.ones(1, 1, dtype=dtype))
    assert not grad_x.any() and not grad_y.any() and not grad_c.any()


def test_unit_gradient_of_near_duplicates_in_float32():
    """The gradient has the length 2 / alpha, however near the points are."""
    x = torch.tensor([[0.99, 0.0]])
    for step in (1e-6, 1e-12, 1e-20, 1e-30):
        y = x.clone()
        y[0, 1] = step
        grad_x, grad_y, _ = gradients(overload("poincare_cdist"), (x, y, torch.tensor(1.0)), torch.ones(1, 1))
        alpha = 1 - x[0, 0].double().item() ** 2
        assert grad_y[0, 1].item() == pytest.approx(2 / alpha, rel=1e-4)
        assert grad_x[0, 1].item() == pytest.approx(-2 / alpha, rel=1e-4)


def test_small_points_keep_the_gradient_of_the_curvature():
    x = torch.tensor([[1e-4, 0.0]], dtype=torch.float64)
    y = torch.tensor([[0.0, 2e-4]], dtype=torch.float64)
    c = torch.tensor(1.0, dtype=torch.float64)
    for dtype, bound in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        operator = gradients(
            overload("poincare_cdist"), (x.to(dtype), y.to(dtype), c), torch.ones(1, 1, dtype=dtype)
        )[2]
        # d = 2 |x-y| (1 + c (||x||^2 + ||y||^2) / 2 - c |x-y|^2 / 6 + ...)
        expected = 2 * 5e-8**0.5 * (5e-8 / 2 - 5e-8 / 6)
        assert operator.item() == pytest.approx(expected, rel=max(bound, 1e-6))
