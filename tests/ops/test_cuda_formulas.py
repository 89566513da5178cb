"""The CUDA kernels of row formulas, run on threads of the host as in test_cuda_source, against the CPU kernels."""

import ctypes

import pytest
import torch
from row_cases import overload, row_arguments
from test_cuda_source import ELEMENTS, kernels, pytestmark, size  # noqa: F401  (the fixture and the mark)
from test_nan_rows import LENGTHS, base, dependence, planted

from stonefx.ops import ROW_FORMULAS

# In the order of host_cuda/exports.cpp.
EXPORTED = (
    "expmap",
    "poincare_dist",
    "klein_add",
    "klein_dist",
    "sphere_dist",
    "mobius_matvec",
    "lorentz_inner",
    "lorentz_transport",
    "poincare_to_lorentz",
    "lorentz_expmap",
    "lorentz_dist",
    "mobius_scalar_mul",
)
# One lane a row and two, parts of a warp, several warps, and rows that a lane reads in several parts; so many rows of a
# warp, and of a block, that a group works on several before their coefficients.
SHAPES = [(70, 3), (40, 64), (9, 131), (3, 2056), (1, 8), (33, 16), (5, 1000), (258, 131), (33, 2056)]


def addresses(tensors, count):
    return (ctypes.c_void_p * count)(*(t.data_ptr() for t in tensors))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", EXPORTED)
def test_formula_kernels(kernels, name, shape):  # noqa: F811
    check(kernels, name, shape, 1.0)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["lorentz_transport", "lorentz_expmap", "lorentz_dist"])
def test_far_rows_next_to_near_ones(kernels, name, shape):  # noqa: F811
    check(kernels, name, shape, 10000.0)


def check(kernels, name, shape, scale):  # noqa: F811
    """Every third row multiplied by `scale`."""
    formula, (rows, dim) = ROW_FORMULAS[name], shape
    options = dict.fromkeys(formula.guards, 0.25)
    for dtype in (torch.float32, torch.float16):
        args = row_arguments(name, torch.float64, batch=(rows,), dim=dim)
        for vector in args[: len(formula.vectors)]:
            vector[::3] *= scale
        count = len(formula.vectors)
        args = [a.to(dtype) if i < count else a for i, a in enumerate(args)]
        expected = overload(f"{name}_forward")(*args, **options)
        grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
        result, grads = run(kernels, name, args, grad)
        # The same formulas, with sums in another order.
        eps = torch.finfo(dtype).eps
        torch.testing.assert_close(result, expected, rtol=2 * eps, atol=1e-6 * eps)
        for got, other in zip(grads, overload(f"{name}_backward")(grad, *args, **options), strict=True):
            torch.testing.assert_close(got, other, rtol=4 * torch.finfo(got.dtype).eps, atol=1e-6)


def run(kernels, name, args, grad):  # noqa: F811
    """The result and the gradients; every guard of the kernels is 0.25."""
    count, rows = len(ROW_FORMULAS[name].vectors), len(args[0])
    vectors, scalars, dtype = args[:count], args[count:], args[0].dtype
    result = torch.full_like(grad, torch.nan)
    grads = [torch.full_like(v, torch.nan) for v in vectors]
    numbers = [torch.full((rows, 1), torch.nan) for _ in scalars]
    widths = (ctypes.c_int64 * 3)(*(v.shape[-1] for v in vectors))
    width = grad.shape[-1] if grad.dim() > 1 else 1
    for backward in (0, 1):
        kernels.formula(
            *(EXPORTED.index(name), backward, ELEMENTS[dtype], size(rows), widths, size(width)),
            *(addresses(vectors, 3), addresses(scalars, 2)),
            ctypes.c_void_p(grad.data_ptr() if backward else None),
            ctypes.c_void_p(None if backward else result.data_ptr()),
            *(addresses(grads, 3), addresses(numbers, 2), len(args)),
        )
    return result, (*grads, *numbers)


@pytest.mark.parametrize("name", EXPORTED)
def test_nan_reaches_what_depends_on_it(kernels, name):  # noqa: F811
    first, second = dependence(name)
    formula = ROW_FORMULAS[name]
    for length in LENGTHS.values():
        rows, count = planted(base(name, length))
        args = [v.float() if i < len(formula.vectors) else v for i, v in enumerate(rows)]
        shape = formula.result_shape((count + 1,), args[0].shape[-1])
        grad = torch.randn(shape, generator=torch.Generator().manual_seed(4))
        result, grads = run(kernels, name, args, grad)
        assert result.reshape(count + 1, -1)[:count].isnan()[first.T].all(), (name, length)
        # A bound that holds lets no gradient through, of NaN neither.
        if not formula.guards:
            assert torch.cat([g.double() for g in grads], -1)[:count].isnan()[second.T].all(), (name, length)
