"""Branches on the model's own tensors are taken as their values decide, and looked at again at every call."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from small_forwards import Forward, optimized, rows, same
from torch import nn

import stonefx
from stonefx.capture import CaptureError, from_module

NEAR_ZERO = 1e-6


def either(question: Any) -> Any:
    return lambda model, x: model.chain(x) if question(model.k) else model.chain(x) * 2


def counted(model: Any, x: torch.Tensor) -> torch.Tensor:
    for _ in range(int(model.k)):
        x = x + 1
    return model.chain(x)


def asserted(model: Any, x: torch.Tensor) -> torch.Tensor:
    assert torch.all(model.k > 0), "the curvature must be positive"
    return model.chain(x)


def by_curvature(model: Any, x: torch.Tensor) -> torch.Tensor:
    """As libraries of manifolds write it."""
    zero, sign = model.k.isclose(torch.zeros(())), model.k.sign()
    if torch.all(zero):
        return model.chain(x)
    if torch.all(sign == 1):
        return model.chain(x) * 2
    return model.chain(x) * 3


# A forward that branches on `k`, a value of it, and one of the other branch.
BRANCHES: dict[str, tuple[Any, Any, Any]] = {
    "all": (either(lambda k: torch.all(k > 0)), [1.0], [-1.0]),
    "not any": (either(lambda k: not (k < 0).any()), [1.0], [-1.0]),
    "and": (either(lambda k: (k > 0).all() and (k < 3).any()), [1.0], [5.0]),
    "truth": (either(lambda k: k), [1.0], [0.0]),
    "item": (either(lambda k: k.item() > 0), [1.0], [-1.0]),
    "bool": (either(lambda k: bool(k > 0)), [1.0], [-1.0]),
    "float": (either(lambda k: float(k) > 0), [1.0], [-1.0]),
    "equal": (either(lambda k: torch.equal(k, torch.ones(1))), [1.0], [2.0]),
    "allclose": (either(lambda k: torch.allclose(k, torch.ones(1), atol=NEAR_ZERO)), [1.0], [2.0]),
    "number": (counted, 2, 3),
    "assertion": (asserted, [1.0], [-1.0]),
    "curvature": (by_curvature, -0.5, 0.5),
}


def model_of(name: str, kind: str = "buffer") -> Forward:
    forward, value, _ = BRANCHES[name]
    k = torch.tensor(value)
    return Forward(forward, k=nn.Parameter(k) if kind == "parameter" else k).eval()


@pytest.mark.parametrize("name", BRANCHES)
def test_the_branch_is_taken_and_checked(name: str) -> None:
    model = model_of(name)
    fast = optimized(model, rows())
    for size in (5, 8):
        same(fast(rows(size)), model(rows(size)))
    assert any("forward depends on" in note for note in fast.report.notes)
    fast.k.copy_(torch.tensor(BRANCHES[name][2]))
    with pytest.raises(ValueError, match=r"(a branch on k at .*py:\d+|k.item\(\))`: it was"):
        fast(rows())
    fast.k.copy_(torch.tensor(BRANCHES[name][1]))
    same(fast(rows()), model(rows()))


def load(fast: nn.Module) -> None:
    fast.load_state_dict(fast.state_dict() | {"k": torch.tensor([-1.0])})


def replace(fast: nn.Module) -> None:
    fast._buffers["k"] = torch.tensor([-1.0])


def write_without_a_trace(fast: nn.Module) -> None:
    fast.k.data.fill_(-1.0)


@pytest.mark.parametrize("change", [load, replace, write_without_a_trace])
def test_however_the_value_is_changed(change: Any) -> None:
    fast = optimized(model_of("all"), rows())
    twin = copy.deepcopy(fast)
    change(fast)
    with pytest.raises(ValueError, match="a branch on k at"):
        fast(rows())
    same(twin(rows()), model_of("all")(rows()))


def test_a_value_that_decides_the_same_may_change() -> None:
    model = Forward(
        lambda model, x: torch.relu(model.chain(x)) * model.k if (model.k > 0).all() else x, k=torch.ones(1)
    )
    fast = optimized(model, rows())
    for one in (model, fast):
        one.k.fill_(2.0)
    same(fast(rows()), model(rows()))
    with torch.no_grad():
        for one in (model, fast):
            one.to(torch.float32).k.data.fill_(3.0)
    same(fast(rows()), model(rows()))


def test_a_parameter_may_decide() -> None:
    model = Forward(
        lambda model, x: torch.relu(model.chain(x)) * model.k if (model.k > 0).all() else x,
        k=nn.Parameter(torch.ones(1)),
    )
    fast = optimized(model, rows())
    fast(rows()).sum().backward()
    model(rows()).sum().backward()
    torch.testing.assert_close(fast.k.grad, model.k.grad)


@pytest.mark.parametrize("inner", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_other_compilers_get_the_graph_of_the_branch(inner: str) -> None:
    model = model_of("curvature")
    fast = optimized(model, rows(), inner=inner)
    same(fast(rows(8)).detach(), model(rows(8)).detach())


def written(model: Any, x: torch.Tensor) -> torch.Tensor:
    model.k += 1
    return model.chain(x) if model.k > 0 else x


def of_an_argument(model: Any, x: torch.Tensor) -> torch.Tensor:
    return model.chain(x) if (x.sum() * model.k).isfinite() else x


def of_chance(model: Any, x: torch.Tensor) -> torch.Tensor:
    return model.chain(x) if torch.rand(()) * model.k < 2 else x


def of_a_temporary(model: Any, x: torch.Tensor) -> torch.Tensor:
    low = model.k.clone()
    low.sub_(5)
    return model.chain(x) if low > 0 else model.chain(x) * 2


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (written, r"forward branches on `k`, to which it writes\n  at .*test_capture_decisions.py:\d+"),
        (of_an_argument, "Data-dependent branching"),
        (of_chance, "Data-dependent branching"),
        (of_a_temporary, "Data-dependent branching"),
    ],
)  # fmt: skip
def test_what_more_than_weights_decide_is_not_captured(forward: Any, message: str) -> None:
    model = Forward(forward, k=torch.ones(1)).eval()
    with pytest.raises(CaptureError, match=message):
        from_module(model, (rows(),))
    same(stonefx.optimize(copy.deepcopy(model), rows())(rows()), model(rows()))


def test_what_decided_is_not_computed_at_a_call() -> None:
    capture = from_module(model_of("all"), (rows(),))
    targets = [str(node.target) for node in capture.module.graph.nodes if node.op == "call_function"]
    assert targets == ["aten.linear.default", "aten.linear.default"]


def test_a_tensor_beside_parameters_and_buffers_may_decide() -> None:
    model = Forward(lambda model, x: model.chain(x) if model.held[0] > 0 else model.chain(x) * 2).eval()
    model.held = [torch.ones(1)]
    fast = optimized(model, rows())
    same(fast(rows()), model(rows()))
