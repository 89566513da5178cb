"""Low-rank maps kept as pivot rows: orders of the outputs, sizes at the edges, strides, maps that vary, and errors."""

import re

import pytest
import torch
from operator_cases import DTYPES, overload
from torch._subclasses.fake_tensor import FakeTensorMode

from stonefx import ops
from stonefx.ops.layers.pifa_linear import OPERATOR, backward_reference, reference

# rows, in, out, rank: none, one, fewer than a vector, vectors and a part of one, more rows than one thread takes
SIZES = [
    (0, 3, 5, 2),
    (1, 3, 5, 2),
    (1, 64, 130, 40),
    (3, 7, 40, 13),
    (5, 64, 130, 1),
    (5, 64, 130, 129),
    (5, 64, 130, 130),
    (700, 20, 1100, 300),
    (2, 4, 3, 0),
    (2, 0, 3, 1),
    (4, 4, 0, 0),
]


def index_of(order, out, rank):
    generator = torch.Generator().manual_seed(out + rank)
    if order == "pivots first":
        return torch.arange(out, dtype=torch.int32)
    rows = torch.randperm(out, generator=generator)
    if order == "each ascending":
        rows = torch.cat([rows[:rank].sort().values, rows[rank:].sort().values])
    if order == "pivots last":
        rows = torch.cat([torch.arange(out - rank, out), torch.arange(out - rank)])
    return rows.argsort().int()


def operands(rows, width, out, rank, order, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    factors = normal(rank, width) / max(width, 1) ** 0.5, normal(out - rank, rank) / max(rank, 1) ** 0.5
    return normal(rows, width), *factors, index_of(order, out, rank), normal(out)


def close(got, expected, eps):
    assert got.shape == expected.shape and got.is_contiguous()
    scale = expected.abs().max().clamp_min(1e-30) if expected.numel() else 1.0
    assert got.numel() == 0 or (got.double() - expected).abs().max() <= 64 * eps * scale


@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("order", ["pivots first", "each ascending", "pivots last", "any"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients_against_float64(sizes, order, biased):
    for dtype in DTYPES:
        eps = torch.finfo(dtype).eps
        *args, bias = operands(*sizes, order, dtype)
        bias = bias if biased else None
        wide = [a.double() if a.is_floating_point() else a for a in args]
        got = overload("pifa_linear_forward")(*args, bias)
        close(got, reference(*wide, bias.double() if biased else None), eps)
        grad = torch.randn(got.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
        gradients = overload("pifa_linear_backward")(grad, *args, has_bias=biased)
        expected = backward_reference(grad.double(), *wide, has_bias=biased)
        for one, other in zip(gradients, expected, strict=True):
            close(one, other, eps)


def test_the_parts_are_what_they_say():
    x, pivot, interpolation, index, bias = operands(6, 5, 9, 4, "each ascending")
    y = ops.pifa_linear(x, pivot, interpolation, index, bias)
    for output, part in enumerate(index.tolist()):
        row = pivot[part] if part < 4 else interpolation[part - 4] @ pivot
        torch.testing.assert_close(y[:, output], x @ row + bias[output])


def test_strides_do_not_matter():
    args = operands(6, 8, 20, 7, "each ascending")
    expected = overload("pifa_linear")(*args)
    grad = torch.randn(1, 1, dtype=torch.float64).expand(6, 20)
    gradients = overload("pifa_linear_backward")(grad.contiguous(), *args[:4])
    transposed = [a.t().contiguous().t() for a in args]
    sliced = [torch.stack([a, a], -1)[..., 0] for a in args]
    for other in (transposed, sliced):
        torch.testing.assert_close(overload("pifa_linear")(*other), expected, rtol=1e-13, atol=1e-13)
        for one, two in zip(overload("pifa_linear_backward")(grad, *other[:4]), gradients, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-13)


def test_operands_are_left_as_they_are():
    args = operands(40, 8, 30, 7, "any")
    before = [a.clone() for a in args]
    overload("pifa_linear_backward")(overload("pifa_linear")(*args), *args[:4])
    assert all(torch.equal(a, b) for a, b in zip(args, before, strict=True))


@pytest.mark.parametrize(
    "in_dims", [(0, None, None, None, None), (1, 0, None, None, 0), (None, 0, 0, 0, None), (0, 0, 1, 0, 0)]
)
def test_maps_that_vary(in_dims):
    args = []
    for tensor, dim in zip(operands(5, 7, 9, 3, "any"), in_dims, strict=True):
        factors = torch.tensor([1, 1, 1]) if not tensor.is_floating_point() else torch.tensor([0.5, 1.0, 2.0])
        stack = torch.stack([tensor.roll(i, -1) * f.to(tensor.dtype) for i, f in enumerate(factors)])
        args.append(tensor if dim is None else stack.movedim(0, dim))
    got = torch.vmap(overload("pifa_linear"), in_dims)(*args)
    for i in range(3):
        one = [a if d is None else a.select(d, i) for a, d in zip(args, in_dims, strict=True)]
        torch.testing.assert_close(got[i], reference(*one), rtol=1e-12, atol=1e-12)


def test_gradients_that_are_not_wanted():
    args = operands(5, 7, 9, 3, "any")
    for wanted in (0, 1, 2, 4):
        given = [a.clone().requires_grad_(i == wanted) for i, a in enumerate(args)]
        (got,) = torch.autograd.grad(ops.pifa_linear(*given).square().sum(), given[wanted])
        (expected,) = torch.autograd.grad(reference(*given).square().sum(), given[wanted])
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize(
    ("index", "got"),
    [([0, 1, 1, 3], "1 at 2, which came before"), ([0, 1, 2, 4], "4 at 3"), ([0, -1, 2, 3], "-1 at 1")],
)
def test_an_index_that_is_no_permutation(index, got):
    x, pivot, interpolation = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 2)
    index = torch.tensor(index, dtype=torch.int32)
    message = (
        f"stone::pifa_linear: index must hold each of 0 to 3 once, got {got}; entry o says which of the pivot rows, "
        "then the others, is output o"
    )
    for call in (
        lambda: overload("pifa_linear")(x, pivot, interpolation, index),
        lambda: overload("pifa_linear_backward")(torch.zeros(2, 4), x, pivot, interpolation, index),
        # what runs where there is no kernel
        lambda: OPERATOR.fake(x, pivot, interpolation, index),
    ):
        with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
            call()
    with FakeTensorMode() as mode:
        fake = [mode.from_tensor(t) for t in (x, pivot, interpolation, index)]
        assert overload("pifa_linear")(*fake).shape == (2, 4)
