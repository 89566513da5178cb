"""`torch.compile(backend="stone")` on what the graph language has no words for: it stays, the rest is rewritten."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.nn import functional
from torch.testing._internal.two_tensor import TwoTensor
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

import stonefx

OFFSETS = torch.tensor([0, 2, 5])


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


class Scaled(torch.Tensor):
    """A user's wrapper: a tensor and a number that it is multiplied by."""

    @staticmethod
    def __new__(cls, plain: torch.Tensor, scale: float) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, plain.shape, dtype=plain.dtype, device=plain.device)

    def __init__(self, plain: torch.Tensor, scale: float) -> None:
        self.plain, self.scale = plain, scale

    def __tensor_flatten__(self) -> tuple[list[str], float]:
        return ["plain"], self.scale

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], scale: float, size: Any, stride: Any) -> Any:
        return Scaled(inner["plain"], scale)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return Scaled(func(args[0].plain), args[0].scale)

        def value(each: Any) -> Any:
            return each.plain * each.scale if isinstance(each, Scaled) else each

        return func(*pytree.tree_map(value, args), **pytree.tree_map(value, kwargs or {}))


class Named(torch.Tensor):
    """A user's class with a `__torch_function__` of its own."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return super().__torch_function__(func, types, args, kwargs or {})


class Model(nn.Module):
    """Two maps that merge, a third one, and a forward that is given."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.a, self.b, self.c = nn.Linear(6, 64), nn.Linear(64, 6), nn.Linear(6, 6)

    def chain(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def rows() -> torch.Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(0))


def nested(x: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor_from_jagged(x, OFFSETS)


def write_through_data(m: Model, x: torch.Tensor) -> torch.Tensor:
    m.chain(x).data.mul_(2)
    h = m.chain(x)
    h.data.mul_(2)
    return m.chain(h + 1)


def grad_of_a_part(m: Model, x: torch.Tensor) -> torch.Tensor:
    weights = {name: p.detach() for name, p in m.c.named_parameters()}
    return m.chain(x) + grad(lambda p: functional_call(m.c, p, (x,)).sum())(weights)["weight"].sum()


# Forwards in which the chain is merged, the rows that they are given, and what the report's note names.
REWRITTEN: dict[str, tuple[Callable[..., Any], Callable[[], torch.Tensor], str]] = {
    "nested inside": (lambda m, x: torch.relu(nested(m.chain(x))).values() + 1, rows, "NestedTensor"),
    "two tensors inside": (
        lambda m, x: (lambda h: (TwoTensor(h, h.clone()) * 2).a)(m.chain(x)),
        rows,
        "TwoTensor",
    ),
    "a user's wrapper given": (
        lambda m, x: m.chain(m.c(x).sin()),
        lambda: Scaled(rows(), 2.0),
        "Scaled",
    ),
    "a user's function": (lambda m, x: m.chain(x), lambda: rows().as_subclass(Named), ""),
    "data": (write_through_data, rows, "what recording does not see"),
    "data of a result": (
        lambda m, x: m.chain(x).data + m.c.weight.data.sum(),
        rows,
        "what recording does not see",
    ),
    "jacrev": (lambda m, x: m.chain(jacrev(lambda v: m.c(v).sin())(x[0])), rows, "a transform of torch.func"),
    "jacfwd": (lambda m, x: m.chain(jacfwd(lambda v: m.c(v).sin())(x[0])), rows, ""),
    "hessian": (lambda m, x: m.chain(hessian(lambda v: m.c(v).sin().sum())(x[0])), rows, ""),
    "vmap of grad": (lambda m, x: m.chain(vmap(grad(lambda v: m.c(v).sin().sum()))(x)), rows, ""),
    "jvp": (lambda m, x: m.chain(jvp(lambda v: m.c(v).sin(), (x,), (x,))[1]), rows, ""),
    "grad of a part": (grad_of_a_part, rows, ""),
}


def write_through_a_nested_view(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x)
    nested(h).mul_(2)
    return m.b(h)


def write_under_a_nested_view(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x).clone()
    view = nested(h)
    h.mul_(2)
    return m.b(view).values()


def write_through_a_wrapper(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x).detach()
    TwoTensor(h, h.clone()).mul_(2)
    return m.b(h)


def clone_before_a_write_through_a_wrapper(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x).detach()
    before = h.clone()
    TwoTensor(h, h.clone()).mul_(2)
    return m.b(before) + m.b(h)


def write_under_a_wrapper(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x).detach()
    wrapped = TwoTensor(h, h.clone())
    h.add_(1)
    return m.b((wrapped * 2).a)


def write_through_data_of_a_chain(m: Model, x: torch.Tensor) -> torch.Tensor:
    h = m.a(x)
    h.data.mul_(2)
    return m.b(h)


def write_to_a_weight(m: Model, x: torch.Tensor) -> torch.Tensor:
    m.b.weight.data.mul_(1.5)
    return m.chain(x)


def checkpointed(m: Model, x: torch.Tensor) -> torch.Tensor:
    return (checkpoint(lambda v: m.b(torch.relu(m.a(v))), TwoTensor(x, x.clone()), use_reentrant=False) * 2).a


# Forwards in which memory is written or read through what is opaque: nothing may be merged across that.
WRITING = [
    write_through_a_nested_view,
    write_under_a_nested_view,
    write_through_a_wrapper,
    clone_before_a_write_through_a_wrapper,
    write_under_a_wrapper,
    write_through_data_of_a_chain,
    write_to_a_weight,
    checkpointed,
]


def gradients(model: nn.Module, result: torch.Tensor) -> list[torch.Tensor | None]:
    model.zero_grad()
    if result.requires_grad:
        result.square().sum().backward()
    return [p.grad for p in model.parameters()]


def compare(function: Callable[..., Any], x: torch.Tensor, inner: str, *, wanted: bool) -> stonefx.Report:
    """One call of the compiled model against eager, with gradients where they are wanted."""
    torch.manual_seed(0)
    model = Model(function)
    twin = copy.deepcopy(model)
    fast = torch.compile(model, backend="stone", options={"inner": inner})
    with torch.set_grad_enabled(wanted), warnings.catch_warnings(action="ignore"):
        got, expected = fast(x), twin(x)
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)
        for mine, theirs in zip(gradients(model, got), gradients(twin, expected), strict=True):
            assert (mine is None) == (theirs is None)
            if theirs is not None:
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    return stonefx.last_report()


