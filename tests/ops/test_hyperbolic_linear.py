"""hyper_butterfly, poincare_linear and lorentz_linear: against the maps they are made of, float64 and 50 digits."""

import math
import re

import mpmath
import pytest
import torch
from operator_cases import DTYPES, declared, overload, points, requiring
from test_operator_instruction_sets import run
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck
from torch.nn import functional

from stonefx import native, ops
from stonefx.geometry import poincare

NAMES = ("hyper_butterfly", "poincare_linear_epilogue", "add_time")
GUARDS = {
    "hyper_butterfly": [
        {},
        {"atanh_limit": 0.5, "tanh_limit": 0.6},
        {"log_min_norm": 0.3, "exp_min_scaled": 0.4},
    ],
    "poincare_linear_epilogue": [
        {},
        {"project_limit": 0.6},
        {"matvec_limit": 0.5, "min_norm": 0.1, "min_denominator": 1e-15, "denominator_offset": 1e-5},
    ],
    "add_time": [{}],
}


def normal(*shape, dtype=torch.float64, seed=0, scale=1.0):
    return (
        torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale
    ).to(dtype)


def arguments(name, rows=5, size=8, dtype=torch.float64, by_row=True, bias=True):
    """Operands of one call; `size` is the power of two, or the width of the result."""
    c = torch.linspace(0.2, 1.1, rows, dtype=torch.float64).reshape(-1, 1) if by_row else torch.tensor(0.7)
    c = c.to(dtype if dtype == torch.float64 else torch.float32)
    if name == "hyper_butterfly":
        stages = size.bit_length()
        return points(rows, size, dtype=dtype), normal(stages, size // 2, 2, dtype=dtype, scale=0.7), c
    if name == "add_time":
        return normal(rows, size, dtype=dtype), c
    product = normal(rows, size, dtype=dtype, seed=3, scale=0.3)
    return points(rows, 7, dtype=dtype), product, points(size, dtype=dtype, seed=4) if bias else None, c


def close(got, expected, bound, scale=0.0):
    assert got.shape == expected.shape
    assert (got.double() - expected).norm() <= bound * (expected.norm() + scale)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name, dtype):
    bound = 16 * torch.finfo(dtype).eps if dtype != torch.float64 else 1e-11
    for rows, size, by_row, bias in [
        (1, 2, False, True),
        (5, 16, True, False),
        (70, 64, True, True),
        (600, 8, False, True),
    ]:
        args = arguments(name, rows, size, dtype, by_row, bias)
        exact = [None if a is None else a.double() for a in args]
        for guards in GUARDS[name]:
            got = overload(f"{name}_forward")(*args, **guards)
            assert got.dtype == dtype
            close(got, declared(name).reference(*exact, **guards), bound)
            grad = normal(*got.shape, dtype=dtype, seed=5)
            grads = overload(f"{name}_backward")(grad, *args, **guards)
            expected = declared(name).backward_reference(grad.double(), *exact, **guards)
            for one, other in zip(grads, expected, strict=True):
                # inner products may cancel: to the rounding of terms of the gradient's size
                close(one, other, 8 * bound, scale=grad.double().norm())


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck_twice(name):
    for guards in GUARDS[name]:
        args = requiring(arguments(name, 3, 4))
        assert torch.autograd.gradcheck(lambda *a, g=guards: overload(name)(*a, **g), args)
        assert torch.autograd.gradgradcheck(lambda *a, g=guards: overload(name)(*a, **g), args)


@pytest.mark.parametrize("bias", [True, False])
def test_gradcheck_of_the_layers(bias):
    weight = normal(4, 7, seed=8)
    offset = points(4, seed=4) if bias else None
    args = requiring(
        (points(3, 7), weight, *([offset] if bias else []), torch.tensor(0.7, dtype=torch.float64))
    )

    def call(layer):
        return lambda x, w, *rest: overload(layer)(x, w, rest[0] if bias else None, rest[-1])

    for layer in ("poincare_linear", "lorentz_linear"):
        assert torch.autograd.gradcheck(call(layer), args)
        assert torch.autograd.gradgradcheck(call(layer), args)


