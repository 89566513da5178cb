"""Distance matrices by one matrix product, `mode="fast"`, against the accurate ones."""

import pytest
import torch
from operator_cases import DTYPES, points, requiring
from test_operator_instruction_sets import INSTRUCTION_SETS, run
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck
from torch.library import opcheck

from stonefx import ops
from stonefx.geometry import poincare
from stonefx.ops.pairs.poincare_cdist_epilogue import OPERATOR


@pytest.mark.parametrize(
    "c", [0.3, torch.tensor([[[0.2]], [[1.0]]], dtype=torch.float64)], ids=["number", "batch"]
)
@pytest.mark.parametrize(
    ("dtype", "bound"),
    [(torch.float64, 1e-12), (torch.float32, 1e-4), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)],
    ids=str,
)
def test_it_agrees_with_the_accurate_mode(dtype, bound, c):
    x, y = points(2, 40, 300, dtype=dtype, seed=1), points(30, 300, dtype=dtype, seed=2)
    fast, accurate = (poincare.cdist(x, y, c, mode=mode) for mode in ("fast", "accurate"))
    assert fast.dtype == dtype and fast.shape == (2, 40, 30)
    torch.testing.assert_close(fast, accurate, rtol=bound, atol=0)
    with torch.autocast("cpu"):
        assert torch.equal(poincare.cdist(x, y, c, mode="fast"), fast)


def test_near_and_equal_points_stay_finite():
    x = points(6, 20, dtype=torch.float32, seed=1, radius=0.99)
    y = x + 1e-6 * points(6, 20, dtype=torch.float32, seed=2)
    for other in (x, y):
        leaves = x.clone().requires_grad_(), other.clone().requires_grad_()
        distances = poincare.cdist(*leaves, mode="fast")
        assert distances.isfinite().all()
        assert (distances.diagonal() < 0.05).all()  # what a distance at the rounding of the norms comes to
        distances.sum().backward()
        assert all(leaf.grad.isfinite().all() for leaf in leaves)


def test_guards_act_as_in_the_accurate_mode():
    x, y = points(9, 5, seed=1, radius=0.9999), points(7, 5, seed=2, radius=0.9999)
    options = {"min_alpha": 0.1, "atanh_limit": 0.9, "min_denominator": 0.7, "denominator_offset": 0.01}
    one, other = (ops.poincare_cdist(x, y, 1.0, mode=mode, **options) for mode in ("fast", "accurate"))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=0)


def test_gradients():
    x, y = points(4, 6, seed=1).requires_grad_(), points(3, 6, seed=2).requires_grad_()
    c = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda *leaves: poincare.cdist(*leaves, mode="fast"), (x, y, c))


EPILOGUE = torch.ops.stone.poincare_cdist_epilogue.default
OPTIONS = [{}, {"min_alpha": 0.3, "atanh_limit": 0.8}, {"min_denominator": 0.7, "denominator_offset": 0.01}]


