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
    # one side's points in parts, in float64
    *((case, (2, 3, 270, 4)) for case in ("klein", "lorentz")),
    ("klein", (1, 300, 5, 2)),
]


def run_cdist(kernels, model, x, y, options, c=C, product=None, grad=None):
    """`[distances]`, or where `grad` is given `[grad_product, grad_x, grad_y, grad_c of each point]`.

    x is `[matrices, rows, dim]`, y too or `[columns, dim]`.
    """
    (batch, rows, width), columns = x.shape, y.shape[-2]
    sizes = (ELEMENTS[x.dtype], MODELS.index(model), *map(size, (batch, rows, columns, width)))
    if grad is None:
        outputs, of_product = (empty(batch, rows, columns, dtype=x.dtype), None, None), None
    else:
        outputs = (
            torch.full_like(x, torch.nan),
            empty(batch, columns, width, dtype=x.dtype),
            empty(batch, rows + columns, dtype=torch.float64),
        )
        of_product = None if product is None else torch.full_like(product, torch.nan)
    arrays = (
        pointer(x),
        pointer(y),
        size(int(y.dim() == 3)),
        *map(pointer, (product, grad, *outputs, of_product)),
    )
    kernels.cdist(int(grad is not None), *sizes, *arrays, double(c), *guards(options))
    return outputs[:1] if grad is None else (of_product, *outputs)