def test_poincare_linear_is_the_maps_in_a_row():
    x, weight, bias, c = points(30, 6), normal(5, 6, seed=1), points(5, seed=2), 0.8
    expected = poincare.expmap0(functional.linear(poincare.logmap0(x, c), weight), c)
    torch.testing.assert_close(ops.poincare_linear(x, weight, c=c), expected, rtol=1e-12, atol=1e-14)
    expected = poincare.mobius_add(expected, bias, c)
    torch.testing.assert_close(ops.poincare_linear(x, weight, bias, c), expected, rtol=1e-11, atol=1e-13)
    held = ops.poincare_linear(x, 9 * weight, bias, c, project_limit=0.9)
    assert (math.sqrt(c) * held.norm(dim=-1) <= 0.9 * (1 + 1e-15)).all()


def test_hyper_butterfly_is_the_maps_in_a_row():
    x, weight, c = arguments("hyper_butterfly", 30, 32, by_row=False)
    expected = poincare.expmap0(ops.butterfly(poincare.logmap0(x, c), weight), c)
    torch.testing.assert_close(ops.hyper_butterfly(x, weight, c), expected, rtol=1e-12, atol=1e-14)


def test_lorentz_linear_is_on_the_hyperboloid():
    x, c = ops.add_time(normal(20, 6), 0.4), 0.4
    y = ops.lorentz_linear(x, normal(3, 7, seed=1), normal(3, seed=2), c)
    inner = -y[:, 0].square() + y[:, 1:].square().sum(-1)
    torch.testing.assert_close(inner, torch.full_like(inner, -1 / c), rtol=1e-12, atol=1e-12)


def hybonet(x, weight, bias, scale, offset=1.1, min_squares=1e-8):
    """The layer as its authors spell it, for c = 1."""
    y = functional.linear(x, weight, bias)
    time = torch.sigmoid(y[..., :1]) * scale + offset
    space = y[..., 1:]
    factor = (time * time - 1) / (space * space).sum(-1, keepdim=True).clamp_min(min_squares)
    return torch.cat([time, space * factor.sqrt()], -1)


