"""Distance matrices as operators: registration, shapes, vmap, compile, instruction sets, errors."""

import re

import pytest
import torch
from cdist_cases import NAMES, operands, space
from operator_cases import module, overload, requiring
from test_operator_instruction_sets import INSTRUCTION_SETS, run
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.library import opcheck

from stonefx import ops


def reference(name):
    return module(name).reference


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck(name, dtype):
    args = operands(name, dtype, batch=(2,))
    opcheck(overload(name), requiring(args))
    opcheck(overload(f"{name}_forward"), args)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_opcheck_of_gradients(name, dtype):
    """Traces the derivative of the derivative with sizes that vary: a quarter of a minute each."""
    args = operands(name, dtype, batch=(2,))
    opcheck(overload(f"{name}_backward"), requiring((torch.randn(2, 5, 4, dtype=dtype), *args)))


@pytest.mark.parametrize("name", NAMES)
def test_twin_and_tags(name):
    operator, twin = str(overload(name)._schema), str(overload(f"{name}_forward")._schema)
    assert twin == operator.replace(f"stone::{name}(", f"stone::{name}_forward(")
    for suffix in ("", "_forward", "_backward"):
        tags = overload(name + suffix).tags
        assert torch.Tag.pt2_compliant_tag in tags and torch.Tag.needs_contiguous_strides in tags


SHAPES = [
    ((5, 3), (4, 3)),
    ((2, 65, 3), (130, 3)),
    ((2, 1, 5, 3), (3, 4, 3)),
    ((0, 3), (4, 3)),
    ((5, 3), (0, 3)),
]


