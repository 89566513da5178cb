"""Butterflies: the stages against a dense matrix, float64 and autograd, for every shape, dtype and layout."""

import re

import pytest
import torch
from operator_cases import DTYPES, declared, overload, relative, requiring
from test_operator_instruction_sets import INSTRUCTION_SETS, run
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

import stonefx

# below, at and above the width of a vector; levels that leave one, two or three stages above it
DIMS = (2, 4, 8, 16, 32, 64, 128, 256)


def levels(dim):
    return dim.bit_length() - 1


def operands(rows, dim, stages, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    angle = torch.rand(stages, dim // 2, generator=generator, dtype=torch.float64) * 6.28
    weight = torch.stack((angle.cos(), angle.sin()), -1)
    shape = (rows, dim) if isinstance(rows, int) else (*rows, dim)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype), weight.to(dtype)


def dense_stage(weight, stage, dim):
    """The matrix of one stage, from the sentence that defines it."""
    stride = 2 ** (stage % levels(dim))
    matrix = torch.zeros(dim, dim, dtype=weight.dtype)
    for block in range(dim // (2 * stride)):
        for offset in range(stride):
            a, b = weight[stage, block * stride + offset]
            i, j = 2 * stride * block + offset, 2 * stride * block + offset + stride
            matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = a, b, -b, a
    return matrix


@pytest.mark.parametrize("dim", [2, 8, 32])
def test_is_the_product_of_its_stages(dim):
    x, weight = operands(5, dim, levels(dim) + 2)
    expected = x
    for stage in range(len(weight)):
        expected = expected @ dense_stage(weight, stage, dim).t()
    torch.testing.assert_close(stonefx.butterfly(x, weight), expected, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(declared("butterfly").reference(x, weight), expected, rtol=1e-12, atol=1e-13)


# Other rows and stages than the lines and passes of the kernel; the reference is float64 for all dtypes.
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", DIMS)
def test_values_and_gradients(dim, dtype):
    bound = 8 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-13
    for rows, stages in [(1, 1), (3, 2), (5, levels(dim)), (37, levels(dim) + 1), (130, 2 * levels(dim) + 3)]:
        x, weight = operands(rows, dim, stages, dtype)
        grad = operands(rows, dim, 1, dtype, seed=1)[0]
        exact = declared("butterfly")
        got = overload("butterfly_forward")(x, weight)
        assert got.dtype == dtype
        assert relative(got, exact.reference(x.double(), weight.double())) < bound
        grads = overload("butterfly_backward")(grad, x, weight)
        expected = exact.backward_reference(grad.double(), x.double(), weight.double())
        for one, other in zip(grads, expected, strict=True):
            assert one.dtype == dtype and one.shape == other.shape
            assert (one.double() - other).norm() < bound * other.norm()


@pytest.mark.parametrize("rows", [700, 9000])
def test_gradients_of_many_rows_sum_in_float64(rows):
    """Chunks of rows, and flushes within them: float32 keeps its digits, whatever the number of threads."""
    x, weight = operands(rows, 16, 4, torch.float32)
    grad = torch.ones_like(x)
    exact = declared("butterfly").backward_reference(grad.double(), x.double().abs(), weight.double())[1]
    threads = torch.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(overload("butterfly_backward")(grad, x.abs(), weight))
    finally:
        torch.set_num_threads(threads)
    assert (results[0][1].double() - exact).norm() < 4e-7 * exact.norm()
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_gradcheck_twice():
    for dim, stages in ((2, 3), (8, 4), (32, 5)):
        args = requiring(operands(3, dim, stages))
        assert torch.autograd.gradcheck(stonefx.butterfly, args)
        if dim < 32:
            assert torch.autograd.gradgradcheck(stonefx.butterfly, args)


def test_rotations_keep_norms_and_invert():
    x, weight = operands(40, 64, 6)
    y = stonefx.butterfly(x, weight)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1), rtol=1e-13, atol=0)
    back = torch.autograd.functional.vjp(lambda t: stonefx.butterfly(t, weight), x, y)[1]
    torch.testing.assert_close(back, x, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3, 4), (0,), (3, 0, 2), (33000,)], ids=str)
def test_batches(batch):
    x, weight = operands(batch, 4, 3)
    got = stonefx.butterfly(x, weight)
    assert got.shape == x.shape and got.is_contiguous()
    torch.testing.assert_close(got, declared("butterfly").reference(x, weight), rtol=1e-12, atol=1e-13)
    grad_x, grad_weight = overload("butterfly_backward")(x, x, weight)
    assert grad_x.shape == x.shape
    if x.numel() == 0:
        assert torch.equal(grad_weight, torch.zeros_like(weight))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_stages_are_a_copy(dtype):
    x, weight = operands(5, 8, 0, dtype)
    got = stonefx.butterfly(x, weight)
    assert torch.equal(got, x) and got.data_ptr() != x.data_ptr()
    grads = overload("butterfly_backward")(x, x, weight)
    assert torch.equal(grads[0], x) and grads[1].shape == (0, 4, 2)


