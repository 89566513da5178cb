"""Modules whose forward is one function, over a chain that is folded, so that the original cannot run in its place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import stonefx


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.Linear(64, 3)).eval()


class Forward(nn.Module):
    """Calls `function(self, ...)`; `self.chain` is a chain, and `parts` are attributes."""

    def __init__(self, function: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.function = function
        self.chain = chain()
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


def optimized(model: nn.Module, *args: Any, **options: Any) -> nn.Module:
    """The optimized model, quickly; at least one site must have been rewritten."""
    fast = stonefx.optimize(model.eval(), args, machine="default", **options)
    assert fast.report.rewritten(), str(fast.report)
    return fast


def rows(count: int = 5) -> torch.Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(count))


def same(came: Any, expected: Any) -> None:
    """Two results are equal in types and constants, and their tensors up to rounding."""
    assert type(came) is type(expected)
    if isinstance(expected, torch.Tensor):
        torch.testing.assert_close(came, expected, rtol=1e-5, atol=1e-5)
        assert came.requires_grad == expected.requires_grad
    elif isinstance(expected, dict):
        assert list(came) == list(expected)
        for key in expected:
            same(came[key], expected[key])
    elif dataclasses.is_dataclass(expected):
        same(vars(came), vars(expected))
    elif isinstance(expected, (list, tuple)) and not isinstance(expected, torch.Size):
        assert len(came) == len(expected)
        for one, other in zip(came, expected, strict=True):
            same(one, other)
    else:
        assert came == expected
