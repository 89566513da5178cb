"""The CUDA kernels that need scratch memory, run on threads of the host as in test_cuda_source, against the CPU's."""

import ctypes

import pytest
import torch
from host_cuda_library import host_cuda_library
from operator_cases import overload, points, relative
from test_cuda_source import ELEMENTS, pointer, pytestmark, size  # noqa: F401  (the mark)

C = 0.7
CURVATURE = torch.tensor(C, dtype=torch.float64)
DTYPES = list(ELEMENTS)
MODELS = ("poincare", "lorentz", "klein")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return host_cuda_library("exports_scratch.cpp", tmp_path_factory)


def empty(*shape, dtype=torch.float32):
    return torch.full(shape, torch.nan, dtype=dtype)


def compute(dtype):
    return torch.float64 if dtype == torch.float64 else torch.float32


def double(value):
    return ctypes.c_double(value)


def agree(got, expected, dtype, bound=8):
    """To the rounding of sums in another order, relative to the largest entry."""
    assert got.dtype == expected.dtype and got.shape == expected.shape
    assert relative(got.reshape(-1), expected.reshape(-1)) < bound * torch.finfo(dtype).eps


def on_model(model, *shape, dtype, seed):
    rows = (
        points(torch.Size(shape[:-1]).numel(), shape[-1], dtype=torch.float64, seed=seed).reshape(shape) * 0.9
    )
    if model == "lorentz":
        time = (rows.square().sum(-1, keepdim=True) + 1 / C).sqrt()
        rows = torch.cat([time, rows], -1)
    return rows.to(dtype)


DENOMINATORS = {"min_denominator": 0.6, "denominator_offset": 0.01}
CDISTS = {
    "poincare": ("poincare", {"min_alpha": 1e-7, "atanh_limit": 0.999}),
    "poincare, denominators": ("poincare", DENOMINATORS),
    "poincare, products": ("poincare", {"min_alpha": 1e-7, "atanh_limit": 0.999}),
    "poincare, products, denominators": ("poincare", DENOMINATORS),
    "klein": ("klein", {"min_alpha": 1e-7}),
    "lorentz": ("lorentz", {}),
}


def guards(options):
    none = {"min_alpha": 0.0, "atanh_limit": 1e308, "min_denominator": 0.0, "denominator_offset": 0.0}
    return tuple(double(value) for value in (none | options).values())


# (matrices, rows, columns, dim): one tile, a part of one, several, and more entries than fit at once
TILE, PART, SEVERAL = (1, 64, 64, 16), (2, 3, 5, 2), (1, 70, 129, 19)
CDIST_SHAPES = [
    *((case, shape) for case in ("poincare", "klein", "lorentz") for shape in (TILE, PART, SEVERAL)),
    *((case, PART) for case in CDISTS if "," in case),
    ("poincare, products, denominators", SEVERAL),
]


@pytest.mark.parametrize(("case", "shape"), CDIST_SHAPES, ids=str)
def test_cdist_kernels(kernels, case, shape):
    model, options = CDISTS[case]
    batch, rows, columns, dim = shape
    for dtype in DTYPES if rows < 60 else (torch.float32,):
        x, y = (
            on_model(model, batch, rows, dim, dtype=dtype, seed=1),
            on_model(model, columns, dim, dtype=dtype, seed=2),
        )
        products = "products" in case
        if not products:
            y[0] = x[0, 0]  # a coincident pair
            y[-1] = x[0, 1] * 1.0001
        product = x.to(compute(dtype)) @ y.to(compute(dtype)).mT if products else None
        grad_product = torch.full_like(product, torch.nan) if products else None
        width = x.shape[-1]
        result, grad_x, grad_y = (
            empty(batch, rows, columns, dtype=dtype),
            torch.empty_like(x),
            empty(batch, columns, width, dtype=dtype),
        )
        terms = empty(batch, rows + columns, dtype=torch.float64)
        grad = points(batch * rows, columns, dtype=dtype, seed=5).reshape(batch, rows, columns)
        sizes = (ELEMENTS[dtype], MODELS.index(model), *map(size, (batch, rows, columns, width)))
        for backward, outputs in ((0, (result, None, None)), (1, (grad_x, grad_y, terms))):
            arrays = (
                pointer(x),
                pointer(y),
                size(0),
                pointer(product),
                pointer(grad if backward else None),
                *map(pointer, outputs),
                pointer(grad_product if backward else None),
            )
            kernels.cdist(backward, *sizes, *arrays, double(C), *guards(options))
        name = f"{model}_cdist" + ("_epilogue" if products else "")
        operands = (product, x, y, CURVATURE) if products else (x, y, CURVATURE)
        agree(result, overload(f"{name}_forward")(*operands, **options), dtype)
        expected = overload(f"{name}_backward")(grad, *operands, **options)
        got = (grad_product, grad_x, grad_y) if products else (grad_x, grad_y)
        for one, other in zip(got, expected[:-1], strict=True):
            agree(one, other, dtype, 32)
        of_c = terms.sum(-1, keepdim=True).unsqueeze(-1).to(expected[-1].dtype)
        torch.testing.assert_close(of_c, expected[-1], rtol=1e-4, atol=1e-3)