def test_strides_do_not_matter():
    x, weight = operands(6, 16, 5)
    expected = stonefx.butterfly(x, weight)
    other = weight.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert torch.equal(stonefx.butterfly(x.t().contiguous().t(), other), expected)
    shifted = torch.empty(6 * 16 + 1, dtype=x.dtype)[1:].view(6, 16).copy_(x)
    assert torch.equal(stonefx.butterfly(shifted, weight), expected)


@pytest.mark.parametrize("in_dims", [(0, None), (1, None), (None, 0), (0, 1)], ids=str)
def test_vmap(in_dims):
    x, weight = torch.randn(3, 3, 8, dtype=torch.float64), torch.randn(3, 3, 4, 2, dtype=torch.float64)
    x, weight = (t if d is not None else t[0] for t, d in zip((x, weight), in_dims, strict=True))
    got = torch.vmap(stonefx.butterfly, in_dims)(x, weight)
    expected = torch.vmap(declared("butterfly").reference, in_dims)(x, weight)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("mapped", [0, 1, 2])
def test_vmap_of_backward(mapped):
    x, weight = operands(4, 8, 3)
    args = [torch.randn_like(x), x, weight]
    args[mapped] = torch.stack([args[mapped], 2 * args[mapped], -args[mapped]])
    in_dims = tuple(0 if i == mapped else None for i in range(3))
    got = torch.vmap(overload("butterfly_backward"), in_dims)(*args)
    expected = torch.vmap(declared("butterfly").backward_reference, in_dims)(*args)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype):
    x, weight = operands(5, 8, 4, dtype)
    opcheck(overload("butterfly"), requiring((x, weight)))
    opcheck(overload("butterfly_forward"), (x, weight))
    opcheck(overload("butterfly_backward"), requiring((torch.randn_like(x), x, weight)))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_in_one_graph(backend):
    torch._dynamo.reset()
    function = lambda x, w: stonefx.butterfly(torch.sin(x), w).cos()  # noqa: E731
    compiled = torch.compile(function, backend=backend, fullgraph=True)
    eager, traced = (requiring(operands(6, 16, 4, torch.float32)) for _ in range(2))
    function(*eager).sum().backward()
    compiled(*traced).sum().backward()
    for one, other in zip(traced, eager, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_every_instruction_set(name):
    program = (
        "import torch, test_butterfly as t\n"
        "for dim in t.DIMS:\n    for dtype in t.DTYPES:\n        t.test_values_and_gradients(dim, dtype)\n"
        "print('agreed')"
    )
    done = run(program, STONEFX_CPU_ISA=name)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


def f(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


MESSAGES = [
    (
        (f(2, 6), f(2, 3, 2)),
        "stone::butterfly: the last dimension of x must be a power of two, 2 or more, got [2, 6]; pad it, for instance "
        "with torch.nn.functional.pad",
    ),
    (
        (f(2, 1), f(2, 0, 2)),
        "stone::butterfly: the last dimension of x must be a power of two, 2 or more, got [2, 1]; pad it, for instance "
        "with torch.nn.functional.pad",
    ),
    (
        (f(2, 8), f(3, 8, 2)),
        "stone::butterfly: weight must be [stages, dim / 2, 2] = [stages, 4, 2] for x of shape [2, 8], got [3, 8, 2]; "
        "its last dimension holds (a, b) of each block",
    ),
    (
        (f(2, 8), f(3, 4, 2, dtype=torch.float64)),
        "stone::butterfly: x and weight must have one dtype, got float32 and float64; convert one of them with .to()",
    ),
]


@pytest.mark.parametrize(("args", "message"), MESSAGES)
def test_messages_of_kernel_and_fake(args, message):
    for suffix in ("", "_forward"):
        with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
            overload("butterfly" + suffix)(*args)
    with FakeTensorMode() as mode, pytest.raises(RuntimeError, match=re.escape(message)):
        overload("butterfly")(*(mode.from_tensor(a) for a in args))


def test_gradient_of_another_shape():
    x, weight = operands(3, 8, 2)
    with pytest.raises(
        RuntimeError, match=r"butterfly_backward: grad must have the shape of the result, \[3, 8\]"
    ):
        overload("butterfly_backward")(x[:2], x, weight)
