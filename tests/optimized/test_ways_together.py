"""What one way of capturing or folding brings holds where the weights are kept, too: tables over both."""

from __future__ import annotations

import copy
import threading
import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

import stonefx


class Listed(nn.Module):
    """Weights in a list, of which no table of the module knows."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = [torch.randn(64, 8), torch.randn(8, 64)]
        self.head = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(linear(linear(x, self.weights[0]), self.weights[1]))


class Branching(nn.Module):
    """A branch on a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("flag", torch.tensor(1.0))
        self.layers = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layers(x)
        return y * 2 if self.flag > 0 else -y


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * ctx.saved_tensors[0].cos()


class Custom(Branching):
    """A custom function, which is looked into where no gradient is wanted."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Sine.apply(self.layers(x))


def close(came: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(came, expected, rtol=2e-6, atol=2e-5)


def made(kind: type[nn.Module]) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return kind().eval(), torch.randn(3, 8)


@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
@pytest.mark.parametrize("release", [True, False])
def test_weights_in_a_list_are_folded_and_followed_where_they_are_kept(release: bool, inner: str) -> None:
    model, x = made(Listed)
    fast = stonefx.optimize(model, x, release=release, inner=inner)
    assert fast.report.rewritten("linear_chain")
    assert ("head.weight" in fast.state_dict()) is not release
    twin = copy.deepcopy(fast)
    with torch.no_grad():
        close(fast(x), model(x))
        close(twin(x), model(x))
        if not release:
            changed = copy.deepcopy(model)
            for one in (twin, changed):
                one.weights[0].mul_(2)
                one.head.bias.add_(1)
            close(twin(x), changed(x))
            close(fast(x), model(x))


@pytest.mark.parametrize("release", [True, False])
def test_a_branch_on_a_buffer_is_checked_at_the_call(release: bool) -> None:
    model, x = made(Branching)
    fast = stonefx.optimize(model, x, release=release)
    for one in (fast, model):
        one.flag.fill_(-1.0)
    with torch.no_grad():
        if release:
            with pytest.raises(ValueError, match=r"a branch on flag .* release=False"):
                fast(x)
        else:
            with pytest.warns(stonefx.StonefxWarning, match="a branch on flag"):
                close(fast(x), model(x))


@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
@pytest.mark.parametrize("release", [True, False])
def test_custom_functions_with_and_without_gradients(release: bool, inner: str) -> None:
    model, x = made(Custom)
    fast = stonefx.optimize(model, x, release=release, inner=inner)
    with torch.no_grad():
        close(fast(x), model(x))
    gradients = []
    for one in (fast, model):
        given = x.clone().requires_grad_()
        one(given).sum().backward()
        gradients.append(given.grad)
    close(*gradients)


def test_a_forward_that_was_patched_is_optimized_at_the_first_call() -> None:
    model, x = made(lambda: nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)))  # type: ignore[arg-type]
    plain = model.forward
    model.forward = lambda x: plain(x) * 3  # type: ignore[method-assign]
    fast = stonefx.optimize(model)
    with torch.no_grad():
        close(fast(x), model(x))
    assert fast.report.rewritten("linear_chain")


def test_a_model_that_cannot_be_copied_is_left_as_it_is_or_taken_over() -> None:
    model, x = made(lambda: nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)))  # type: ignore[arg-type]
    model.lock = threading.Lock()
    expected = model(x)
    with pytest.raises(stonefx.CaptureError, match="Sequential cannot be copied"):
        stonefx.optimize(model, x)
    with pytest.warns(stonefx.StonefxWarning, match="the original runs"):
        fast = stonefx.optimize(model, x, on_error="eager")
    assert type(model) is nn.Sequential and fast is not model
    close(fast(x), expected)
    with warnings.catch_warnings(action="ignore"):
        assert stonefx.optimize(model, x, inplace=True) is model
    close(model(x), expected)