def epilogue_operands(dtype=torch.float64, batch=(), rows=70, columns=131, dim=9):
    x, y = points(*batch, rows, dim, dtype=dtype, seed=1), points(columns, dim, dtype=dtype, seed=2)
    wide = torch.float32 if dtype.itemsize == 2 else dtype
    return x.to(wide) @ y.to(wide).mT, x, y, torch.tensor(0.7, dtype=torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_epilogue_against_autograd_on_the_reference(batch, options, dtype):
    """Sizes that fill no tile; gradients of the products, of points through their norms, and of the curvature."""
    args = epilogue_operands(dtype, batch)
    _, x, y, _ = (t.double() for t in args)
    norms = x.square().sum(-1, keepdim=True) + y.square().sum(-1, keepdim=True).mT
    # subtracting the products from the norms magnifies the rounding of both
    magnified = (norms / torch.cdist(x, y).square()).max().item()
    bound = 4 * torch.finfo(dtype).eps + 8 * magnified * torch.finfo(args[0].dtype).eps
    wide = requiring([t.double() for t in args])
    exact = OPERATOR.reference(*wide, **options)
    leaves = requiring(args)
    got = EPILOGUE(*leaves, **options)
    assert got.dtype == dtype and (got - exact).norm() < bound * exact.norm()
    grad = torch.randn(got.shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    own = torch.autograd.grad(got, leaves, grad)
    expected = torch.autograd.grad(exact, wide, grad.double())
    for one, other, operand in zip(own, expected, args, strict=True):
        assert one.dtype == operand.dtype and one.shape == operand.shape
        assert (one - other).norm() < bound * other.norm()
    for one, other in zip(
        torch.ops.stone.poincare_cdist_epilogue_backward(
            grad.double(), *(t.detach() for t in wide), **options
        ),
        OPERATOR.backward_reference(grad.double(), *(t.detach() for t in wide), **options),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_epilogue_gradcheck_twice(options):
    args = requiring(epilogue_operands(rows=3, columns=2, dim=4))
    assert gradcheck(lambda *a: EPILOGUE(*a, **options), args)
    assert torch.autograd.gradgradcheck(lambda *a: EPILOGUE(*a, **options), args)


def test_epilogue_opcheck():
    args = epilogue_operands(torch.float32, (2,), rows=5, columns=4)
    opcheck(EPILOGUE, requiring(args), {"min_alpha": 0.1})
    grad = torch.randn(2, 5, 4)
    opcheck(torch.ops.stone.poincare_cdist_epilogue_backward.default, requiring((grad, *args)))


@pytest.mark.parametrize("mapped", [0, 1, 2, 3, None])
def test_epilogue_vmap(mapped):
    args = list(epilogue_operands(rows=5, columns=4))
    chosen = range(4) if mapped is None else [mapped]
    in_dims = tuple(args[i].dim() if i in chosen else None for i in range(4))
    factors = torch.linspace(0.8, 1, 3, dtype=torch.float64)
    args = [a.unsqueeze(-1) * factors if d is not None else a for a, d in zip(args, in_dims, strict=True)]
    grad = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(
        torch.vmap(EPILOGUE, in_dims)(*args),
        torch.vmap(OPERATOR.reference, in_dims)(*args),
        rtol=1e-11,
        atol=1e-12,
    )
    got = torch.vmap(torch.ops.stone.poincare_cdist_epilogue_backward, (None, *in_dims))(grad, *args)
    expected = torch.vmap(OPERATOR.backward_reference, (None, *in_dims))(grad, *args)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (1, 1, 1), (64, 65, 0)], ids=str)
def test_sizes_at_the_edge(shape):
    rows, columns, dim = shape
    x, y = torch.zeros(rows, dim, requires_grad=True), torch.zeros(columns, dim, requires_grad=True)
    result = poincare.cdist(x, y, mode="fast")
    assert torch.equal(result, torch.zeros(rows, columns))
    result.sum().backward()
    assert not x.grad.any() and not y.grad.any()


def test_epilogue_messages():
    product, x, y, c = epilogue_operands(torch.bfloat16, rows=3, columns=2, dim=4)
    message = r"product must be float32 \[3, 2\], got bfloat16 \[3, 2\]; it is x @ y.mT in the dtype that x computes in"
    with pytest.raises(RuntimeError, match=message):
        EPILOGUE(product.bfloat16(), x, y, c)
    wrong = (product.bfloat16(), x, y, c)
    with FakeTensorMode() as mode, pytest.raises(RuntimeError, match=message):
        EPILOGUE(*(mode.from_tensor(t) for t in wrong))
    with pytest.raises(RuntimeError, match=r"product must be float32 \[3, 2\], got float32 \[2, 3\]"):
        EPILOGUE(product.mT, x, y, c)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_epilogue_on_every_instruction_set(isa):
    program = (
        "import test_cdist_products as t\nfor dtype in t.DTYPES:\n    for options in t.OPTIONS:\n"
        "        t.test_epilogue_against_autograd_on_the_reference((), options, dtype)\nprint('agreed')"
    )
    done = run(program, STONEFX_CPU_ISA=isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


def test_it_compiles_whole():
    x, y = points(8, 16, dtype=torch.float32, seed=1), points(5, 16, dtype=torch.float32, seed=2)
    compiled = torch.compile(
        lambda x, y: poincare.cdist(x, y, mode="fast"), backend="aot_eager", fullgraph=True
    )
    torch.testing.assert_close(compiled(x, y), poincare.cdist(x, y), rtol=1e-4, atol=1e-5)


def test_wrong_input_is_told():
    x = points(3, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match="expected mode 'accurate' or 'fast', got 'exact'"):
        poincare.cdist(x, x, mode="exact")
    with pytest.raises(
        RuntimeError, match=r"poincare_cdist: x \[\*batch, n, dim\] and y \[\*batch, m, dim\] must have"
    ):
        poincare.cdist(x, x[:, :3], mode="fast")
    with pytest.raises(RuntimeError, match="min_alpha"):
        ops.poincare_cdist(x, x, min_alpha=-1.0, mode="fast")