def test_cdist_kernels_far_apart_in_size(kernels):
    """Squared distances that float32 cannot hold are formed in float64, as on the CPU."""
    x = torch.tensor([[[1e-25, 0.0], [0.5, 0.1]]])
    y = torch.tensor([[0.0, 3e-26], [0.5, 0.1]])
    result = empty(1, 2, 2)
    none = pointer(None)
    arrays = (pointer(x), pointer(y), size(0), none, none, pointer(result), none, none, none)
    kernels.cdist(0, 0, 0, *map(size, (1, 2, 2, 2)), *arrays, double(C), *guards({}))
    expected = overload("poincare_cdist_forward")(x, y, CURVATURE)
    assert 0 < result[0, 0, 0] < 1e-24
    torch.testing.assert_close(result, expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("shape", [(5, 7, 2), (66, 3, 9)], ids=str)
def test_cdist_kernels_of_far_pairs_of_the_hyperboloid(kernels, shape):
    rows, columns, dim = shape
    for dtype in (torch.float32, torch.float64):
        x = on_model("lorentz", 1, rows, dim, dtype=torch.float64, seed=1)
        x[..., 1:] *= 10.0 ** torch.linspace(0, 25, rows, dtype=torch.float64)[:, None]
        y = on_model("lorentz", columns, dim, dtype=torch.float64, seed=2)
        y[:, 1:] = x[0, :1, 1:] * 10.0 ** torch.linspace(0, 22, columns, dtype=torch.float64)[:, None]
        x[0, ::2, 1:] = (
            x[0, :1, 1:] * 10.0 ** torch.linspace(1, 24, len(x[0, ::2]), dtype=torch.float64)[:, None]
        )
        x, y = x.to(dtype), y.to(dtype)
        grad = points(rows, columns, dtype=dtype, seed=5)[None]
        result, grad_x, grad_y = (
            empty(1, rows, columns, dtype=dtype),
            torch.empty_like(x),
            torch.empty_like(y)[None],
        )
        terms = empty(1, rows + columns, dtype=torch.float64)
        sizes = (ELEMENTS[dtype], MODELS.index("lorentz"), *map(size, (1, rows, columns, dim + 1)))
        none = pointer(None)
        for backward, outputs in ((0, (result, None, None)), (1, (grad_x, grad_y, terms))):
            upstream = pointer(grad if backward else None)
            arrays = (pointer(x), pointer(y), size(0), none, upstream, *map(pointer, outputs), none)
            kernels.cdist(backward, *sizes, *arrays, double(C), *guards({}))
        agree(result, overload("lorentz_cdist_forward")(x, y, CURVATURE), dtype)
        expected = overload("lorentz_cdist_backward")(grad, x, y, CURVATURE)
        agree(grad_x, expected[0], dtype, 64)
        agree(grad_y, expected[1], dtype, 64)
        torch.testing.assert_close(
            terms.sum().to(expected[2].dtype), expected[2][0, 0, 0], rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("shape", [(130, 5, 3), (5, 300, 17), (3, 40, 1100)], ids=str)
def test_hyperplane_kernels(kernels, shape):
    rows, planes, dim = shape
    for dtype in DTYPES:
        x = points(rows, dim, dtype=dtype, seed=1)
        product = points(rows, planes, dtype=dtype, seed=2) * 3
        grad = points(rows, planes, dtype=dtype, seed=3)
        offset, scale = (points(1, planes, dtype=dtype, seed=seed)[0] for seed in (4, 5))
        result, grad_product, grad_x = (
            torch.empty_like(product),
            torch.empty_like(product),
            torch.empty_like(x),
        )
        partial = empty((rows + 63) // 64, 2, planes, dtype=compute(dtype))
        grad_c = empty(rows, 1, dtype=compute(dtype))
        for backward, outputs in (
            (0, (result, None, None, None)),
            (1, (grad_product, grad_x, partial, grad_c)),
        ):
            arrays = map(pointer, (product, x, offset, scale, grad if backward else None, *outputs))
            kernels.hyperplanes(
                backward, ELEMENTS[dtype], *map(size, (rows, planes, dim)), *arrays, double(C), double(1e-7)
            )
        operands = (product, x, offset, scale, CURVATURE)
        agree(result, overload("poincare_hyperplanes_forward")(*operands, min_alpha=1e-7), dtype)
        expected = overload("poincare_hyperplanes_backward")(grad, *operands, min_alpha=1e-7)
        sums = partial.sum(0)
        for got, other in zip((grad_product, grad_x, *sums, grad_c), expected, strict=True):
            agree(got.to(other.dtype), other, dtype, 32)


# (rows, in, out): a lane each, parts of a warp, a whole block; and whole packs of 16 bytes, of which a lane keeps one,
# some or too many, with more rows than a block takes, and fewer
LINEARS = [
    (270, 3, 2),
    (9, 33, 64),
    (3, 1100, 7),
    (600, 8, 16),
    (300, 24, 128),
    (70, 512, 248),
    (37, 16, 520),
    (5, 2048, 1040),
    (3, 64, 2056),
]


@pytest.mark.parametrize("shape", LINEARS, ids=str)
@pytest.mark.parametrize("adds", [False, True], ids=["no bias", "bias"])
def test_poincare_linear_kernels(kernels, adds, shape):
    rows, width, out = shape
    for dtype in DTYPES:
        x = points(rows, width, dtype=dtype, seed=1)
        product = points(rows, out, dtype=dtype, seed=2) * 2
        bias = points(1, out, dtype=dtype, seed=3)[0] if adds else None
        grad = points(rows, out, dtype=dtype, seed=4)
        y, grad_product, grad_x = torch.empty_like(product), torch.empty_like(product), torch.empty_like(x)
        grad_bias, grad_c = empty(out if adds else 0, dtype=dtype), empty(rows, 1, dtype=compute(dtype))
        for backward, outputs in ((0, (y, None, None, None)), (1, (grad_product, grad_x, grad_bias, grad_c))):
            arrays = map(pointer, (x, product, bias, grad if backward else None, *outputs))
            kernels.poincare_linear(
                backward, ELEMENTS[dtype], *map(size, (rows, width, out)), *arrays, double(C), double(0.8)
            )
        operands, options = (x, product, bias, CURVATURE), {"project_limit": 0.8}
        agree(y, overload("poincare_linear_epilogue_forward")(*operands, **options), dtype)
        expected = overload("poincare_linear_epilogue_backward")(grad, *operands, **options)
        for got, other in zip((grad_x, grad_product, grad_bias, grad_c), expected, strict=True):
            if other.numel():
                agree(got, other, dtype, 32)


@pytest.mark.parametrize("shape", [(70, 3), (40, 64), (3, 2056)], ids=str)
def test_add_time_kernels(kernels, shape):
    rows, dim = shape
    for dtype in DTYPES:
        space, grad = points(rows, dim, dtype=dtype, seed=1), points(rows, dim + 1, dtype=dtype, seed=2)
        y, grad_space = empty(rows, dim + 1, dtype=dtype), torch.empty_like(space)
        grad_c = empty(rows, 1, dtype=compute(dtype))
        for backward, outputs in ((0, (y, None)), (1, (grad_space, grad_c))):
            arrays = map(pointer, (space, grad if backward else None, *outputs))
            kernels.add_time(backward, ELEMENTS[dtype], *map(size, (rows, dim)), *arrays, double(C))
        agree(y, overload("add_time_forward")(space, CURVATURE), dtype)
        expected = overload("add_time_backward")(grad, space, CURVATURE)
        for got, other in zip((grad_space, grad_c), expected, strict=True):
            agree(got, other, dtype)


# (rows, dim, stages): rows of all lengths, of which a block takes many, a few or one, and one that fits in no memory of
# a block; parts of what a block takes; no stage, a broken cycle, a whole one, more
BUTTERFLIES = [
    (300, 2, 1),
    (70, 8, 5),
    (600, 16, 9),
    (300, 32, 6),
    (130, 64, 6),
    (70, 128, 0),
    (3, 256, 12),
    (37, 512, 4),
    (9, 1024, 23),
    (5, 2048, 3),
    (2, 4096, 13),
    (3, 8192, 13),
    (1, 16384, 2),
]


@pytest.mark.parametrize("shape", BUTTERFLIES, ids=str)
@pytest.mark.parametrize("hyperbolic", [False, True], ids=["butterfly", "hyper_butterfly"])
def test_butterfly_kernels(kernels, hyperbolic, shape):
    rows, dim, stages = shape
    for dtype in DTYPES if dim < 600 else (torch.float32, torch.bfloat16):
        x, grad = points(rows, dim, dtype=dtype, seed=1), points(rows, dim, dtype=dtype, seed=2)
        angle = points(stages, dim // 2, dtype=torch.float64, seed=3)
        weight = torch.stack([1.1 * angle.cos(), angle.sin()], -1).to(dtype)
        y, grad_x = torch.empty_like(x), torch.empty_like(x)
        grad_weight, grad_c = torch.empty_like(weight), empty(rows, 1, dtype=compute(dtype))
        for backward, outputs in ((0, (y, None, None)), (1, (grad_x, grad_weight, grad_c))):
            arrays = map(pointer, (x, weight, grad if backward else None, *outputs))
            sizes = map(size, (rows, dim, stages))
            kernels.butterfly(backward, ELEMENTS[dtype], *sizes, *arrays, int(hyperbolic), double(C))
        name, operands, options = "butterfly", (x, weight), {}
        if hyperbolic:
            name, operands = "hyper_butterfly", (x, weight, CURVATURE)
            options = {"atanh_limit": 0.95, "tanh_limit": 3.0}
        agree(y, overload(f"{name}_forward")(*operands, **options), dtype, 16)
        expected = overload(f"{name}_backward")(grad, *operands, **options)
        for got, other in zip((grad_x, grad_weight), expected[:2], strict=True):
            if other.numel():
                agree(got, other, dtype, 32)
        if hyperbolic:  # without a stage the maps cancel, and what is left is rounding of terms of size 1
            bound = (
                32 * torch.finfo(dtype).eps * expected[2].abs().max() + 16 * torch.finfo(torch.float64).eps
            )
            assert (grad_c - expected[2]).abs().max() <= bound


# rows, count: one lane, packs of 16 bytes and parts of one, more than a warp, a whole block
@pytest.mark.parametrize("shape", [(700, 3), (70, 8), (9, 131), (5, 1024), (3, 5003)], ids=str)
@pytest.mark.parametrize("added", ["nothing", "bias", "target"])
def test_columns_in_another_order(kernels, added, shape):
    """Source rows in two parts, the second of which begins elsewhere, and a column that is in neither."""
    rows, count = shape
    split, shift, limit = count // 3, 5, count + 2
    generator = torch.Generator().manual_seed(4)
    columns = torch.randperm(limit, generator=generator).int()[:count]
    for dtype in DTYPES:
        source, target = points(rows, limit + shift, dtype=dtype), points(rows, count, dtype=dtype, seed=1)
        bias = points(count, dtype=dtype, seed=2)
        gap = list(range(split)) + list(range(split + shift, limit + shift))
        expected = source[:, gap][:, columns.long()]
        expected = {"nothing": expected, "bias": expected + bias, "target": expected + target}[added]
        for outside in (-1, limit):
            given, got = columns.clone(), target.clone()
            given[count // 2] = outside
            kernels.take(
                ELEMENTS[dtype],
                *map(size, (rows, count, source.shape[1], count)),
                *map(pointer, (source, got, given, bias if added == "bias" else None)),
                int(added == "target"),
                *map(size, (split, shift, limit)),
            )
            assert got[:, count // 2].isnan().all()
            got[:, count // 2] = expected[:, count // 2]
            assert torch.equal(got, expected)


def test_the_inverse_of_an_order(kernels):
    index = torch.randperm(3001, generator=torch.Generator().manual_seed(0)).int()
    inverse = torch.zeros_like(index)
    kernels.invert(pointer(index), pointer(inverse), size(3001))
    assert torch.equal(inverse.long(), index.argsort())
    broken, inverse = index.clone(), torch.zeros_like(index)
    broken[:2] = torch.tensor([-1, 3001])
    kernels.invert(pointer(broken), pointer(inverse), size(3001))
    assert ((inverse >= 0) & (inverse < 3001)).all()
