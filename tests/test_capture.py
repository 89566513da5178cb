"""From Dynamo's graph into the graph language: what is kept, and the traps on the way."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_modules import (
    Autocast,
    BatchNorm,
    Checkpointed,
    Conditional,
    Constants,
    CustomFunction,
    Dropout,
    ForwardMode,
    InnerGradient,
    InPlace,
    PartlyNoGrad,
    TwoLinears,
    Vmapped,
)
from torch import fx, nn
from torch._inductor.compile_fx import compile_fx

from stonefx.capture import CaptureError, from_dynamo

aten = torch.ops.aten


class Recorder:
    """A backend that retraces, keeps both graphs and runs the new one."""

    def __init__(self, inner: Callable[..., Any] | None = None) -> None:
        self.inner = inner
        self.before: list[fx.GraphModule] = []
        self.graphs: list[fx.GraphModule] = []

    def __call__(self, gm: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.before.append(gm)
        self.graphs.append(from_dynamo(gm, inputs))
        return self.inner(self.graphs[-1], inputs) if self.inner else self.graphs[-1].forward


MODELS = [
    CustomFunction, Checkpointed, Autocast, InnerGradient, ForwardMode, Vmapped, Constants, InPlace, Conditional,
    PartlyNoGrad, Dropout, BatchNorm,
]  # fmt: skip


def outcome(model: nn.Module, call: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> list[Any]:
    """Result, gradients of all weights and of the input, and buffers afterwards."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.zero_grad()
    y = call(x)
    y.float().square().sum().backward()
    after = [buffer.clone() for buffer in model.buffers()]
    for name, buffer in model.named_buffers():
        buffer.copy_(buffers[name])
    return [y.detach(), x.grad, *[p.grad for p in model.parameters()], *after]


def assert_equal(first: list[Any], second: list[Any]) -> None:
    for a, b in zip(first, second, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_retraced_graph_computes_and_trains_as_eager(kind: type[nn.Module], dynamic: bool) -> None:
    model, x = kind(), torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    expected = outcome(model, model, x)
    recorder = Recorder()
    compiled = torch.compile(model, backend=recorder, dynamic=dynamic, fullgraph=True)
    assert_equal(outcome(model, compiled, x), expected)
    assert len(recorder.graphs) == 1


@pytest.mark.parametrize("kind", [CustomFunction, Checkpointed, Vmapped, Constants, BatchNorm])
def test_inductor_takes_the_retraced_graph(kind: type[nn.Module]) -> None:
    model, x = kind(), torch.randn(3, 4, generator=torch.Generator().manual_seed(3))
    expected = outcome(model, model, x)
    compiled = torch.compile(model, backend=Recorder(compile_fx), fullgraph=True)
    for a, b in zip(expected, outcome(model, compiled, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def record(function: Callable[..., Any], *args: Any, **options: Any) -> fx.GraphModule:
    recorder = Recorder()
    torch.compile(function, backend=recorder, fullgraph=True, **options)(*args)
    (graph,) = recorder.graphs
    return graph


def calls(graph: fx.GraphModule) -> list[Any]:
    return [node.target for node in graph.graph.nodes if node.op == "call_function"]


def test_placeholders_keep_their_order_and_carry_weight_names_and_gradients() -> None:
    recorder = Recorder()
    model = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))})
    model["encoder"][0].bias.requires_grad_(False)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return model["encoder"](x)

    torch.compile(forward, backend=recorder)(torch.ones(2, 4))
    before = recorder.before[0].graph.find_nodes(op="placeholder")
    after = recorder.graphs[0].graph.find_nodes(op="placeholder")
    assert [node._dynamo_source for node in after] == [node._dynamo_source for node in before]
    weights = {node.meta["weight"]: node.meta["val"].requires_grad for node in after if "weight" in node.meta}
    assert weights == {
        "encoder.0.weight": True,
        "encoder.0.bias": False,
        "encoder.1.weight": True,
        "encoder.1.bias": True,
        "encoder.1.running_mean": False,
        "encoder.1.running_var": False,
        "encoder.1.num_batches_tracked": False,
    }
    assert [node.name for node in after if "weight" not in node.meta] == ["x"]