def check_cdist(kernels, model, x, y, options, product=None, bound=32):
    """Distances and gradients against those of the CPU."""
    dtype, batch, columns = x.dtype, x.shape[0], y.shape[-2]
    grad = points(batch * x.shape[1], columns, dtype=dtype, seed=5).reshape(batch, -1, columns)
    name = f"{model}_cdist" + ("" if product is None else "_epilogue")
    operands = (x, y, CURVATURE) if product is None else (product, x, y, CURVATURE)
    (distances,) = run_cdist(kernels, model, x, y, options, product=product)
    agree(distances, overload(f"{name}_forward")(*operands, **options), dtype)
    of_product, of_x, of_y, terms = run_cdist(kernels, model, x, y, options, product=product, grad=grad)
    expected = overload(f"{name}_backward")(grad, *operands, **options)
    got = (of_x, of_y) if product is None else (of_product, of_x, of_y)
    for one, other in zip(got, expected[:-1], strict=True):
        agree(one, other, dtype, bound)
    of_c = terms.sum(-1, keepdim=True).unsqueeze(-1).to(expected[-1].dtype)
    torch.testing.assert_close(of_c, expected[-1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("case", "shape"), CDIST_SHAPES, ids=str)
def test_cdist_kernels(kernels, case, shape):
    model, options = CDISTS[case]
    batch, rows, columns, dim = shape
    for dtype in DTYPES if rows < 60 else (torch.float32,):
        x, y = (
            on_model(model, batch, rows, dim, dtype=dtype, seed=1),
            on_model(model, columns, dim, dtype=dtype, seed=2),
        )
        product = x.to(compute(dtype)) @ y.to(compute(dtype)).mT if "products" in case else None
        if product is None:
            y[0] = x[0, 0]  # a coincident pair
            y[-1] = x[0, 1] * 1.0001
        check_cdist(kernels, model, x, y, options, product)


# (matrices, rows, columns, dim): tiles of 64 points, and of 128 where that makes three or more; tails both ways
FLOAT_TILES = [
    *((2, 3, 4, dim) for dim in (1, 2, 17, 64)),
    *((3, 5, 4, dim) for dim in (1, 3, 17, 128)),
    (1, 65, 68, 3),
    (1, 131, 129, 5),
    (1, 129, 132, 68),
    (1, 7, 70, 300),
    (3, 6, 9, 300),
    # the points of the other side in parts: of which the last has fewer, one side in parts alone, two matrices
    (1, 4, 387, 20),
    (1, 300, 260, 3),
    (2, 3, 256, 5),
]


@pytest.mark.parametrize("shape", FLOAT_TILES, ids=str)
def test_tiles_of_pairs_in_float32(kernels, shape):
    batch, rows, columns, dim = shape
    for dtype in [d for d in DTYPES if d != torch.float64] if rows < 6 else (torch.float32,):
        x = on_model("poincare", batch, rows, dim, dtype=dtype, seed=1)
        y = on_model("poincare", batch, columns, dim, dtype=dtype, seed=2)
        check_cdist(kernels, "poincare", x, y, {})
    if rows < 60:
        check_cdist(kernels, "poincare", x, y[0].contiguous(), DENOMINATORS)


# (matrices, rows, columns): parts of a strip, several strips, rows of pairs that quads do not fit
@pytest.mark.parametrize("shape", [(1, 5, 3), (2, 33, 260), (1, 70, 515)], ids=str)
def test_strips_of_products(kernels, shape):
    batch, rows, columns = shape
    for dtype in [d for d in DTYPES if d != torch.float64]:
        x, y = (
            points(rows, 6, dtype=dtype, seed=1).repeat(batch, 1, 1),
            points(columns, 6, dtype=dtype, seed=2),
        )
        product = x.float() @ y.float().mT
        check_cdist(kernels, "poincare", x, y, {"min_alpha": 1e-7}, product)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_points_that_begin_anywhere(kernels, dtype):
    """Rows of a multiple of four entries that do not lie at one in memory."""
    memory = points(1, 1 + 2 * 9 * 8, dtype=dtype)[0]
    x, y = memory[1:].reshape(2, 1, 9, 8)
    check_cdist(kernels, "poincare", x, y[0], {})


def repeated(x, batch):
    return x.repeat(batch, 1, 1)


def same_numbers(got, expected, rtol):
    """Row by row, relative to the largest entry; what is no number on one side is none on the other."""
    assert torch.equal(got.isnan(), expected.isnan())
    size = expected.nan_to_num().abs().amax(-1, keepdim=True)
    assert ((got - expected).nan_to_num().abs() <= rtol * size).all()


# one tile of 64, and tiles of 128
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("options", [{}, DENOMINATORS], ids=["no guards", "denominators"])
def test_pairs_that_float32_cannot_hold(kernels, options, batch):
    """Squared distances that underflow are formed in float64, as on the CPU, beside coincident and usual ones."""
    x = torch.tensor([[1e-25, 0.0], [0.5, 0.1], [-3e-24, 1e-26], [0.0, 0.0], [0.1, -0.7]])
    y = torch.tensor(
        [[0.0, 3e-26], [0.5, 0.1], [1e-30, 0.0], [0.0, 0.0], [0.1, -0.7], [2e-19, 0.2], [1e-17, 0]]
    )
    grad = points(5, 7, dtype=torch.float32, seed=5)
    (got,) = run_cdist(kernels, "poincare", repeated(x, batch), y, options)
    expected = overload("poincare_cdist_forward")(x, y, CURVATURE, **options)
    assert 0 < expected[0, 0] < 1e-24
    torch.testing.assert_close(got, repeated(expected, batch), rtol=1e-6, atol=0)
    _, of_x, of_y, terms = run_cdist(
        kernels, "poincare", repeated(x, batch), y, options, grad=repeated(grad, batch)
    )
    expected = overload("poincare_cdist_backward")(grad, x, y, CURVATURE, **options)
    same_numbers(of_x, repeated(expected[0], batch), 1e-5)
    same_numbers(of_y, repeated(expected[1], batch), 1e-5)
    torch.testing.assert_close(
        terms.sum(-1).float(), expected[2].flatten().repeat(batch), rtol=1e-4, atol=1e-6
    )


def test_huge_squares_and_points_on_the_boundary(kernels):
    small = torch.tensor(1e-42, dtype=torch.float64)
    x, y = torch.tensor([[1e20, 0.0], [1.0, 2.0], [0.0, 9e20]]), torch.tensor([[0.0, 3e20], [1e20, 0.0]])
    (got,) = run_cdist(kernels, "poincare", x[None], y, {}, c=1e-42)
    torch.testing.assert_close(got[0], overload("poincare_cdist_forward")(x, y, small), rtol=1e-6, atol=0)
    edge = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.3, 0.0]])
    for options in ({}, {"min_alpha": 1e-5}, {"atanh_limit": 0.99}):
        (got,) = run_cdist(kernels, "poincare", edge[None], edge, options, c=1.0)
        expected = overload("poincare_cdist_forward")(edge, edge, torch.tensor(1.0), **options)
        torch.testing.assert_close(got[0], expected, rtol=1e-6, atol=0, equal_nan=True)


