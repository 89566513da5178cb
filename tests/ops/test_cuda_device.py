"""Every operator on a CUDA device against the CPU; skipped where there is none."""

import pytest
import row_cases
import torch
from operator_cases import DTYPES, NAMES, arguments, overload, points

from stonefx.ops import ROW_FORMULAS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICE = "cuda"
# rows and dims: one lane, tails, a warp, rows that are read again, a whole block
SHAPES = [(700, 3), (40, 64), (9, 131), (4, 2056), (3, 5003)]
CURVATURE = torch.tensor(0.7, dtype=torch.float64)


def turned(stages, dim, dtype):
    angle = points(stages, dim // 2, seed=9)
    return torch.stack([angle.cos(), angle.sin()], -1).to(dtype)


def sheet(*shape, dtype, seed):
    space = points(*shape, dtype=torch.float64, seed=seed)
    return torch.cat([(space.square().sum(-1, keepdim=True) + 1 / CURVATURE).sqrt(), space], -1).to(dtype)


def pairs(dtype, rows, columns, dim, make=points):
    return make(2, rows, dim, dtype=dtype, seed=1), make(1, columns, dim, dtype=dtype, seed=2), CURVATURE


def products(dtype, rows, columns, dim):
    x, y, c = pairs(dtype, rows, columns, dim)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return x.to(wide) @ y.to(wide).mT, x, y, c


def pifa(dtype, rows, width, out, rank):
    index = torch.randperm(out, generator=torch.Generator().manual_seed(2)).int()
    factors = points(rank, width, dtype=dtype, seed=1), points(out - rank, rank, dtype=dtype, seed=2)
    return points(rows, width, dtype=dtype), *factors, index, points(out, dtype=dtype, seed=3)


# name -> arguments of an element type; rows that share a block, tails of tiles, rows longer than shared memory
OTHERS = {
    **{
        f"{name} {sizes}": (name, lambda dtype, sizes=sizes, make=make: pairs(dtype, *sizes, make))
        for name, make in (("poincare_cdist", points), ("klein_cdist", points), ("lorentz_cdist", sheet))
        for sizes in ((5, 3, 2), (130, 70, 37), (64, 64, 300))
    },
    **{
        f"poincare_cdist_epilogue {sizes}": (
            "poincare_cdist_epilogue",
            lambda dtype, sizes=sizes: products(dtype, *sizes),
        )
        for sizes in ((5, 3, 2), (130, 70, 37))
    },
    **{
        f"butterfly {dim}": (
            "butterfly",
            lambda dtype, dim=dim: (points(70, dim, dtype=dtype), turned(5, dim, dtype)),
        )
        for dim in (2, 64, 4096, 16384)
    },
    **{
        f"hyper_butterfly {dim}": (
            "hyper_butterfly",
            lambda dtype, dim=dim: (points(70, dim, dtype=dtype), turned(7, dim, dtype), CURVATURE),
        )
        for dim in (2, 64, 4096, 16384)
    },
    "poincare_linear_epilogue": (
        "poincare_linear_epilogue",
        lambda dtype: (
            *(points(300, width, dtype=dtype, seed=width) for width in (33, 65)),
            points(65, dtype=dtype),
            CURVATURE,
        ),
    ),
    "poincare_hyperplanes": (
        "poincare_hyperplanes",
        lambda dtype: (
            points(130, 300, dtype=dtype),
            points(130, 17, dtype=dtype),
            points(300, dtype=dtype, seed=3),
            points(300, dtype=dtype, seed=4),
            CURVATURE,
        ),
    ),
    **{
        f"point_of_distances {dim}": (
            "point_of_distances",
            lambda dtype, dim=dim: (3 * points(70, dim, dtype=dtype), CURVATURE),
        )
        for dim in (3, 64, 3000)
    },
    **{
        f"pifa_linear {sizes}": ("pifa_linear", lambda dtype, sizes=sizes: pifa(dtype, *sizes))
        for sizes in ((70, 33, 65, 17), (5, 64, 128, 32), (3, 40, 3000, 1000), (4, 9, 6, 6))
    },
    "add_time": ("add_time", lambda dtype: (points(70, 65, dtype=dtype), CURVATURE)),
}


def results(name, args, device, **options):
    """The result and the gradients of every operand that may have one, back on the CPU, and the scale of each.

    The derivative for a curvature is a sum over a row, or over all, which may cancel: a map that keeps every norm does
    not depend on it. Its scale is what is summed.
    """
    operands = [a.to(device).clone().requires_grad_(a.is_floating_point()) for a in args]
    leaves = [a for a in operands if a.requires_grad]
    value = overload(name)(*operands, **options)
    upstream = points(value.numel(), 1, seed=7, radius=1.0).reshape(value.shape).to(value)
    grads = torch.autograd.grad(value, leaves, upstream)
    summed = (value * upstream).detach().double().abs()
    of_row, of_all = summed.reshape(-1, value.shape[-1] if value.dim() > 1 else 1).sum(-1), summed.sum()
    scales = [torch.zeros(()), *(_scale_of_sum(leaf, of_row, of_all) for leaf in leaves)]
    return [(each.detach().cpu(), scale.cpu()) for each, scale in zip((value, *grads), scales, strict=True)]


def _scale_of_sum(leaf, of_row, of_all):
    if leaf.dim() == 0:
        return of_all
    return of_row.max() if leaf.shape[-1] == 1 else torch.zeros(())


def agree(name, args, **options):
    # products may be wider than the points
    bound = 64 * max(torch.finfo(each.dtype).eps for each in args[:2])
    for (got, _), (expected, summed) in zip(
        results(name, args, DEVICE, **options), results(name, args, "cpu", **options), strict=True
    ):
        assert got.dtype == expected.dtype and got.shape == expected.shape
        if got.numel() == 0:
            continue
        scale = max(expected.double().abs().max().item(), summed.item(), 1e-30)
        assert (got.double() - expected.double()).abs().max().item() < bound * scale


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_radial_and_moebius_operators(name, shape, dtype):
    agree(name, arguments(name, dtype, batch=shape[:1], dim=shape[1]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ROW_FORMULAS)
def test_row_formulas(name, shape, dtype):
    agree(name, row_cases.row_arguments(name, dtype, batch=shape[:1], dim=shape[1]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", OTHERS)
def test_operators_over_more_than_rows(case, dtype):
    name, make = OTHERS[case]
    agree(name, make(dtype))


@pytest.mark.parametrize("case", OTHERS)
def test_operators_run_on_the_current_stream_and_in_graphs(case):
    name, make = OTHERS[case]
    args = [a.to(DEVICE) for a in make(torch.float32)]
    forward = overload(f"{name}_forward")
    expected = forward(*args)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        forward(*args)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = forward(*args)
    captured.fill_(torch.nan)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(captured, expected)


def test_two_runs_give_the_same_bits():
    for name, make in OTHERS.values():
        one, two = (results(name, make(torch.float32), DEVICE) for _ in range(2))
        assert all(torch.equal(a, b) for (a, _), (b, _) in zip(one, two, strict=True))
