"""Ahead-of-time capture: the call, the result, the conditions, and the model left as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from stonefx.capture import Capture, CaptureError, Output, Path, Weight, fill, from_module


@dataclass
class Batch:
    ids: torch.Tensor
    extra: dict[str, Any]


def replay(capture: Capture, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call the captured graph in the model's place."""
    assert capture.mismatch(args, kwargs) is None
    arguments = capture.bind(args, kwargs)
    outputs = capture.module(*capture.inputs(model, arguments))
    return fill(capture.output, outputs, arguments, dict(model.named_parameters()))


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


class Nested(nn.Module):
    """Takes and returns nests of containers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(
        self, batch: Batch, pair: tuple[torch.Tensor, list[torch.Tensor]], *rest: torch.Tensor, mode: str = "sum",
        **options: torch.Tensor,
    ) -> dict[str, Any]:  # fmt: skip
        y = self.linear(batch.ids) + batch.extra["bias"] + pair[0] * pair[1][0] + rest[0] - options["shift"]
        result = y.sum(-1) if mode == "sum" else y.mean(-1)
        return {
            "main": BaseModelOutput(last_hidden_state=y, hidden_states=(result, y)),
            "same": batch.ids,
            "weight": self.linear.weight,
            "tag": (mode, None, 1.5),
            "batch": Batch(result, {"again": y}),
        }


def nested_call(size: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
    g = torch.Generator().manual_seed(size)
    make = [torch.randn(size, 4, generator=g) for _ in range(5)]
    batch = Batch(make[0], {"bias": torch.randn(4, generator=g)})
    return (batch, (make[1], [make[2]]), make[3]), {"shift": make[4], "mode": "mean"}


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


def test_static_capture_wants_the_same_batch() -> None:
    capture = from_module(mlp(), (torch.ones(3, 4),), dynamic=False)
    assert capture.sizes == {}
    expected = "dimension 0 of `input` must be 3, and its shape is [2, 4]"
    assert capture.mismatch((torch.ones(2, 4),), {}) == expected


def test_a_guard_on_the_batch_is_part_of_the_checks() -> None:
    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[0] % 2:
                return x
            return x[: x.shape[0] // 2] + x[x.shape[0] // 2 :]

    capture = from_module(Halves(), (torch.ones(4, 3),))
    assert replay(capture, Halves(), torch.ones(10, 3)).shape == (5, 3)
    reason = capture.mismatch((torch.ones(5, 3),), {})
    assert reason is not None and "% 2" in reason and "x.shape[0] is 5" in reason


def test_related_sizes_are_checked() -> None:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return x * mask

    capture = from_module(Doubled(), (torch.ones(4, 3), torch.ones(4, 1)))
    reason = capture.mismatch((torch.ones(5, 3), torch.ones(6, 1)), {})
    assert reason is not None and "dimension 0" in reason and "must be" in reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, k: k.update(mode="sum"), "the argument `mode` was 'mean' at capture, and now is 'sum'"),
        (lambda a, k: k.update(shift=3), "the argument `options['shift']` was a tensor at capture, and now is 3"),
        (lambda a, k: k.pop("shift"), "the argument `options` held ['shift'] at capture, and now holds []"),
        (lambda a, k: k.update(mode=torch.ones(2)), "was 'mean' at capture, and now is a tensor of shape [2]"),
        (lambda a, k: setattr(a[0], "ids", a[0].ids.double()), "must have dtype torch.float32, and has torch.float64"),
        (lambda a, k: setattr(a[0], "ids", a[0].ids[None]), "must have 2 dimensions, and has shape [1, 5, 4]"),
        (lambda a, k: setattr(a[0], "ids", a[0].ids[:, :2]), "dimension 1 of `batch.ids` must be 4"),
        (lambda a, k: setattr(a[0], "ids", a[0].ids.to("meta")), "must be on cpu, and is on meta"),
        (lambda a, k: a[0].extra.update(other=1), "held ['bias'] at capture, and now holds ['bias', 'other']"),
        (lambda a, k: a.append(torch.ones(3, 4)), "the argument `rest` held [0] at capture, and now holds [0, 1]"),
        (lambda a, k: a.clear(), "the call does not fit the signature of forward: missing a required argument"),
    ],
)  # fmt: skip
def test_a_mismatch_names_the_argument_and_what_came(change: Any, message: str) -> None:
    args, kwargs = nested_call(3)
    capture = from_module(Nested(), args, kwargs)
    args, kwargs = nested_call(5)
    arguments = list(args)
    change(arguments, kwargs)
    assert message in (capture.mismatch(tuple(arguments), kwargs) or "")


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


class SizeInResult(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return x * 2, x.shape[0]


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
        (SizeInResult(), r"the number `result\[1\]` \(3\) may depend on the batch size\n  .*dynamic=False"),
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
    assert from_module(SizeInResult(), (torch.ones(3, 4),), dynamic=False).output == (Output(0), 3)


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


class Stateful(nn.Module):
    """Batch norm, dropout, a buffer written in place and an embedding that renormalises its weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(4)
        self.table = nn.Embedding(3, 4, max_norm=0.1)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        x.mul_(2)
        rows = self.table(torch.zeros(1, dtype=torch.long))
        return nn.functional.dropout(self.norm(x), 0.5, self.training) * self.steps + rows


def test_the_model_the_call_and_the_process_are_left_as_they_were() -> None:
    model = Stateful()
    model.norm.train(False)
    x = torch.randn(3, 4).requires_grad_() * 1
    state = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    versions = [tensor._version for tensor, _ in state.values()]
    values, random_state, marks = x.detach().clone(), torch.get_rng_state(), dict(vars(x))
    with torch.no_grad():
        capture = from_module(model, (x,))
        assert not torch.is_grad_enabled()
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is state[name][0] and torch.equal(tensor, state[name][1])
        assert vars(tensor) == {}
    assert [tensor._version for tensor, _ in state.values()] == versions
    assert torch.equal(x, values) and vars(x) == marks
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training and not model.norm.training and capture.training


def test_no_cache_of_the_users_functions_grows() -> None:
    model = mlp()
    graphs: list[Any] = []

    def backend(gm: Any, inputs: Any) -> Any:
        graphs.append(gm)
        return gm.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    compiled(torch.ones(2, 4))
    for size in (2, 3, 4):
        from_module(model, (torch.ones(size, 4),))
    compiled(torch.ones(2, 4))
    assert len(graphs) == 1
    compiled(torch.ones(3, 4))
    compiled(torch.ones(4, 4))
    assert len(graphs) == 2


def test_capture_works_under_inference_mode_a_stance_and_suppressed_errors() -> None:
    model = mlp()
    with (
        torch.inference_mode(),
        torch.compiler.set_stance("force_eager"),
        torch._dynamo.config.patch(suppress_errors=True),
    ):
        capture = from_module(model, (torch.ones(2, 4),))
    x = torch.ones(3, 4)
    assert torch.equal(replay(capture, model, x), model(x))


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
