"""Gradients: numerically, against float64, and against autograd on the guarded spellings."""

import pytest
import torch
from operator_cases import (
    HYPERBOLIC,
    LIMIT,
    LOW_RANK,
    NAMES,
    ROW_MAPS,
    arguments,
    declared,
    overload,
    points,
    relative,
    requiring,
    spelled,
)

from stonefx import ops


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck_twice(name):
    args = requiring(arguments(name, batch=(3,), dim=4))
    assert torch.autograd.gradcheck(overload(name), args)
    assert torch.autograd.gradgradcheck(overload(name), args)


@pytest.mark.parametrize("batches", [((2, 3), (3,), (2, 1)), ((1, 3), (2, 1), ()), ((3,), (2, 3), (3,))])
def test_gradcheck_of_broadcast_sums(batches):
    x, y = (points(*batch, 4, seed=i).requires_grad_() for i, batch in enumerate(batches[:2]))
    c = torch.full((*batches[2], 1), 0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(overload("mobius_add"), (x, y, c))


def gradients(function, args, grad):
    args = requiring(args)
    return torch.autograd.grad(function(*args), [a for a in args if a.requires_grad], grad)


@pytest.mark.parametrize("dim", [1, 2, 3, 17, 64, 1000])
@pytest.mark.parametrize("name", HYPERBOLIC)
def test_float32_gradients_against_float64(name, dim):
    args = arguments(name, torch.float32, batch=(33,), dim=dim)
    grad = torch.randn(33, dim, generator=torch.Generator().manual_seed(3))
    got = gradients(overload(name), args, grad)
    exact = gradients(declared(name).reference, [a.double() for a in args], grad.double())
    for one, other in zip(got, exact, strict=True):
        assert one.dtype == torch.float32
        assert relative(one, other) < 8 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("name", LOW_RANK)
def test_low_rank_gradients_are_those_of_two_linears(name):
    args = arguments(name, batch=(4, 3))
    grad = torch.randn(4, 3, 6, dtype=torch.float64)
    got = gradients(overload(name), args, grad)
    exact = gradients(declared(name).reference, args, grad)
    for one, other in zip(got, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-13)


RADIAL_GUARDS = [
    {},
    {"square_offset": 0.01},
    {"min_norm": 0.3},
    {"norm_offset": 0.05},
    {"min_scaled": 0.4},
    {"limit": 0.5},
    {"min_norm": 0.3, "norm_offset": 0.05, "min_scaled": 0.4, "limit": 0.6},
    {"square_offset": 0.1, "min_norm": 0.5, "limit": 0.45},
    {"separate": True},
    {"separate": True, "min_norm": 0.3},
    {"separate": True, "argument_min_norm": 0.3, "limit": 0.5},
    {"separate": True, "square_offset": 0.01, "argument_norm_offset": 0.05},
    {"separate": True, "min_scaled": 0.4, "argument_square_offset": 0.1, "argument_min_scaled": 0.3},
]


@pytest.mark.parametrize("guards", RADIAL_GUARDS, ids=str)
@pytest.mark.parametrize("name", ROW_MAPS)
def test_radial_guards_against_the_spelling(name, guards):
    options = {LIMIT[name] if key == "limit" else key: value for key, value in guards.items()}
    args = arguments(name, batch=(64,), dim=5)
    grad = torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    formula = spelled(name, options)
    torch.testing.assert_close(overload(name)(*args, **options), formula(*args), rtol=1e-13, atol=1e-15)
    got = gradients(lambda *a: overload(name)(*a, **options), args, grad)
    reference = gradients(lambda *a: declared(name).reference(*a, **options), args, grad)
    expected = gradients(formula, args, grad)
    for one, middle, other in zip(got, reference, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
        torch.testing.assert_close(middle, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "guards", [{}, {"min_denominator": 1.1}, {"denominator_offset": 1e-2}, {"max_radius": 0.5}], ids=str
)
def test_mobius_guards_against_the_spelling(guards):
    args = arguments("mobius_add", batch=(64,), dim=5)
    grad = torch.randn(64, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    formula = spelled("mobius_add", guards)
    torch.testing.assert_close(
        overload("mobius_add")(*args, **guards), formula(*args), rtol=1e-13, atol=1e-14
    )
    got = gradients(lambda *a: overload("mobius_add")(*a, **guards), args, grad)
    for one, other in zip(got, gradients(formula, args, grad), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ROW_MAPS)
def test_gradient_at_the_origin_is_the_identity(name, dtype):
    x, c = torch.zeros(2, 3, dtype=dtype), torch.tensor(0.7, dtype=dtype)
    grad = torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, 4.0]], dtype=dtype)
    grad_x, grad_c = gradients(overload(name), (x, c), grad)
    assert torch.equal(grad_x, grad)
    assert grad_c.item() == 0.0


@pytest.mark.parametrize("name", ROW_MAPS)
def test_nan_at_zero_is_what_division_by_zero_gives(name):
    x = torch.tensor([[0.0, 0.0], [0.1, 0.2]])
    y = overload(name)(x, torch.tensor(1.0), nan_at_zero=True)
    expected = spelled(name, {})(x, torch.tensor(1.0))
    assert y[0].isnan().all() and expected[0].isnan().all()
    torch.testing.assert_close(y[1], expected[1])
    grad_x, _ = gradients(lambda *a: overload(name)(*a, nan_at_zero=True), (x, torch.tensor(1.0)), x)
    assert grad_x[0].isnan().all() and grad_x[1].isfinite().all()


def test_gradients_are_asked_for_only_where_wanted():
    x, c = torch.randn(3, 4), torch.tensor(0.5)
    assert not ops.expmap0(x, c).requires_grad
    assert ops.expmap0(x, c.clone().requires_grad_()).requires_grad
    with torch.no_grad():
        assert not ops.expmap0(x.clone().requires_grad_(), c).requires_grad


def test_small_tangents_keep_the_gradient_of_the_curvature():
    """The derivative of tanh(u)/u is -2u/3 near 0, where the plain difference cancels."""
    x = torch.full((1, 2), 1e-5, dtype=torch.float64)
    c = torch.tensor(1.0, dtype=torch.float64)
    _, grad_c = gradients(overload("expmap0"), (x, c), torch.ones(1, 2, dtype=torch.float64))
    squares = 2e-10
    expected = -squares / 3 * 2e-5
    assert grad_c.item() == pytest.approx(expected, rel=1e-9)