def test_two_models_in_one_function_get_distinct_weight_names() -> None:
    left, right = nn.Linear(4, 4), nn.Linear(4, 4)
    graph = record(lambda x: left(right(x)), torch.ones(2, 4))
    weights = {node.meta.get("weight") for node in graph.graph.find_nodes(op="placeholder")}
    assert weights == {"left.weight", "left.bias", "right.weight", "right.bias", None}


def test_every_node_has_a_fake_value_a_source_line_and_a_module() -> None:
    graph = record(TwoLinears(), torch.ones(2, 4))
    for node in graph.graph.find_nodes(op="call_function", target=aten.linear.default):
        assert node.meta["val"].shape == (2, 4)
        assert "small_modules.py" in node.meta["stack_trace"]
        assert any("Linear" in str(kind) for _, kind in node.meta["nn_module_stack"].values())


def test_vmap_leaves_plain_operators() -> None:
    graph = record(Vmapped(), torch.ones(3, 4))
    assert all(
        target is operator.getitem or isinstance(target, torch._ops.OpOverload) for target in calls(graph)
    )


def test_scalar_constants_become_full_and_others_stay_attributes() -> None:
    graph = record(Constants(), torch.ones(3, 4))
    assert calls(graph).count(aten.full.default) == 3
    (constant,) = graph.graph.find_nodes(op="get_attr")
    assert constant.meta["val"].shape == (4,)
    assert dict(graph.named_buffers()).keys() == {constant.target}


def test_autocast_gives_the_values_their_real_dtype() -> None:
    graph = record(Autocast(), torch.ones(3, 4))
    first, second = graph.graph.find_nodes(op="call_function", target=aten.linear.default)
    assert (first.meta["val"].dtype, second.meta["val"].dtype) == (torch.bfloat16, torch.float32)


def test_higher_order_operators_are_copied_whole() -> None:
    graph = record(CustomFunction(), torch.ones(3, 4))
    (call,) = [target for target in calls(graph) if isinstance(target, torch._ops.HigherOrderOperator)]
    assert call.name() == "autograd_function_apply"


def test_the_dynamo_graph_is_not_changed() -> None:
    codes: list[tuple[str, str]] = []

    def backend(gm: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        before = gm.code
        from_dynamo(gm, inputs)
        codes.append((before, gm.code))
        return gm.forward

    torch.compile(InPlace(), backend=backend)(torch.ones(3, 4))
    assert codes[0][0] == codes[0][1]


@pytest.mark.parametrize("kind", [Vmapped, Autocast, PartlyNoGrad])
def test_a_failed_retrace_names_the_line_and_leaves_the_process_as_it_was(kind: type[nn.Module]) -> None:
    errors: list[CaptureError] = []

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise ValueError("no such operation")

    def backend(gm: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        copy = fx.GraphModule(gm, fx.Graph())
        copy.graph.output(copy.graph.graph_copy(gm.graph, {}))
        first = next(node for node in copy.graph.nodes if node.target is torch._C._nn.linear)
        first.target = broken
        with pytest.raises(CaptureError) as caught:
            from_dynamo(copy, inputs)
        errors.append(caught.value)
        return gm.forward

    torch.compile(kind(), backend=backend)(torch.ones(3, 4))
    message = str(errors[0])
    assert "no such operation" in message and "broken" in message
    assert re.search(r"\n  at .*small_modules.py:\d+: .*self\.first\(.*\)\n  because ValueError", message)
    assert "torch.compiler.disable" in message
    assert torch._C._functorch.get_dynamic_layer_stack_depth() == 0
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_ambient_autocast_and_no_grad_survive() -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        graph = record(TwoLinears(), torch.ones(2, 4))
        assert torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
    (first, _) = graph.graph.find_nodes(op="call_function", target=aten.linear.default)
    assert first.meta["val"].dtype == torch.bfloat16


def test_a_tensor_subclass_is_refused() -> None:
    graph = fx.Graph()
    graph.output(graph.placeholder("x"))

    class Marked(torch.Tensor):
        pass

    with pytest.raises(CaptureError, match=r"`x` is a Marked, a tensor subclass"):
        from_dynamo(fx.GraphModule(nn.Module(), graph), [torch.ones(2).as_subclass(Marked)])
