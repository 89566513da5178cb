"""The source of the CUDA kernels, run on threads of the host (`host_cuda/`), against the CPU kernels.

What only a device shows (launch limits, streams, speed) it cannot tell; wrong indices and sums it does.
"""

import ctypes
import shutil

import pytest
import torch
from host_cuda_library import host_cuda_library
from operator_cases import LIMIT, ROW_MAPS, overload, points, relative

ELEMENTS = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
# (rows, dim): one lane, parts of a warp, several warps, rows that do not fit in registers, a whole block
SHAPES = [(700, 3), (70, 8), (33, 16), (40, 64), (9, 131), (5, 1000), (4, 2056), (3, 5003)]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return host_cuda_library("exports.cpp", tmp_path_factory)


def pointer(tensor):
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def size(value):
    return ctypes.c_int64(value)


def agree(got, expected, dtype):
    # The same formulas, with sums in another order.
    bound = 4 * torch.finfo(dtype).eps
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype and relative(one, other) < bound


def agree_of_curvature(got, expected):
    """One number a row, an inner product whose terms may cancel: to the rounding of terms of size 1."""
    eps = torch.finfo(expected.dtype).eps
    torch.testing.assert_close(got, expected, rtol=16 * eps, atol=16 * torch.finfo(torch.float64).eps)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ROW_MAPS)
def test_radial_kernels(kernels, name, shape):
    rows, dim = shape
    guards = {"min_norm": 1e-3, "norm_offset": 1e-4, LIMIT[name]: 0.95}
    dtypes = list(ELEMENTS) if dim <= 64 else [torch.float32, torch.float16]
    for dtype in dtypes:
        x, grad = points(rows, dim, dtype=dtype), points(rows, dim, dtype=dtype, seed=5)
        c = torch.linspace(0.2, 1.0, rows, dtype=torch.float64).reshape(-1, 1)
        y, grad_x = torch.empty_like(x), torch.empty_like(x)
        grad_c = torch.empty(rows, 1, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        which, element = ROW_MAPS.index(name), ELEMENTS[dtype]
        for backward, results in ((0, (y, None)), (1, (grad_x, grad_c))):
            given = None if not backward else grad
            arrays = (pointer(x), pointer(given), *map(pointer, results), pointer(c))
            kernels.radial(which, backward, element, size(rows), size(dim), *arrays, size(1))
        agree([y], [overload(f"{name}_forward")(x, c, **guards)], dtype)
        expected = overload(f"{name}_backward")(grad, x, c, **guards)
        agree([grad_x], expected[:1], dtype)
        agree_of_curvature(grad_c, expected[1])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mobius_kernels(kernels, shape):
    rows, dim = shape
    guards = {"min_denominator": 1e-15, "denominator_offset": 1e-5, "max_radius": 0.6}
    dtypes = list(ELEMENTS) if dim <= 64 else [torch.float32, torch.float16]
    for dtype, repeated in [(d, r) for d in dtypes for r in (False, True)]:
        x, grad = points(rows, dim, dtype=dtype), points(rows, dim, dtype=dtype, seed=5)
        y = points(1 if repeated else rows, dim, dtype=dtype, seed=6)
        z, grad_x, grad_y = (torch.empty_like(x) for _ in range(3))
        grad_c = torch.empty(rows, 1, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        for backward, results in ((0, (z, None, None)), (1, (grad_x, grad_y, grad_c))):
            arrays = (pointer(x), pointer(y), size(0 if repeated else 1), pointer(grad if backward else None))
            outputs = map(pointer, results)
            kernels.mobius(
                backward, ELEMENTS[dtype], size(rows), size(dim), *arrays, *outputs, ctypes.c_double(0.7)
            )
        c = torch.tensor(0.7, dtype=torch.float64)
        agree([z], [overload("mobius_add_forward")(x, y, c, **guards)], dtype)
        expected = overload("mobius_add_backward")(grad, x, y, c, **guards)
        # Where the radius holds, the gradient's part along the row cancels: to the rounding of what came in.
        for one, other in zip((grad_x, grad_y), expected[:2], strict=True):
            error = (one.double() - other.double()).norm(dim=-1) / grad.double().norm(dim=-1)
            assert one.dtype == other.dtype and error.max() < 16 * torch.finfo(dtype).eps
        torch.testing.assert_close(
            grad_c, expected[2], rtol=1e-5 if dtype != torch.float64 else 1e-11, atol=1e-7
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_point_kernels(kernels, shape):
    rows, dim = shape
    dtypes = list(ELEMENTS) if dim <= 64 else [torch.float32]
    for dtype, radius, scale in [
        (d, r, s) for d in dtypes for r, s in ((1e308, 1.0), (0.5, 1.0), (1e308, 400.0))
    ]:
        v, grad = scale * points(rows, dim, dtype=dtype), points(rows, dim, dtype=dtype, seed=5)
        y, grad_v = torch.empty_like(v), torch.empty_like(v)
        grad_c = torch.empty(rows, 1, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        for backward, result in ((0, y), (1, grad_v)):
            arrays = map(pointer, (v, grad if backward else None, result, grad_c))
            numbers = ctypes.c_double(0.7), ctypes.c_double(radius)
            kernels.points(backward, ELEMENTS[dtype], size(rows), size(dim), *arrays, *numbers)
        c = torch.tensor(0.7, dtype=torch.float64)
        agree([y], [overload("point_of_distances_forward")(v, c, max_radius=radius)], dtype)
        expected = overload("point_of_distances_backward")(grad, v, c, max_radius=radius)
        # Far out the gradient of a point's length cancels: to the rounding of what came in.
        error = (grad_v.double() - expected[0].double()).norm(dim=-1) / grad.double().norm(dim=-1)
        assert error.max() < 16 * torch.finfo(dtype).eps
        torch.testing.assert_close(grad_c, expected[1], rtol=1e-4, atol=1e-4)