def test_lorentz_linear_with_a_scale_is_that_of_hybonet():
    x, weight, bias = ops.add_time(normal(20, 6)), normal(4, 7, seed=1), normal(4, seed=2)
    weight[1:, :] *= torch.tensor([1.0, 1e-6, 1.0], dtype=torch.float64)[:, None]
    bias[1:] = 0
    scale = torch.tensor(3.0, dtype=torch.float64)
    x[0] = 0  # no space part
    own, plain = requiring((x, weight, bias, scale)), requiring((x, weight, bias, scale))
    got = ops.lorentz_linear(*own[:3], 1.0, own[3], min_squares=1e-8)
    expected = hybonet(*plain)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)
    grad = normal(20, 4, seed=3)
    for one, other in zip(
        torch.autograd.grad(got, own, grad), torch.autograd.grad(expected, plain, grad), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("c", [1e-3, 0.4, 1.0, 1e3])
def test_lorentz_linear_with_a_scale_is_on_the_hyperboloid(c, dtype):
    y = normal(60, 5, seed=4)
    y[:, 1:] *= torch.logspace(-12, 6, 60, dtype=torch.float64)[:, None]
    y[0, 1:] = 0
    y[1:3, 0] = torch.tensor([-1e4, 1e4], dtype=torch.float64)
    y = y.to(dtype) if dtype != torch.float16 else y.clamp(-6e4, 6e4).to(dtype)
    got = overload("lorentz_rescale")(
        y, torch.tensor(c, dtype=torch.float64), torch.tensor(7.0), offset=1.1
    ).double()
    eps = torch.finfo(dtype).eps
    exact = y.double()
    with mpmath.workdps(40):
        for row, (t, *s) in zip(got.tolist(), exact.tolist(), strict=True):
            w = mpmath.mpf(1.1) + 7 / (1 + mpmath.exp(-t))
            squares = mpmath.fsum(mpmath.mpf(e) ** 2 for e in s)
            factor = mpmath.sqrt((w * w - 1) / (c * squares)) if squares else mpmath.mpf(0)
            expected = [(w if squares else 1) / mpmath.sqrt(c), *(factor * e for e in s)]
            length = mpmath.sqrt(mpmath.fsum(e * e for e in expected))
            error = mpmath.sqrt(mpmath.fsum((a - b) ** 2 for a, b in zip(row, expected, strict=True)))
            assert error <= 8 * eps * length
    on_sheet = -got[:, 0].square() + got[:, 1:].square().sum(-1)
    assert ((on_sheet + 1 / c).abs() <= 8 * eps * got.square().sum(-1)).all()


def test_an_offset_below_one_stays_on_the_hyperboloid():
    y, c = normal(30, 4, seed=5), torch.tensor(0.5, dtype=torch.float64)
    got = overload("lorentz_rescale")(y, c, torch.tensor(0.3, dtype=torch.float64), offset=0.2)
    assert torch.equal(got[:, 1:], torch.zeros(30, 3, dtype=torch.float64))
    torch.testing.assert_close(got[:, 0], torch.full((30,), 2**0.5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-8, 0.1, 0.9, 1 - 1e-6])
def test_poincare_linear_against_fifty_digits(size, dtype):
    eps, dim, c = torch.finfo(dtype).eps, 5, 0.9
    x = (functional.normalize(normal(3, dim), dim=-1) * size / math.sqrt(c)).to(dtype)
    product, bias = (x.double() @ normal(4, dim, seed=1).t() * 0.4).to(dtype), points(4, dtype=dtype, seed=2)
    got = overload("poincare_linear_epilogue_forward")(x, product, bias, torch.tensor(c, dtype=torch.float64))
    with mpmath.workdps(50):
        k, b = mpmath.mpf(c), [mpmath.mpf(v) for v in bias.tolist()]
        for row, m, y in zip(x.tolist(), product.tolist(), got.tolist(), strict=True):
            m = [mpmath.mpf(v) for v in m]
            u = mpmath.sqrt(k * mpmath.fsum(mpmath.mpf(v) ** 2 for v in row))
            length = mpmath.sqrt(k * mpmath.fsum(v * v for v in m))
            log = mpmath.atanh(u) / u if u else mpmath.mpf(1)
            p = [mpmath.tanh(log * length) / length * v if length else v for v in m]
            pb, pp, bb = (
                mpmath.fsum(s * t for s, t in zip(*two, strict=True)) for two in ((p, b), (p, p), (b, b))
            )
            d = 1 + 2 * k * pb + k * k * pp * bb
            exact = [
                ((1 + 2 * k * pb + k * bb) * s + (1 - k * pp) * t) / d for s, t in zip(p, b, strict=True)
            ]
            error = mpmath.sqrt(mpmath.fsum((mpmath.mpf(v) - w) ** 2 for v, w in zip(y, exact, strict=True)))
            condition = float(1 / (1 - u**2) + 1 / (1 - k * pp))
            bound = 4 * eps + 16 * condition * torch.finfo(torch.float64).eps
            assert error <= bound * mpmath.sqrt(mpmath.fsum(w * w for w in exact))


@pytest.mark.parametrize("name", NAMES)
def test_batches(name):
    for batch in [(), (1,), (2, 3), (0,), (3, 0, 2)]:
        count = math.prod(batch)
        args = arguments(name, count, 8, by_row=False)
        rows = {"hyper_butterfly": (0,), "poincare_linear_epilogue": (0, 1), "add_time": (0,)}[name]
        shaped = [a.reshape(*batch, a.shape[-1]) if i in rows else a for i, a in enumerate(args)]
        got = overload(name)(*shaped)
        assert got.shape[:-1] == batch and got.is_contiguous()
        assert torch.equal(got.reshape(count, got.shape[-1]), overload(name)(*args))
        grads = overload(f"{name}_backward")(torch.ones_like(got), *shaped)
        assert grads[0].shape == shaped[0].shape and grads[-1].shape == (*batch, 1)


@pytest.mark.parametrize("mapped", [0, 1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_vmap(name, mapped):
    args = list(arguments(name, 4, 8, by_row=False))
    index = min(mapped, len(args) - 1)
    args[index] = torch.stack([args[index], 0.5 * args[index], 0.9 * args[index]])
    in_dims = tuple(0 if i == index else None for i in range(len(args)))
    exact = declared(name)
    got = torch.vmap(overload(name), in_dims)(*args)
    torch.testing.assert_close(got, torch.vmap(exact.reference, in_dims)(*args), rtol=1e-11, atol=1e-13)
    grad = torch.ones_like(got[0])
    got = torch.vmap(overload(f"{name}_backward"), (None, *in_dims))(grad, *args)
    expected = torch.vmap(exact.backward_reference, (None, *in_dims))(grad, *args)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name):
    for guards in GUARDS[name][-1:]:
        args = arguments(name)
        opcheck(overload(name), requiring(args), guards)
        opcheck(overload(f"{name}_forward"), args, guards)
        opcheck(overload(f"{name}_backward"), requiring((overload(name)(*args), *args)), guards)


@pytest.mark.parametrize("name", ["poincare_linear", "lorentz_linear"])
def test_opcheck_of_composites(name):
    args = (points(3, 7), normal(4, 7), points(4, seed=4), torch.tensor(0.7, dtype=torch.float64))
    opcheck(
        overload(name),
        requiring(args),
        test_utils=("test_schema", "test_faketensor", "test_aot_dispatch_dynamic"),
    )
    assert torch.equal(overload(name)(*args), overload(f"{name}_forward")(*args))
    assert torch.equal(overload(name)(*args), getattr(ops, name)(*args))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("name", ["hyper_butterfly", "poincare_linear", "lorentz_linear"])
def test_compiles_in_one_graph(name, backend):
    torch._dynamo.reset()
    if name == "hyper_butterfly":
        args = arguments(name, 5, 8, torch.float32, by_row=False)
    else:
        args = tuple(a.float() for a in (points(5, 7), normal(4, 7), points(4, seed=4), torch.tensor(0.7)))
    function = lambda *a: getattr(ops, name)(torch.sin(a[0]), *a[1:]).cos()  # noqa: E731
    eager, traced = requiring(args), requiring(args)
    function(*eager).sum().backward()
    torch.compile(function, backend=backend, fullgraph=True)(*traced).sum().backward()
    for one, other in zip(traced, eager, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("isa", native.build_info()["instruction_sets"])
def test_every_instruction_set(isa):
    if isa not in native.build_info()["instruction_sets_usable"]:
        pytest.skip(f"this CPU lacks {isa}")
    program = (
        "import test_hyperbolic_linear as t\n"
        "for name in t.NAMES:\n    for dtype in t.DTYPES:\n        t.test_values_and_gradients(name, dtype)\n"
        "print('agreed')"
    )
    done = run(program, STONEFX_CPU_ISA=isa)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


def test_the_origin_has_the_gradient_of_the_matrix():
    x, weight = torch.zeros(2, 3, dtype=torch.float64), normal(4, 3)
    x, weight = requiring((x, weight))
    ops.poincare_linear(x, weight, c=0.5).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(2, 3))
    assert torch.equal(weight.grad, torch.zeros_like(weight))


MESSAGES = [
    (
        "poincare_linear_epilogue",
        (torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(5), torch.tensor(1.0)),
        "stone::poincare_linear_epilogue: expected x [*batch, in], product [*batch, out] and bias [out], got [2, 3], "
        "[2, 4] and [5]; product is torch.nn.functional.linear(x, weight)",
    ),
    (
        "poincare_linear_epilogue",
        (torch.zeros(2, 3), torch.zeros(3, 4), None, torch.tensor(1.0)),
        "stone::poincare_linear_epilogue: expected x [*batch, in], product [*batch, out] and bias [out], got [2, 3], "
        "[3, 4] and none; product is torch.nn.functional.linear(x, weight)",
    ),
    (
        "hyper_butterfly",
        (torch.zeros(2, 6), torch.zeros(2, 3, 2), torch.tensor(1.0)),
        "stone::hyper_butterfly: the last dimension of x must be a power of two, 2 or more, got [2, 6]; pad it, for "
        "instance with torch.nn.functional.pad",
    ),
    (
        "add_time",
        (torch.zeros(8, 3), torch.zeros(8)),
        "stone::add_time: c must be 0-dim or broadcast to [*batch, 1] = [8, 1], got [8]; a curvature for each row "
        "needs a last dimension of 1: c.unsqueeze(-1)",
    ),
]


@pytest.mark.parametrize(("name", "args", "message"), MESSAGES)
def test_messages_of_kernel_and_fake(name, args, message):
    for suffix in ("", "_forward"):
        with pytest.raises(RuntimeError, match=f"^{re.escape(message)}$"):
            overload(name + suffix)(*args)
    with FakeTensorMode() as mode, pytest.raises(RuntimeError, match=re.escape(message)):
        overload(name)(*(None if a is None else mode.from_tensor(a) for a in args))


@pytest.mark.parametrize("c", [0.0, -1.0, float("nan")])
def test_a_number_as_curvature_must_be_positive(c):
    x, weight = torch.zeros(2, 4), torch.zeros(3, 4)
    for call in (
        lambda: ops.poincare_linear(x, weight, c=c),
        lambda: ops.lorentz_linear(x, weight, c=c),
        lambda: ops.hyper_butterfly(x, torch.zeros(1, 2, 2), c),
    ):
        with pytest.raises(ValueError, match="the curvature c must be positive and finite, got"):
            call()
