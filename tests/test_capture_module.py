"""Ahead-of-time capture: the call, the result, and what cannot be captured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from replay import Batch, Nested, mlp, nested_call, replay
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from stonefx.capture import CaptureError, Output, Path, Weight, from_module


def test_nested_arguments_and_results_keep_their_structure() -> None:
    model = Nested()
    args, kwargs = nested_call(3)
    capture = from_module(model, args, kwargs)
    assert sorted(str(path) for path in capture.arguments.values()) == [
        "batch.extra['bias']", "batch.ids", "options['shift']", "pair[0]", "pair[1][0]", "rest[0]",
    ]  # fmt: skip
    assert capture.output["same"] == Path("batch", (("attr", "ids"),))
    assert capture.output["weight"] == Weight("linear.weight")
    assert isinstance(capture.output["main"].last_hidden_state, Output)
    for size in (3, 7, 1):
        args, kwargs = nested_call(size)
        expected, came = model(*args, **kwargs), replay(capture, model, *args, **kwargs)
        assert type(came["main"]) is BaseModelOutput and type(came["batch"]) is Batch
        assert torch.equal(came["main"].last_hidden_state, expected["main"].last_hidden_state)
        assert torch.equal(came["main"]["hidden_states"][0], expected["main"].hidden_states[0])
        assert torch.equal(came["batch"].extra["again"], expected["batch"].extra["again"])
        assert came["same"] is args[0].ids and came["weight"] is model.linear.weight
        assert came["tag"] == ("mean", None, 1.5)


@pytest.mark.parametrize("positional", [True, False])
def test_a_call_may_spell_its_arguments_in_any_way(positional: bool) -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, scale: float = 2.0, flag: bool = True) -> torch.Tensor:
            return x * scale if flag else x

    capture = from_module(Scaled(), (torch.ones(2, 3),))
    x = torch.ones(5, 3)
    call = ((x, 2.0, True), {}) if positional else ((), {"flag": True, "x": x})
    assert torch.equal(replay(capture, Scaled(), *call[0], **call[1]), x * 2)


def test_gradients_flow_into_the_models_own_weights() -> None:
    model, x = mlp(), torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        capture = from_module(model, (torch.ones(2, 4),))
    model(x).square().sum().backward()
    expected = [parameter.grad for parameter in model.parameters()]
    model.zero_grad()
    replay(capture, model, x).square().sum().backward()
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), expected, strict=True))


def test_shared_parameters_are_one_placeholder() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    model.forward = lambda x: model["b"](model["a"](x))  # type: ignore[method-assign]
    capture = from_module(model, (torch.ones(2, 4),))
    assert sorted(capture.weights.values()) == ["a.bias", "a.weight", "b.bias"]
    assert capture.aliases == {"b.weight": "a.weight"}


def test_a_tensor_outside_parameters_and_buffers_is_a_constant() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = torch.tensor([1.0, 2.0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    model = Scaled()
    capture = from_module(model, (torch.ones(3, 2),))
    assert list(capture.constants.values()) == [model.scale]
    assert replay(capture, model, torch.ones(5, 2)).tolist() == [[1.0, 2.0]] * 5


def test_one_tensor_passed_twice_gives_a_graph_of_two_arguments() -> None:
    class Add(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x - 2 * y

    x = torch.ones(3, 2)
    capture = from_module(Add(), (x, x))
    assert torch.equal(replay(capture, Add(), x, 2 * x), -3 * x)


def test_batch_one_is_captured_for_every_batch() -> None:
    model = mlp()
    capture = from_module(model, (torch.ones(1, 4),))
    for size in (1, 2, 9):
        x = torch.randn(size, 4)
        assert torch.equal(replay(capture, model, x), model(x))


def test_a_model_that_treats_batch_one_apart_is_captured_for_it() -> None:
    class Apart(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[0] == 1 else x * 3

    one, many = from_module(Apart(), (torch.ones(1, 4),)), from_module(Apart(), (torch.ones(2, 4),))
    assert replay(one, Apart(), torch.ones(1, 4)).unique().tolist() == [2.0]
    assert replay(many, Apart(), torch.ones(5, 4)).unique().tolist() == [3.0]
    assert one.mismatch((torch.ones(2, 4),), {}) == "dimension 0 of `x` must be 1, and its shape is [2, 4]"
    assert "x.shape[0] is 1" in (many.mismatch((torch.ones(1, 4),), {}) or "")


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + 1


class Remembering(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []
        self.last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(x)
        self.last = x * 2
        return self.last


class Unsupported(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        if x.sum() > 0:
            return x
        return x + 1


class ObjectInResult(nn.Module):
    class Cache:
        def __init__(self, x: torch.Tensor) -> None:
            self.x = x

    def forward(self, x: torch.Tensor) -> Any:
        return x + 1, ObjectInResult.Cache(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Counting(), "forward stores into the model: calls"),
        (Remembering(), "forward stores into the model: last, seen"),
        (Unsupported(), r"does not trace to one graph\n  at .*test_capture_module.py:\d+: if x.sum\(\) > 0:"),
        (ObjectInResult(), r"`result\[1\]` of the result is a Cache, which capture cannot look into"),
    ],
)  # fmt: skip
def test_what_cannot_be_captured_says_why_and_where(model: nn.Module, message: str) -> None:
    before = dict(vars(model))
    with pytest.raises(CaptureError, match=message):
        from_module(model, (torch.ones(3, 4),))
    assert vars(model) == before
    assert getattr(model, "seen", []) == []


def test_a_number_that_does_not_vary_is_a_constant_of_the_result() -> None:
    class Rank(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
            return x * 2, x.dim()

    capture = from_module(Rank(), (torch.ones(3, 4),))
    assert replay(capture, Rank(), torch.ones(5, 4))[1] == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (object(), "the argument `input` is a object, which capture cannot look into"),
        (torch.ones(2).as_subclass(type("Marked", (torch.Tensor,), {})), "is a Marked, a tensor subclass"),
    ],
)  # fmt: skip
def test_unsupported_arguments_are_named(argument: Any, message: str) -> None:
    with pytest.raises(CaptureError, match=message):
        from_module(nn.Identity(), (argument,))


def test_a_call_that_does_not_fit_names_the_signature() -> None:
    with pytest.raises(CaptureError, match=r"does not fit Sequential.forward\(input\)"):
        from_module(mlp(), (), {"nothing": 1})


def test_regions_without_gradient_stay_in_the_graph() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                scale = self.linear(x).mean()
            return self.linear(x) * scale

    with torch.no_grad():
        capture = from_module(Partly(), (torch.ones(2, 4),))
    (off, on) = capture.module.graph.find_nodes(op="call_function", target=torch._C._set_grad_enabled)
    assert (off.args, on.args) == ((False,), (True,))