@pytest.mark.parametrize(("left", "right"), [*SHAPES, ((3, 0, 5, 2), (4, 2)), ((200, 9), (7, 9))], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_shapes(name, left, right):
    x, y, c = operands(name, rows=1, columns=1, dim=space(name, left[-1]))
    x, y = (
        p.expand(s) * torch.linspace(0.2, 1, s[-2], dtype=p.dtype)[:, None]
        for p, s in ((x, left), (y, right))
    )
    got = overload(f"{name}_forward")(x, y, c)
    torch.testing.assert_close(got, reference(name)(x, y, c), rtol=1e-12, atol=1e-14)
    grads = overload(f"{name}_backward")(torch.ones_like(got), x, y, c)
    assert [g.shape for g in grads] == [(*got.shape[:-2], *p.shape[-2:]) for p in (x, y, c.reshape(1, 1))]
    if not got.numel():
        assert not any(g.any() for g in grads)


@pytest.mark.parametrize("name", NAMES)
def test_points_without_entries(name):
    x = torch.empty(3, 0, dtype=torch.float64)
    if name != "lorentz_cdist":
        assert not overload(f"{name}_forward")(x, x, torch.tensor(1.0)).any()


@pytest.mark.parametrize("name", NAMES)
def test_strides_do_not_matter(name):
    x, y, c = operands(name, rows=70, columns=9)
    other = (x.t().contiguous().t(), torch.stack([y, y], -1)[..., 0], c)
    assert torch.equal(overload(name)(*other), overload(name)(x, y, c))


@pytest.mark.parametrize("in_dims", [(0, None, None), (None, 1, None), (None, None, 0), (0, 1, 0)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_vmap(name, in_dims):
    x, y, c = operands(name)
    factors = torch.linspace(0.5, 1, 3, dtype=torch.float64)
    args = [
        p if d is None else torch.stack([p * f for f in factors], d)
        for p, d in zip((x, y, c), in_dims, strict=True)
    ]
    got = torch.vmap(overload(name), in_dims)(*args)
    torch.testing.assert_close(got, torch.vmap(reference(name), in_dims)(*args), rtol=1e-12, atol=1e-14)

    grad = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    got = torch.vmap(overload(f"{name}_backward"), (None, *in_dims))(grad, *args)
    expected = torch.vmap(module(name).gradients, (None, *in_dims))(grad, *args)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_for_training_and_every_size(name):
    torch._dynamo.reset()
    function = getattr(ops, name)
    compiled = torch.compile(lambda *a: function(*a).sin(), backend="aot_eager", fullgraph=True, dynamic=True)
    for rows in (3, 7):
        args = operands(name, torch.float32, rows=rows)
        with torch.no_grad():
            torch.testing.assert_close(compiled(*args), function(*args).sin())
        eager, traced = requiring(args), requiring(args)
        function(*eager).sin().sum().backward()
        compiled(*traced).sum().backward()
        for one, other in zip(traced, eager, strict=True):
            torch.testing.assert_close(one.grad, other.grad)
    torch._dynamo.reset()


@pytest.mark.parametrize("name", NAMES)
def test_threads_divide_the_tiles(name):
    args = operands(name, torch.float32, rows=300, columns=200, dim=40)
    grad = torch.randn(300, 200, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [overload(name)(*args), *overload(f"{name}_backward")(grad, *args)]
        torch.set_num_threads(2)
        together = [overload(name)(*args), *overload(f"{name}_backward")(grad, *args)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


PROGRAM = """
import torch
from cdist_cases import DTYPES, NAMES, operands
from operator_cases import module, overload, relative
for name in NAMES:
    written = module(name)
    for dtype in DTYPES:
        eps = torch.finfo(dtype).eps
        for rows, columns, dim in ((1, 1, 2), (70, 67, 33)):
            x, y, c = operands(name, dtype, rows=rows, columns=columns, dim=dim)
            exact = written.reference(x.double(), y.double(), c)
            got = overload(name)(x, y, c).double()
            assert ((got - exact).abs() <= 4 * max(eps, 1e-15) * exact).all(), (name, dtype)
            grad = torch.randn(rows, columns, generator=torch.Generator().manual_seed(1)).to(dtype)
            expected = written.gradients(grad.double(), x.double(), y.double(), c)
            for one, other in zip(overload(name + "_backward")(grad, x, y, c), expected):
                assert relative(one, other) < 64 * max(eps, 1e-15), (name, dtype)
print("agreed")
"""


@pytest.mark.parametrize("isa", [*INSTRUCTION_SETS, None], ids=str)
def test_every_instruction_set_and_the_fallback(isa):
    done = run(PROGRAM, **({"STONEFX_CPU_ISA": isa} if isa else {"STONEFX_NATIVE": "0"}))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "agreed"


def f(*shape, dtype=torch.float32):
    return torch.zeros(shape, dtype=dtype)


ERRORS = [
    (
        (f(3), f(2, 3), f()),
        ": x must be [*batch, points, dim] with at least two dimensions, got [3]; use x.unsqueeze(0)",
    ),
    (
        (f(2, 3), f(2, 3, dtype=torch.int64), f()),
        ": y must be float32, float64, bfloat16 or float16, got int64; convert it, for instance with y.float()",
    ),
    (
        (f(2, 3), f(2, 3, dtype=torch.float64), f()),
        ": x and y must have one dtype, got float32 and float64; convert one of them with .to()",
    ),
    (
        (f(2, 3), f(2, 4), f()),
        ": x [*batch, n, dim] and y [*batch, m, dim] must have one last dimension and batch dimensions that "
        "broadcast, got [2, 3] and [2, 4]; reshape or unsqueeze one of them",
    ),
    (
        (f(2, 5, 3), f(3, 4, 3), f()),
        ": x [*batch, n, dim] and y [*batch, m, dim] must have one last dimension and batch dimensions that "
        "broadcast, got [2, 5, 3] and [3, 4, 3]; reshape or unsqueeze one of them",
    ),
    (
        (f(2, 5, 3), f(4, 3), f(2, 1)),
        ": c must be 0-dim or broadcast to [*batch, 1] = [2, 1, 1], got [2, 1]; a curvature for each row needs a "
        "last dimension of 1: c.unsqueeze(-1)",
    ),
]


@pytest.mark.parametrize(("args", "message"), ERRORS)
@pytest.mark.parametrize("name", NAMES)
def test_messages_of_kernel_and_fake(name, args, message):
    for suffix in ("", "_forward"):
        with pytest.raises(RuntimeError, match="^" + re.escape(f"stone::{name}{message}") + "$"):
            overload(name + suffix)(*args)
    with FakeTensorMode() as mode, pytest.raises(RuntimeError, match=re.escape(message)):
        overload(name)(*map(mode.from_tensor, args))


@pytest.mark.parametrize("name", NAMES)
def test_other_errors(name):
    x, y, c = operands(name)
    with pytest.raises(
        RuntimeError, match=r"_backward: grad must have the shape of the result, \[5, 4\], got \[4, 5\]"
    ):
        overload(f"{name}_backward")(torch.zeros(4, 5, dtype=torch.float64), x, y, c)
    with pytest.raises(ValueError, match="the curvature c must be positive and finite, got -1"):
        getattr(ops, name)(x, y, -1.0)


def test_a_guard_must_not_be_negative():
    x, y, c = operands("poincare_cdist")
    with pytest.raises(
        RuntimeError, match="stone::poincare_cdist: min_alpha must be at least 0, got -1; leave it out"
    ):
        overload("poincare_cdist")(x, y, c, min_alpha=-1.0)
