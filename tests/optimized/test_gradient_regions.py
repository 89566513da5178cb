"""A forward that switches gradient mode inside leaves the mode of its caller, whatever it was at capture."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

import stonefx


class Model(nn.Module):
    """A chain that merges, behind and in front of a part that runs in other modes."""

    def __init__(self, inside: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.inside = inside
        self.chain = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8))
        self.other = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.chain(x))
        return torch.relu(self.other(x)) * self.inside(self.other, x)


def one_region(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return layer(x).mean()


def two_regions(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    first = one_region(layer, x)
    return one_region(layer, torch.sin(x)) + first


def one_in_another(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        first = layer(x)
        with torch.no_grad():
            return first.mean() + layer(first).mean()


def gradients_inside(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        first = layer(x)
        with torch.enable_grad():
            second = layer(first)
        return second.mean()


def with_gradients(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.enable_grad():
        return layer(x).mean()


@pytest.mark.parametrize("release", [True, False], ids=["released", "kept"])
@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
@pytest.mark.parametrize("gradients", [True, False], ids=["gradients at capture", "none at capture"])
@pytest.mark.parametrize(
    "inside", [one_region, two_regions, one_in_another, gradients_inside, with_gradients]
)
def test_the_mode_of_the_caller_stays(
    inside: Callable[..., torch.Tensor], gradients: bool, inner: str, release: bool
) -> None:
    torch.manual_seed(0)
    model = Model(inside).eval()
    with torch.set_grad_enabled(gradients):
        fast = stonefx.optimize(model, torch.randn(4, 8), inner=inner, release=release)
    x = torch.randn(5, 8)
    modes: list[Callable[[], AbstractContextManager[object]]] = [
        torch.no_grad,
        torch.enable_grad,
        torch.inference_mode,
    ]
    for mode in modes:
        saved: list[torch.Tensor] = []
        with mode(), saved_tensors_hooks(lambda t, saved=saved: saved.append(t), lambda t: t):
            enabled = torch.is_grad_enabled()
            result = fast(x)
            assert torch.is_grad_enabled() == enabled
        assert enabled or inside is with_gradients or not saved
        with mode():
            expected = model(x)
        torch.testing.assert_close(result, expected)
        assert result.requires_grad == expected.requires_grad