@pytest.mark.parametrize("batch", [1, 3])
def test_points_that_are_no_numbers(kernels, batch):
    """Pairs of finite points beside them stay as they are, and two runs give the same bits."""
    x, y = points(9, 5, dtype=torch.float32, seed=1), points(7, 5, dtype=torch.float32, seed=2)
    x[3, 2], x[5, 0], y[4, 1] = torch.nan, torch.inf, torch.nan
    grad = points(9, 7, dtype=torch.float32, seed=3)
    (got,) = run_cdist(kernels, "poincare", repeated(x, batch), y, {})
    expected = overload("poincare_cdist_forward")(x, y, CURVATURE)
    assert expected.isfinite().sum() == 7 * 6
    torch.testing.assert_close(got, repeated(expected, batch), rtol=1e-6, atol=0, equal_nan=True)
    first, again = (
        run_cdist(kernels, "poincare", repeated(x, batch), y, {}, grad=repeated(grad, batch))
        for _ in range(2)
    )
    expected = overload("poincare_cdist_backward")(grad, x, y, CURVATURE)
    same_numbers(first[1], repeated(expected[0], batch), 1e-5)
    for one, other in zip(first[1:], again[1:], strict=True):
        assert torch.equal(one.view(torch.int32), other.view(torch.int32))


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
        check_cdist(kernels, "lorentz", x.to(dtype), y.to(dtype), {}, bound=64)