@pytest.mark.parametrize("name", REWRITTEN)
def test_the_rest_is_rewritten(name: str) -> None:
    function, make, noted = REWRITTEN[name]
    report = compare(function, make(), "eager", wanted=False)
    assert report.rewritten("linear_chain")
    assert not any("original graph" in note for note in report.notes)
    assert noted in "".join(report.notes)
    compare(function, make(), "eager", wanted=True)


@pytest.mark.parametrize("name", ["nested inside", "a user's wrapper given", "data", "jacrev"])
def test_aot_autograd_takes_the_result(name: str) -> None:
    function, make, _ = REWRITTEN[name]
    for wanted in (False, True):
        report = compare(function, make(), "aot_eager", wanted=wanted)
        assert not any("original graph" in note for note in report.notes)


@pytest.mark.parametrize("name", ["nested inside", "jacrev"])
def test_inductor_takes_the_result(name: str) -> None:
    function, make, _ = REWRITTEN[name]
    report = compare(function, make(), "inductor", wanted=False)
    assert not any("original graph" in note for note in report.notes)


@pytest.mark.parametrize("function", WRITING, ids=lambda function: function.__name__)
def test_memory_that_is_written_out_of_sight(function: Callable[..., Any]) -> None:
    for wanted in (False, True):
        report = compare(function, rows(), "eager", wanted=wanted)
        assert not any("original graph" in note for note in report.notes)


def test_a_nested_tensor_given() -> None:
    x = torch.nested.nested_tensor([torch.randn(3, 6), torch.randn(5, 6)], layout=torch.jagged)
    model = Model(lambda m, x: m.chain(x).values())
    fast = torch.compile(model, backend="stone", options={"inner": "eager"})
    with torch.no_grad(), warnings.catch_warnings(action="ignore"):
        torch.testing.assert_close(fast(x), model(x))
        longer = torch.nested.nested_tensor([torch.randn(4, 6)] * 3, layout=torch.jagged)
        torch.testing.assert_close(fast(longer), model(longer))
    assert any("on NestedTensor" in note for note in stonefx.last_report().notes)


def test_a_quantised_weight() -> None:
    quantization = pytest.importorskip("torchao.quantization")
    model = nn.Sequential(
        nn.Linear(64, 128), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 32), nn.Linear(32, 8)
    )
    quantization.quantize_(model[0], quantization.Int8WeightOnlyConfig())
    x = torch.randn(4, 64)
    fast = torch.compile(model, backend="stone", options={"inner": "eager"})
    with torch.no_grad():
        torch.testing.assert_close(fast(x), model(x))
    (site,) = stonefx.last_report().rewritten("linear_chain")
    assert site.params_before == 64 * 32 + 32 + 32 * 8 + 8


def test_a_weight_of_another_kind() -> None:
    def forward(m: Model, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(m.chain(x), m.scaled)

    model = Model(forward)
    model.scaled = nn.Parameter(Scaled(torch.randn(3, 6), 0.5), requires_grad=False)
    fast = torch.compile(model, backend="stone", options={"inner": "eager"})
    with torch.no_grad():
        torch.testing.assert_close(fast(rows()), model(rows()))
        assert stonefx.last_report().rewritten("linear_chain")
        model.a.weight.mul_(2)
        model.scaled = nn.Parameter(Scaled(torch.randn(3, 6), 0.5), requires_grad=False)
        torch.testing.assert_close(fast(rows()), model(rows()))


def test_what_cannot_be_captured_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise stonefx.backend.CaptureError("no words for this graph")

    monkeypatch.setattr(stonefx.backend, "from_dynamo", refuse)
    model = Model(lambda m, x: m.chain(x))
    for inner in ("eager", "inductor"):
        torch._dynamo.reset()
        fast = torch.compile(model, backend="stone", options={"inner": inner, "on_error": "raise"})
        with (
            torch.no_grad(),
            pytest.warns(stonefx.StonefxWarning, match="rewrote nothing in this graph, which"),
        ):
            torch.testing.assert_close(fast(rows()), model(rows()))
        (note,) = stonefx.last_report().notes
        assert note == "the original graph runs: no words for this graph"
    torch._dynamo.reset()
    fast = torch.compile(model, backend="stone", options={"require": ["linear_chain"]})
    with (
        torch.no_grad(),
        pytest.raises(Exception, match="no candidate was found\nthe original graph runs: no words"),
    ):
        fast(rows())
