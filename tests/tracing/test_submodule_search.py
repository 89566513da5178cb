"""The largest capturable submodules, from the top down."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from stonefx.capture import capturable_submodules
from stonefx.tracing.submodules import submodule_calls


class Branching(nn.Module):
    """Depends on its data, so it cannot be traced whole; its children can."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.right = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4)
        self.embed = nn.Embedding(3, 4)

    def forward(self, x: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        y = self.left(x) + self.embed(torch.zeros(1, dtype=torch.long))
        if y.sum() > 1e9:
            return y
        return self.right(y[:2]) + self.right(y * scale)[:2]


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Branching(), nn.Linear(4, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks[1](self.blocks[0](x, scale=2.0))


def call() -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),), {}


def test_the_largest_that_trace_are_found_and_the_others_explained() -> None:
    model = Outer()
    found, skipped = capturable_submodules(model, *call())
    assert [path for path, *_ in found] == ["blocks.0.left", "blocks.0.right", "blocks.1"]
    reasons = dict(line.split(": ", 1) for line in skipped)
    assert reasons.keys() == {"blocks.0", "blocks.0.unused", "blocks.0.embed"}
    assert "if y.sum() > 1e9:" in reasons["blocks.0"]
    assert reasons["blocks.0.unused"] == "not called on the example"
    assert reasons["blocks.0.embed"] == "called without a floating-point tensor"


def test_of_several_calls_the_largest_is_kept_and_the_model_is_unchanged() -> None:
    model = Outer()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = submodule_calls(model, *call())
    assert calls["blocks.0.right"][0][0].shape == (5, 4)
    assert calls["blocks.0"][1] == {"scale": 2.0}
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_module_used_twice_is_captured_once() -> None:
    class Shared(Branching):
        def __init__(self) -> None:
            super().__init__()
            self.again = self.right

    found, _ = capturable_submodules(Shared(), *call())
    assert [path for path, *_ in found] == ["left", "right"]
