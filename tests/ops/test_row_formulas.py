"""Every operator of row formulas against its reference: values, gradients, dtypes, shapes, guards."""

import math

import pytest
import torch
from operator_cases import DTYPES, requiring
from row_cases import GUARDED, NAMES, agree, guards, overload, row_arguments
from torch.library import opcheck
from torch.nn import functional

from stonefx.ops import ROW_FORMULAS


def numbers(grad):
    """One gradient for each row of numbers: compared over all rows, since each may cancel."""
    return grad.reshape(-1)


@pytest.mark.parametrize("dim", [1, 2, 17])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name, dim):
    if dim == 1 and name in ("sphere_logmap", "sphere_geodesic"):
        pytest.skip("two points of the sphere in one dimension are equal or antipodes")
    formula, args = ROW_FORMULAS[name], row_arguments(name, batch=(41,), dim=dim)
    for options in [{}, guards(name)] if name in GUARDED else [{}]:
        result = overload(name)(*args, **options)
        torch.testing.assert_close(result, formula.evaluate(*args, **options), rtol=1e-12, atol=1e-13)
        assert torch.equal(overload(f"{name}_forward")(*args, **options), result)
        grad = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
        got = overload(f"{name}_backward")(grad, *args, **options)
        for one, other in zip(got, formula.gradients(grad, *args, **options), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", GUARDED)
def test_each_guard_alone(name):
    """What one guard does must not depend on another that is off."""
    formula, args = ROW_FORMULAS[name], row_arguments(name, batch=(41,))
    for label, value in guards(name).items():
        option = {label: value}
        result = overload(name)(*args, **option)
        torch.testing.assert_close(result, formula.evaluate(*args, **option), rtol=1e-12, atol=1e-13)
        grad = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
        got = overload(f"{name}_backward")(grad, *args, **option)
        for one, other in zip(got, formula.gradients(grad, *args, **option), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("r", [-40.0, -0.3, 0.0, 1e-9, 2.5, 1e4])
def test_multiples_at_every_length(r):
    """Scalar multiplication composes no other formulas: at 0, near it, near the boundary; any multiple."""
    lengths = torch.tensor([0.0, 1e-30, 1e-9, 1e-3, 0.24, 0.26, 0.7, 0.999, 1 - 1e-6], dtype=torch.float64)
    x = lengths[:, None] * functional.normalize(torch.arange(1.0, 6.0, dtype=torch.float64), dim=0)
    formula, args = ROW_FORMULAS["mobius_scalar_mul"], (x, x.new_tensor(1.0), x.new_tensor(r))
    agree(overload("mobius_scalar_mul")(*args), formula.evaluate(*args), 1e-13 + 1e-15 * abs(r))
    grad = torch.randn(x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    got = overload("mobius_scalar_mul_backward")(grad, *args)
    expected = formula.gradients(grad, *args)
    for one, other in zip(got, expected, strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9 * other.abs().max().item())


@pytest.mark.parametrize("name", ["poincare_dist", "poincare_dist0"])
def test_distances_at_every_length(name):
    """Near the origin, near the boundary, on it and beyond: infinite there, unless artanh is held at its limit."""
    lengths = torch.tensor([0.0, 1e-140, 1e-9, 0.3, 1 - 1e-12, 1.0, 1.5], dtype=torch.float64)
    x = lengths[:, None] * torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    formula, one = ROW_FORMULAS[name], x.new_tensor(1.0)
    args = (x, one) if name == "poincare_dist0" else (torch.zeros_like(x), x, one)
    result = overload(name)(*args)
    expected = [0.0, 2e-140, 2e-9, 2 * math.atanh(0.3), 2 * math.atanh(1 - 1e-12), math.inf, math.inf]
    torch.testing.assert_close(result, x.new_tensor(expected), rtol=1e-5, atol=0)
    torch.testing.assert_close(result[:4], x.new_tensor(expected[:4]), rtol=1e-15, atol=0)
    held = overload(name)(*args, atanh_limit=0.9)
    torch.testing.assert_close(held, formula.evaluate(*args, atanh_limit=0.9), rtol=1e-15, atol=0)
    assert (held[4:] == held[4]).all() and math.isclose(held[4].item(), 2 * math.atanh(0.9), rel_tol=1e-15)
    for grad in overload(f"{name}_backward")(torch.ones_like(held), *args, atanh_limit=0.9):
        assert grad.isfinite().all()


@pytest.mark.parametrize("offset", [0.0, 1e-5])
@pytest.mark.parametrize(("first", "second"), [(1.2, 0.3), (1.2, 1.5), (20.0, 1.001)])
def test_beyond_the_boundary_a_formula_is_what_it_says(first, second, offset):
    """With no `min_gap`: of two points beyond it artanh(u) has u < 1, and the conformal factor is negative."""
    x, y = torch.tensor([[first, 0.0, 0.0], [0.0, second, 0.0]], dtype=torch.float64)[:, None]
    one = x.new_tensor(1.0)
    below = 1 + first**2 * second**2
    u = math.sqrt((first**2 + second**2) * below) / (below + offset)
    options = {"denominator_offset": offset, "atanh_limit": 0.99}
    result = overload("poincare_dist")(x, y, one, **options)
    agree(result, ROW_FORMULAS["poincare_dist"].evaluate(x, y, one, **options), 1e-12)
    assert math.isclose(result.item(), 2 * math.atanh(min(u, 0.99)), rel_tol=1e-11)
    factor = overload("conformal_factor")(x, one).item()
    assert math.isclose(factor, 2 / (1 - first**2), rel_tol=1e-14)


# Rounding of the time component of a tangent vector's combination is bounded by its terms, not by the sum.
@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_narrower_dtypes(name, dtype):
    formula, args = ROW_FORMULAS[name], row_arguments(name, dtype, batch=(37,), dim=17)
    wide, eps = [a.double() for a in args], torch.finfo(dtype).eps
    result = overload(name)(*args)
    assert result.dtype == dtype
    agree(result, formula.evaluate(*wide), 2 * eps)
    grad = torch.randn(result.shape, generator=torch.Generator().manual_seed(5)).to(dtype)
    got = overload(f"{name}_backward")(grad, *args)
    expected = formula.gradients(grad.double(), *wide)
    count = len(formula.vectors)
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        assert one.dtype == (dtype if index < count else torch.float32)
        if index < count:
            agree(one, other, 4 * eps)
        else:
            agree(numbers(one), numbers(other), 4 * torch.finfo(torch.float32).eps)


# One operator for each layout of operands; what else opcheck looks at is the same code for all.
OF_EACH_LAYOUT = (
    "expmap",
    "poincare_dist",
    "mobius_matvec",
    "poincare_geodesic",
    "lorentz_transport",
    "lorentz_inner",
)


@pytest.mark.parametrize("name", NAMES)
def test_schema_and_fake(name):
    args, options = row_arguments(name, torch.float32, batch=(3,), dim=4), guards(name)
    grad = torch.randn_like(overload(name)(*args, **options))
    for suffix, operands in (("", args), ("_forward", args), ("_backward", (grad, *args))):
        opcheck(overload(name + suffix), operands, options, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("name", OF_EACH_LAYOUT)
def test_opcheck(name):
    args, options = row_arguments(name, torch.float32, batch=(3,), dim=4), guards(name)
    opcheck(overload(name), requiring(args), options)
    opcheck(
        overload(f"{name}_backward"), (torch.randn_like(overload(name)(*args, **options)), *args), options
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_of_all(name):
    args, options = row_arguments(name, torch.float32, batch=(3,), dim=4), guards(name)
    opcheck(overload(name), requiring(args), options)
    grad = torch.randn_like(overload(name)(*args, **options))
    opcheck(overload(f"{name}_backward"), requiring((grad, *args)), options)


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    args = requiring(row_arguments(name, batch=(2,), dim=3))
    assert torch.autograd.gradcheck(overload(name), args, fast_mode=True)
    if name in OF_EACH_LAYOUT:
        assert torch.autograd.gradgradcheck(overload(name), args, fast_mode=True)


@pytest.mark.parametrize("name", NAMES)
def test_batches_broadcast(name):
    formula = ROW_FORMULAS[name]
    args = list(row_arguments(name, batch=(4, 3), dim=6))
    count = len(formula.vectors)
    if count > 1:
        args[1] = args[1][0]  # [3, dim] against [4, 3, dim]
    if count > 2:
        args[2] = args[2][:, :1]
    for index in range(count, len(args)):
        args[index] = args[index][:, :1] if index == count else args[index][0, 0]
    result = overload(name)(*args)
    torch.testing.assert_close(result, formula.evaluate(*args), rtol=1e-12, atol=1e-13)
    leaves = requiring(args)
    grad = torch.randn(result.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    got = torch.autograd.grad(overload(name)(*leaves), leaves, grad)
    # a geodesic of the sphere does not depend on the curvature
    expected = torch.autograd.grad(
        formula.evaluate(*leaves), leaves, grad, allow_unused=True, materialize_grads=True
    )
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("batch", [(), (0,), (2, 0), (1,), (700,)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_batches(name, batch):
    scalars = [torch.tensor(0.5, dtype=torch.float64)] * len(ROW_FORMULAS[name].scalars)
    args = row_arguments(name, batch=batch, scalars=scalars)
    result = overload(name)(*args)
    torch.testing.assert_close(result, ROW_FORMULAS[name].evaluate(*args), rtol=1e-12, atol=1e-13)
    grads = overload(f"{name}_backward")(torch.ones_like(result), *args)
    assert [g.shape for g in grads[: len(ROW_FORMULAS[name].vectors)]] == [
        (*batch, a.shape[-1]) for a in args[: len(ROW_FORMULAS[name].vectors)]
    ]


@pytest.mark.parametrize("mapped", [0, 1, -1, None])
@pytest.mark.parametrize("name", NAMES)
def test_vmap(name, mapped):
    args = list(
        row_arguments(name, batch=(4,), scalars=[torch.tensor(0.6)] * len(ROW_FORMULAS[name].scalars))
    )
    grad = torch.randn(overload(name)(*args).shape, dtype=torch.float64)
    chosen = range(len(args)) if mapped is None else [mapped % len(args)]
    in_dims = tuple(args[i].dim() if i in chosen else None for i in range(len(args)))
    factors = torch.linspace(0.8, 1, 3, dtype=torch.float64)
    args = [a.unsqueeze(-1) * factors if d is not None else a for a, d in zip(args, in_dims, strict=True)]
    got = torch.vmap(overload(name), in_dims)(*args)
    expected = torch.vmap(ROW_FORMULAS[name].evaluate, in_dims)(*args)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    got = torch.vmap(overload(f"{name}_backward"), (None, *in_dims))(grad, *args)
    expected = torch.vmap(ROW_FORMULAS[name].gradients, (None, *in_dims))(grad, *args)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_strides_do_not_matter(name):
    args = row_arguments(name, batch=(6,))
    strided = tuple(torch.stack([a, a], -1)[..., 0] for a in args)
    assert torch.equal(overload(name)(*strided), overload(name)(*args))


def test_threads_divide_the_rows():
    args = row_arguments("logmap", torch.float32, batch=(3001,), dim=64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = overload("logmap")(*args)
        torch.set_num_threads(2)
        assert torch.equal(overload("logmap")(*args), alone)
    finally:
        torch.set_num_threads(threads)
