"""Capture of real architectures: bitwise eager's results and gradients, in as many graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import MODELS
from torch import fx, nn
from torch.utils import _pytree as pytree

from stonefx.capture import CaptureError, capturable_submodules, fill, from_dynamo, from_module

Tensors = list[torch.Tensor | None]
WHOLE = [name for name in MODELS if name != "mixtral"]


class Counted:
    """A backend that runs the graph it is given, retraced or not, and counts."""

    def __init__(self, retraced: bool) -> None:
        self.retraced = retraced
        self.graphs = 0

    def __call__(self, gm: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        return (from_dynamo(gm, inputs) if self.retraced else gm).forward


def leaves(result: Any) -> list[torch.Tensor]:
    values = pytree.tree_leaves(dict(result) if isinstance(result, dict) else result)
    return [value for value in values if isinstance(value, torch.Tensor)]


def resized(inputs: dict[str, Any], batch: int) -> dict[str, Any]:
    """Other values of another batch size: each row is a rolled row of the example."""

    def resize(value: torch.Tensor) -> torch.Tensor:
        return torch.stack([value[i % value.shape[0]].roll(i, -1) for i in range(batch)])

    return {key: resize(v) if isinstance(v, torch.Tensor) else v for key, v in inputs.items()}


def marked(inputs: dict[str, Any]) -> dict[str, Any]:
    copies = {key: v.clone() if isinstance(v, torch.Tensor) else v for key, v in inputs.items()}
    for value in copies.values():
        if isinstance(value, torch.Tensor):
            torch._dynamo.maybe_mark_dynamic(value, 0)
    return copies


def run(model: nn.Module, call: Callable[..., Any], inputs: dict[str, Any]) -> Tensors:
    """Results and, in training, gradients and buffers; the buffers are put back."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.zero_grad()
    torch.manual_seed(7)
    with torch.set_grad_enabled(model.training):
        results: Tensors = list(leaves(call(**inputs)))
    if model.training:
        floating = [r for r in results if r is not None and r.is_floating_point() and r.requires_grad]
        sum((r.square().mean() for r in floating), torch.zeros(())).backward()
        results += [parameter.grad for parameter in model.parameters()]
        results += [buffer.clone() for buffer in model.buffers()]
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return results


def assert_bitwise(came: Tensors, expected: Tensors, name: str) -> None:
    assert [value is None for value in came] == [value is None for value in expected]
    for a, b in zip(came, expected, strict=True):
        if a is None or b is None or torch.equal(a, b):
            continue
        # Dynamo itself reorders the sum of T5's shared embedding gradient.
        assert name == "t5"
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


def cases() -> list[Any]:
    usual = [("eval", "static"), ("train", "dynamic")]
    others = [("eval", "dynamic"), ("train", "static")]
    return [
        *[pytest.param(name, *case, id=f"{name}-{'-'.join(case)}") for name in MODELS for case in usual],
        *[
            pytest.param(name, *case, id=f"{name}-{'-'.join(case)}", marks=pytest.mark.slow)
            for name in MODELS
            for case in others
        ],
    ]


@pytest.mark.parametrize(("name", "mode", "sizes"), cases())
def test_retraced_graphs_equal_eager(name: str, mode: str, sizes: str) -> None:
    model, inputs = MODELS[name]()
    model.train(mode == "train")
    retraced = Counted(True)
    compiled = torch.compile(model, backend=retraced)
    calls = [marked(inputs), resized(inputs, 5)] if sizes == "dynamic" else [inputs]
    graphs = []
    for call in calls:
        assert_bitwise(run(model, compiled, call), run(model, model, call), name)
        graphs.append(retraced.graphs)
    if sizes == "static":
        torch._dynamo.reset()
        plain = Counted(False)
        run(model, torch.compile(model, backend=plain), inputs)
        assert graphs == [plain.graphs]
    elif graphs[0] == 1:
        assert graphs == [1, 1]


@pytest.mark.parametrize("name", WHOLE)
def test_whole_model_ahead_of_time(name: str) -> None:
    model, inputs = MODELS[name]()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    capture = from_module(model, (), inputs)
    for call in (inputs, resized(inputs, 5)):
        assert capture.mismatch((), call) is None
        arguments = capture.bind((), call)
        outputs = capture.module(*capture.inputs(model, arguments))
        result = fill(capture.output, outputs, arguments, model.state_dict())
        expected = model(**call)
        assert type(result) is type(expected)
        assert_bitwise(list(leaves(result)), list(leaves(expected)), name)
    state = model.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in before.items())
    assert set(capture.weights.values()) <= set(dict(model.named_parameters())) | set(
        dict(model.named_buffers())
    )


def test_mixtral_is_captured_by_submodules() -> None:
    model, inputs = MODELS["mixtral"]()
    with pytest.raises(CaptureError, match=r"modeling_mixtral.py:\d+: for expert_idx in expert_hit"):
        from_module(model, (), inputs)
    found, skipped = capturable_submodules(model, (), inputs)
    paths = [path for path, *_ in found]
    assert "model.layers.0.self_attn" in paths and "model.layers.1.block_sparse_moe.experts.3" in paths
    assert not any(a != b and a.startswith(f"{b}.") for a in paths for b in paths)
    assert any(
        line.startswith("model.embed_tokens: called without a floating-point tensor") for line in skipped
    )
    covered = {f"{path}.{name}" for path, capture, *_ in found for name in capture.weights.values()}
    missing = {name for name, _ in model.named_parameters()} - covered
    assert missing == {"model.embed_tokens.weight"}
    for path, capture, args, kwargs in found:
        module = model.get_submodule(path)
        arguments = capture.bind(args, kwargs)
        result = fill(capture.output, capture.module(*capture.inputs(module, arguments)), arguments, {})
        assert_bitwise(list(leaves(result)), list(leaves(module(*args, **kwargs))), "mixtral")


def test_bloom_trains_every_parameter() -> None:
    model, inputs = MODELS["bloom"]()
    results = run(model.train(), torch.compile(model, backend=Counted(True)), inputs)
    assert all(result is not None for result in results)
