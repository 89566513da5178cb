"""The share of the passes in a compile."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stonefx import backend
from stonefx.benchmarks.compile_time import CompileTime, compile_time
from stonefx.inner import compile_inner
from stonefx.passes.pipeline import PIPELINE


class Named(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + 1


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_every_pass_is_counted_and_the_backend_left_as_it_was() -> None:
    found = compile_time(Named().eval(), {"x": torch.ones(2, 3)}, inner="eager")
    assert list(found.by_pass) == list(PIPELINE)
    assert found.passes == pytest.approx(sum(found.by_pass.values()))
    assert found.inner > 0
    assert backend.compile_inner is compile_inner


def test_the_share_is_printed() -> None:
    found = CompileTime(0.5, 10.0, {"normalize": 0.2, "lower": 0.3})
    assert str(found) == "passes 0.50 s (normalize 0.20 s, lower 0.30 s), inductor 10.0 s: 5.0 %"


def test_a_model_without_operators_is_refused() -> None:
    with pytest.raises(RuntimeError, match="nothing was compiled; give a model with at least one operator"):
        compile_time(Nothing().eval(), {"x": torch.ones(2)}, inner="eager")