def check_hyperplanes(kernels, product, x, offset, scale, grad):
    """Distances and gradients against those of the CPU."""
    (rows, planes), dim, dtype = product.shape, x.shape[1], x.dtype
    result, of_product, of_x = (torch.full_like(each, torch.nan) for each in (product, product, x))
    partial = empty((rows + 63) // 64, 2, planes, dtype=compute(dtype))
    of_c = empty(rows, 1, dtype=compute(dtype))
    for backward, outputs in ((0, (result, None, None, None)), (1, (of_product, of_x, partial, of_c))):
        arrays = map(pointer, (product, x, offset, scale, grad if backward else None, *outputs))
        sizes = map(size, (rows, planes, dim))
        kernels.hyperplanes(backward, ELEMENTS[dtype], *sizes, *arrays, double(C), double(1e-7))
    operands = (product, x, offset, scale, CURVATURE)
    agree(result, overload("poincare_hyperplanes_forward")(*operands, min_alpha=1e-7), dtype)
    expected = overload("poincare_hyperplanes_backward")(grad, *operands, min_alpha=1e-7)
    for got, other in zip((of_product, of_x, *partial.sum(0), of_c), expected, strict=True):
        agree(got.to(other.dtype), other, dtype, 32)


# (rows, planes, dim): one lane and more, packs of 16 bytes, more of them than a lane keeps, a whole block
HYPERPLANES = [
    (100, 5, 3),
    (5, 300, 17),
    (3, 40, 1100),
    (9, 640, 16),
    (3, 2064, 8),
    (70, 16, 1056),
    (130, 5, 3),
    (129, 520, 8),
]
# the same where all gradients are formed at once, from two blocks of rows on: a block that is not whole, planes for a
# part of a warp and for all that it keeps, points that are longer
MANY_ROWS = [(130, 16, 8, torch.float32), (128, 512, 8, torch.bfloat16), (190, 128, 600, torch.float64)]


@pytest.mark.parametrize(
    ("rows", "planes", "dim", "dtypes"),
    [*((*shape, DTYPES) for shape in HYPERPLANES), *((*many[:3], many[3:]) for many in MANY_ROWS)],
    ids=str,
)
def test_hyperplane_kernels(kernels, rows, planes, dim, dtypes):
    for dtype in dtypes:
        x = points(rows, dim, dtype=dtype, seed=1)
        product = points(rows, planes, dtype=dtype, seed=2) * 3
        grad = points(rows, planes, dtype=dtype, seed=3)
        offset, scale = (points(1, planes, dtype=dtype, seed=seed)[0] for seed in (4, 5))
        check_hyperplanes(kernels, product, x, offset, scale, grad)


def test_hyperplane_kernels_of_operands_that_begin_anywhere(kernels):
    memory = points(1, 1 + 9 * 8, dtype=torch.float32)[0]
    x, product, grad = (points(9, 8, dtype=torch.float32, seed=seed) for seed in (1, 2, 3))
    offset, scale = points(2, 8, dtype=torch.float32, seed=4)
    check_hyperplanes(kernels, product, memory[1:].reshape(9, 8), offset, scale, grad)
    check_hyperplanes(kernels, memory[1:].reshape(9, 8), x, offset, scale, grad)


def test_hyperplane_kernels_of_points_that_are_no_numbers(kernels):
    x, product = points(40, 8, dtype=torch.float32), points(40, 8, dtype=torch.float32, seed=2)
    offset, scale = points(2, 8, dtype=torch.float32, seed=4)
    x[3, 2], product[5, 1] = torch.nan, torch.inf
    result = torch.full_like(product, torch.nan)
    arrays = map(pointer, (product, x, offset, scale, None, result, None, None, None))
    kernels.hyperplanes(0, ELEMENTS[x.dtype], *map(size, (40, 8, 8)), *arrays, double(C), double(1e-7))
    expected = overload("poincare_hyperplanes_forward")(product, x, offset, scale, CURVATURE, min_alpha=1e-7)
    assert expected.isnan().sum() == 8
    torch.testing.assert_close(result, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


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


def linear_agrees(kernels, x, product, bias, grad, of_curvature=None):
    """`of_curvature`: to whose rounding the derivative for the curvature agrees; to that of the rows if left out."""
    dtype, (rows, width), out = x.dtype, x.shape, product.shape[1]
    y, grad_product, grad_x = torch.empty_like(product), torch.empty_like(product), torch.empty_like(x)
    grad_bias = empty(0 if bias is None else out, dtype=dtype)
    grad_c = empty(rows, 1, dtype=compute(dtype))
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
            agree(got, other, of_curvature if of_curvature and got is grad_c else dtype, 32)


@pytest.mark.parametrize("shape", LINEARS, ids=str)
@pytest.mark.parametrize("adds", [False, True], ids=["no bias", "bias"])
def test_poincare_linear_kernels(kernels, adds, shape):
    rows, width, out = shape
    for dtype in DTYPES:
        x = points(rows, width, dtype=dtype, seed=1)
        product = points(rows, out, dtype=dtype, seed=2) * 2
        bias = points(1, out, dtype=dtype, seed=3)[0] if adds else None
        linear_agrees(kernels, x, product, bias, points(rows, out, dtype=dtype, seed=4))


def test_poincare_linear_of_products_whose_squares_leave_float32(kernels):
    dtype, (rows, width, out) = torch.bfloat16, (37, 64, 512)
    x, bias = points(rows, width, dtype=dtype, seed=1), points(1, out, dtype=dtype, seed=3)[0]
    product, grad = (points(rows, out, dtype=dtype, seed=seed) for seed in (2, 4))
    product[::3] *= 1e20
    linear_agrees(kernels, x, product, bias, grad, of_curvature=torch.float32)


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
# a block; parts of what a block takes; no stage, a broken cycle, a whole one, more; whole cycles of the lengths
# that have kernels for them
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
    (70, 128, 14),
    (35, 256, 8),
    (9, 512, 9),
    (9, 1024, 10),
    (5, 2048, 11),
    (5, 4096, 12),
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
