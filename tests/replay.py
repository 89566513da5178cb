"""Calling a captured graph in its model's place, and a model with nested arguments and results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from stonefx.capture import Capture, fill


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
