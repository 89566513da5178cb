"""Multinomial logistic regression in the ball against the printed formulas, with every class spelled out."""

import re

import pytest
import torch
from operator_cases import declared, overload, points, relative, requiring
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from stonefx import ops

NAME = "poincare_hyperplanes"


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spelled_mlr(x, p, a, c):
    """Ganea et al. 2018, equation 25, by the Moebius sum of every point with every class."""
    u, v = -p, x.unsqueeze(-2)
    uv, uu, vv = (u * v).sum(-1, keepdim=True), (u * u).sum(-1, keepdim=True), (v * v).sum(-1, keepdim=True)
    d = ((1 + 2 * c * uv + c * vv) * u + (1 - c * uu) * v) / (1 + 2 * c * uv + c**2 * uu * vv)
    length = a.norm(dim=-1)
    argument = 2 * c.sqrt() * (d * a).sum(-1) / (length * (1 - c * d.square().sum(-1)))
    return 2 / (1 - c * uu.squeeze(-1)) * length / c.sqrt() * torch.asinh(argument)


def spelled_hnnpp(x, z, r, c):
    """Shimizu et al. 2021, equation 6, as HypLL writes it."""
    s, length = c.sqrt(), z.norm(dim=0)
    lam = 2 / (1 - c * x.square().sum(-1, keepdim=True))
    angle = 2 * s * r
    return 2 * length / s * torch.asinh(s * lam / length * (x @ z) * angle.cosh() - (lam - 1) * angle.sinh())


CASES = {
    "poincare_mlr": (spelled_mlr, lambda: (points(6, 5), points(4, 5, seed=1), random(4, 5))),
    "hnnpp_mlr": (spelled_hnnpp, lambda: (points(6, 5), random(5, 4), 0.5 * random(4, seed=2))),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    formula, make = CASES[name]
    args = (*make(), torch.tensor(0.8, dtype=torch.float64))
    torch.testing.assert_close(overload(name)(*args), formula(*args), rtol=1e-12, atol=1e-12)
    got, expected = requiring(args), requiring(args)
    grad = random(6, 4, seed=3)
    overload(name)(*got).backward(grad)
    formula(*expected).backward(grad)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_narrow_dtypes(name, dtype):
    formula, make = CASES[name]
    args = [a.to(dtype) for a in make()]
    c = torch.tensor(0.8, dtype=torch.float64)
    got = getattr(ops, name)(*args, 0.8)
    assert got.dtype == dtype
    assert relative(got, formula(*(a.double() for a in args), c)) < 16 * torch.finfo(dtype).eps


@pytest.mark.parametrize("name", CASES)
def test_one_graph(name):
    args = requiring([a.float() for a in CASES[name][1]()])
    compiled = torch.compile(lambda *a: getattr(ops, name)(*a, 0.8), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*args), getattr(ops, name)(*args, 0.8))
    compiled(*args).sum().backward()
    assert all(a.grad.isfinite().all() for a in args)
    torch._dynamo.reset()


def operands(dtype=torch.float64, batch=(6,), planes=4, dim=5):
    x = points(*batch, dim).to(dtype)
    return (
        random(*batch, planes).to(dtype),
        x,
        random(planes, seed=1).to(dtype),
        random(planes, seed=2).to(dtype),
        torch.tensor(0.8, dtype=torch.float64),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype):
    args = operands(dtype)
    opcheck(overload(NAME), requiring(args))
    opcheck(overload(f"{NAME}_forward"), args, {"min_alpha": 0.1})
    opcheck(overload(f"{NAME}_backward"), requiring((random(6, 4).to(dtype), *args)))


@pytest.mark.parametrize("options", [{}, {"min_alpha": 0.7}], ids=str)
def test_gradcheck_twice(options):
    args = requiring(operands(batch=(2, 2), planes=3, dim=2))
    assert torch.autograd.gradcheck(lambda *a: overload(NAME)(*a, **options), args)
    assert torch.autograd.gradgradcheck(lambda *a: overload(NAME)(*a, **options), args)


@pytest.mark.parametrize("shape", [((), 1, 3), ((200,), 37, 20), ((3, 50), 200, 128), ((0,), 3, 2)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_kernels_against_the_float64_reference(dtype, shape):
    batch, planes, dim = shape
    args = operands(dtype, batch, planes, dim)
    exact = [a.double() for a in args]
    eps = max(torch.finfo(dtype).eps, 1e-15)
    assert relative(overload(NAME)(*args), declared(NAME).reference(*exact)) < 8 * eps
    grad = random(*batch, planes, seed=4).to(dtype)
    got = overload(f"{NAME}_backward")(grad, *args)
    for one, other in zip(got, declared(NAME).backward_reference(grad.double(), *exact), strict=True):
        assert one.shape == other.shape
        if one.dim() < 2:
            assert (one.double() - other).norm() <= 64 * eps * other.norm()


@pytest.mark.parametrize(
    "in_dims", [(0, 0, None, None, None), (None, 0, 0, None, None), (0, None, None, 0, 0)]
)
def test_vmap(in_dims):
    args = [a if d is None else torch.stack([a, a * 0.5]) for a, d in zip(operands(), in_dims, strict=True)]
    torch.testing.assert_close(
        torch.vmap(overload(NAME), in_dims)(*args), torch.vmap(declared(NAME).reference, in_dims)(*args)
    )
    grad = random(6, 4, seed=4)
    got = torch.vmap(overload(f"{NAME}_backward"), (None, *in_dims))(grad, *args)
    expected = torch.vmap(declared(NAME).backward_reference, (None, *in_dims))(grad, *args)
    torch.testing.assert_close(got, expected)


def zeros(*shape):
    return torch.zeros(shape)


ERRORS = [
    (
        NAME,
        (zeros(2, 3), zeros(2, 4), zeros(4), zeros(3), zeros()),
        "expected product [*batch, planes], x [*batch, dim], offset [planes] and scale [planes], got [2, 3], [2, 4], "
        "[4] and [3]; all points share the hyperplanes",
    ),
    (
        NAME,
        (zeros(2, 3), zeros(2, 4).double(), zeros(3), zeros(3), zeros()),
        "product and x must have one dtype, got float32 and float64; convert one of them with .to()",
    ),
    (
        "poincare_mlr",
        (zeros(2, 3), zeros(5, 4), zeros(5, 4), zeros()),
        "expected x [*batch, dim], p [classes, dim] and a [classes, dim], got [2, 3], [5, 4] and [5, 4]; p has a point "
        "and a a normal a class",
    ),
    (
        "hnnpp_mlr",
        (zeros(2, 3), zeros(5, 3), zeros(5), zeros()),
        "expected x [*batch, dim], z [dim, classes] and r [classes], got [2, 3], [5, 3] and [5]; z is the transpose of "
        "nn.Linear.weight",
    ),
]


@pytest.mark.parametrize(("name", "args", "message"), ERRORS)
def test_messages(name, args, message):
    with pytest.raises(RuntimeError, match=re.escape(f"stone::{name}: {message}")):
        overload(name)(*args)
    with FakeTensorMode() as mode, pytest.raises(RuntimeError, match=re.escape(message)):
        overload(name)(*map(mode.from_tensor, args))
