"""Functions of the geometry called the short way: what they give, record and refuse is what the general way does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from stonefx import native
from stonefx.geometry import klein, lorentz, poincare, sphere
from stonefx.geometry.function import Function

pytestmark = pytest.mark.skipif(isinstance(native.calls(), str), reason=str(native.calls()))

MODULES = (poincare.algebra, poincare.maps, poincare.metric, poincare.positions, klein, sphere,
           lorentz.maps, lorentz.metric, lorentz.positions)  # fmt: skip
FUNCTIONS = [f for module in MODULES for f in vars(module).values() if isinstance(f, Function)]
NAMES = [f"{f._call._operator._opname}" for f in FUNCTIONS]


def _operands(function: Function, dtype: torch.dtype = torch.float64, grad: bool = False) -> list[Tensor]:
    """Rows that suit every model, with a batch that broadcasts, and tensors for the numbers."""
    generator = torch.Generator().manual_seed(0)
    count = sum(not a.kwarg_only for a in function._call._operator._schema.arguments) - len(function._numbers)
    shapes = [(3, 1, 4), (2, 4), (3, 2, 4)][:count]
    rows = [0.3 * torch.rand(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    values = {"c": 0.7, "t": 0.25, "r": 0.5}
    numbers = [torch.tensor(values[label], dtype=torch.float64) for label in function._numbers]
    return [t.to(dtype).requires_grad_(grad) for t in (*rows, *numbers)]


def _general(function: Function) -> Callable[..., Tensor]:
    """The same function without its short way."""
    general = Function.__new__(Function)
    for slot in Function.__slots__:
        setattr(general, slot, getattr(function, slot))
    general._direct = None
    return general


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_results_are_those_of_the_general_way(function: Function, dtype: torch.dtype) -> None:
    operands = _operands(function, dtype)
    short = function._direct(*operands)
    assert short is not NotImplemented
    assert torch.equal(short, _general(function)(*operands))


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
def test_gradients_are_those_of_the_general_way(function: Function) -> None:
    operands = _operands(function, grad=True)
    short, general = function(*operands), _general(function)(*operands)
    assert "Recorded" in short.grad_fn.name()
    upstream = torch.linspace(-1, 1, short.numel(), dtype=torch.float64).reshape(short.shape)
    for mine, other, operand in zip(
        torch.autograd.grad(short, operands, upstream),
        torch.autograd.grad(general, operands, upstream),
        operands,
        strict=True,
    ):
        assert mine.shape == operand.shape
        assert torch.equal(mine, other)


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
def test_second_gradients(function: Function) -> None:
    operands = _operands(function, grad=True)
    assert torch.autograd.gradgradcheck(function, operands, atol=1e-6)


def test_only_what_is_wanted_gets_a_gradient() -> None:
    x = torch.rand(3, 4).mul_(0.3).requires_grad_()
    y = torch.rand(3, 4).mul_(0.3)
    poincare.dist(x, y).sum().backward()
    assert x.grad is not None and y.grad is None
    with torch.no_grad():
        assert not poincare.dist(x, y).requires_grad
    with torch.inference_mode():
        assert poincare.dist(x, y).is_inference()
    # a number first seen under inference mode can still be saved for a backward
    with torch.inference_mode():
        poincare.dist(x, y, 0.123)
    poincare.dist(x, y, 0.123).sum().backward()


def test_numbers_are_operands() -> None:
    x = torch.rand(3, 4) * 0.3
    for c in (1, 1.0, torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float64), torch.ones(3, 1)):
        assert torch.equal(poincare.dist0(x, c), poincare.dist0(x))
    assert torch.equal(poincare.mobius_scalar_mul(2, x), poincare.mobius_scalar_mul(2.0, x))
    # alternating numbers are not mixed up
    first, second = poincare.dist0(x, 0.5), poincare.dist0(x, 2.0)
    assert torch.equal(poincare.dist0(x, 0.5), first) and torch.equal(poincare.dist0(x, 2.0), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("c", [0.0, -1.0, float("inf"), float("nan"), 0, -3])
def test_curvatures_that_are_none(c: float) -> None:
    with pytest.raises(ValueError, match=r"dist0: the curvature c must be positive and finite"):
        poincare.dist0(torch.zeros(2), c)


@pytest.mark.parametrize("c", [0.0, -1.0, float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_curvature_tensors_that_are_none(c: float, dtype: torch.dtype) -> None:
    x = torch.tensor([[0.1, 0.2], [0.3, -0.1]])
    calls = {
        "dist": lambda c: poincare.dist(x, x.flip(0), c),
        "logmap": lambda c: lorentz.logmap(x, x.flip(0), c),
        "cdist": lambda c: lorentz.cdist(x, x, c),
        "expmap": lambda c: sphere.expmap(x, x.flip(0), c),
        "gyromidpoint": lambda c: poincare.gyromidpoint(x, None, c),
    }
    for name, call in calls.items():
        for one in (torch.tensor(c, dtype=dtype), torch.nn.Parameter(torch.tensor(c, dtype=dtype))):
            with pytest.raises(
                ValueError, match=rf"{name}: the curvature c must be positive and finite, got {c}"
            ):
                call(one)
    # several are not looked at, nor those of a transform, nor what a computation left as NaN
    assert poincare.dist(x, x.flip(0), torch.full((2, 1), -1.0)).isnan().all()
    assert torch.vmap(lambda k: lorentz.dist(x[0], x[1], k))(torch.tensor([1.0, -1.0])).isnan().tolist() == [
        False,
        True,
    ]
    assert lorentz.dist(x[0], x[1], torch.tensor(float("nan"))).isnan()


def test_numbers_that_are_none() -> None:
    x = torch.zeros(2)
    with pytest.raises(ValueError, match=r"mobius_scalar_mul: r must be finite, got inf"):
        poincare.mobius_scalar_mul(float("inf"), x)
    with pytest.raises(ValueError, match=r"geodesic: t must be finite, got nan"):
        lorentz.geodesic(x, x, float("nan"))


def test_errors_are_those_of_the_operator() -> None:
    with pytest.raises(
        RuntimeError, match=r"poincare_dist: x and y must have one dtype, got float32 and float64"
    ):
        poincare.dist(torch.zeros(2), torch.zeros(2, dtype=torch.float64))
    with pytest.raises(RuntimeError, match=r"poincare_dist0: x must be .*int64"):
        poincare.dist0(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(RuntimeError, match=r"project: eps must be at least 0, got -0.5"):
        poincare.project(torch.zeros(2), eps=-0.5)


def test_what_is_not_plain_goes_the_general_way() -> None:
    class Subclass(torch.Tensor):
        pass

    direct = poincare.metric._DIST0._direct
    x = torch.rand(3, 4) * 0.3
    assert direct(x, 1.0) is not NotImplemented
    assert direct(torch.nn.Parameter(x), 1.0) is not NotImplemented
    with torch.inference_mode():
        assert direct(x, 1.0) is not NotImplemented
    for operands in (
        (x,),
        (x, 1.0, 1.0),
        (x, True),
        (x, "1"),
        (x, None),
        (x.numpy(), 1.0),
        (x.as_subclass(Subclass), 1.0),
    ):
        assert direct(*operands) is NotImplemented
    assert direct(x, 1.0, min_gap="0") is NotImplemented
    assert direct(x, 1.0, gap=0.0) is NotImplemented
    assert direct(torch.view_as_complex(x.reshape(3, 2, 2)).conj().imag, 1.0) is NotImplemented
    assert direct(x.to_sparse(), 1.0) is NotImplemented

    class Functions(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            return function(*args, **(kwargs or {}))

    class Dispatch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(str(function))
            return function(*args, **(kwargs or {}))

    seen: list[str] = []
    with Functions():
        assert direct(x, 1.0) is NotImplemented
    with Dispatch():
        assert direct(x, 1.0) is NotImplemented
        poincare.dist0(x)
    assert "stone.poincare_dist0_forward.default" in seen
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        assert direct(dual, 1.0) is NotImplemented
    assert torch.func.vmap(lambda row: torch.ones(()) * (direct(row, 1.0) is NotImplemented))(x).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert poincare.dist0(x).dtype == torch.float32


def test_an_operand_changed_in_place_is_no_stale_gradient() -> None:
    x = torch.rand(3, 4).mul_(0.3).requires_grad_()
    y = x * 1.0
    result = poincare.dist0(y)
    with torch.no_grad():
        y.mul_(0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_saved_tensors_are_freed_kept_and_packed() -> None:
    x = torch.rand(3, 4).mul_(0.3).requires_grad_()
    result = poincare.dist0(x).sum()
    result.backward(retain_graph=True)
    result.backward()
    with pytest.raises(RuntimeError, match="second time"):
        result.backward()
    packed: list[torch.Size] = []

    def pack(tensor: Tensor) -> Tensor:
        packed.append(tensor.shape)
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        again = poincare.dist0(x).sum()
    (gradient,) = torch.autograd.grad(again, x)
    assert x.shape in packed
    assert torch.equal(gradient, x.grad / 2)


def test_a_view_of_a_parameter_in_a_graph_of_other_steps() -> None:
    weight = torch.nn.Parameter(torch.rand(5, 4, dtype=torch.float64) * 0.3)
    result = poincare.dist(weight[:2], weight[3:]).exp().sum() + poincare.dist0(weight).sum()
    (gradient,) = torch.autograd.grad(result, weight)
    step = torch.zeros_like(weight)
    step[3, 1] = 1e-6

    def value(w: Tensor) -> Tensor:
        return poincare.dist(w[:2], w[3:]).exp().sum() + poincare.dist0(w).sum()

    with torch.no_grad():
        slope = (value(weight + step) - value(weight - step)) / 2e-6
    torch.testing.assert_close(gradient[3, 1], slope, rtol=1e-6, atol=1e-8)


def test_the_profiler_sees_the_operator() -> None:
    x = torch.rand(3, 4) * 0.3
    with torch.profiler.profile() as profile:
        poincare.dist0(x)
    assert any("poincare_dist0" in event.key for event in profile.key_averages())


def test_compiled_autograd() -> None:
    x = torch.rand(3, 4).mul_(0.3).requires_grad_()
    (expected,) = torch.autograd.grad(poincare.dist0(x).sum(), x)
    with torch._dynamo.compiled_autograd._enable(lambda graph: graph):
        poincare.dist0(x).sum().backward()
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"torch_headers": "2.11.0"}, f"it was built for torch 2.11.0, this is {torch.__version__}"),
        (None, "stonefx._C, which knows what it was built for, is not built"),
    ],
)
def test_another_release_of_torch_takes_the_general_way(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, str] | None, reason: str
) -> None:
    monkeypatch.delenv("STONEFX_CPU_ISA", raising=False)
    monkeypatch.setattr(native, "build_info", lambda: facts)
    native.calls.cache_clear()
    try:
        assert native.calls() == reason
        function = Function("dist0", "poincare_dist0", lambda b: {"min_gap": b.gap})
        assert function._direct is None
        x = torch.rand(3, 4) * 0.3
        assert torch.equal(function(x, 1.0), poincare.dist0(x))
    finally:
        native.calls.cache_clear()


@pytest.mark.parametrize("function", FUNCTIONS, ids=NAMES)
@pytest.mark.parametrize("dim", [2, 21])
@pytest.mark.parametrize("own_numbers", [False, True])
def test_rows_do_not_depend_on_their_batch(function: Function, dim: int, own_numbers: bool) -> None:
    """Rows are worked off some at once: neither their number nor their place may be seen in a result."""
    generator = torch.Generator().manual_seed(1)
    rows, count = 39, len(_operands(function)) - len(function._numbers)
    numbers = _operands(function, torch.float32)[count:]
    if own_numbers:
        numbers = [(n * (1 + 0.1 * torch.rand(rows, 1, generator=generator))).float() for n in numbers]
    operands = [0.3 * torch.rand(rows, dim, generator=generator) for _ in range(count)] + numbers
    operands = [t.requires_grad_() for t in operands]
    whole = function(*operands)
    upstream = torch.rand(whole.shape, generator=generator)
    gradients = torch.autograd.grad(whole, operands[:count], upstream)
    for first, last in [(0, 1), (1, 3), (3, 6), (6, 10), (10, 39)]:
        part = [t[first:last] if t.dim() else t for t in operands]
        result = function(*part)
        assert torch.equal(result, whole[first:last])
        for mine, all_rows in zip(
            torch.autograd.grad(result, part[:count], upstream[first:last]), gradients, strict=True
        ):
            assert torch.equal(mine, all_rows[first:last])


@pytest.mark.parametrize("module", [poincare, lorentz, klein, sphere], ids=lambda module: module.__name__)
def test_several_points_of_a_line(module):
    """Positions may have batch dimensions that the ends do not have."""
    lift = {lorentz: lorentz.project, sphere: sphere.project}.get(module, lambda x: x)
    x, y = lift(torch.tensor([0.9, 0.3, 0.1])), lift(torch.tensor([-0.2, 0.5, 0.4]))
    x, y = (x, y) if module in (lorentz, sphere) else (x * 0.5, y * 0.5)
    t = torch.linspace(-0.5, 1.5, 5)
    line = module.geodesic(x, y, t[:, None])
    assert line.shape == (5, 3)
    for position, point in zip(t, line, strict=True):
        torch.testing.assert_close(point, module.geodesic(x, y, float(position)))
    ends = torch.stack([y, x])
    torch.testing.assert_close(module.geodesic(x, ends, t[:, None, None])[:, 0], line)
    pairs = module.geodesic(ends[:, None], ends, t[:, None, None, None])
    assert pairs.shape == (5, 2, 2, 3)
    torch.testing.assert_close(pairs[:, 1, 0], line)
    with pytest.raises(RuntimeError, match="t"):
        module.geodesic(ends, ends, torch.ones(3, 1))
