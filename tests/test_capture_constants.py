"""Tensors that a model holds beside its parameters and buffers are weights of the copy that `optimize` owns."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_forwards import Forward, chain, optimized, rows, same
from torch import nn

import stonefx
from stonefx.tracing.ownership import reachable_tensors

FIRST, SECOND = torch.randn(64, 6), torch.randn(3, 64)


class OfTheClass(nn.Module):
    first, second = FIRST.clone(), SECOND.clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.first.t() @ self.second.t()


def attribute() -> nn.Module:
    model = Forward(lambda model, x: x @ model.w.t() @ model.v.t())
    # Not through setattr, which would make buffers of them here.
    model.__dict__ |= {"w": FIRST.clone(), "v": SECOND.clone()}
    return model


def container(make: Callable[[Any], Any], read: Callable[[Any], Any]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        model = Forward(lambda model, x: x @ read(model.held)[0].t() @ read(model.held)[1].t())
        model.held = make((FIRST.clone(), SECOND.clone()))
        return model

    return build


def layers_in_a_list() -> nn.Module:
    model = Forward(lambda model, x: model.layers[1](model.layers[0](x)))
    model.layers = [nn.Linear(6, 64), nn.Linear(64, 3)]
    return model


def of_globals() -> nn.Module:
    return Forward(lambda model, x: x @ FIRST.t() @ SECOND.t())


def of_a_closure() -> nn.Module:
    first, second = nn.Linear(6, 64), nn.Linear(64, 3)
    return Forward(lambda model, x: second(first(x)))


def compiled_forward() -> nn.Module:
    model = chain()
    model.forward = torch.compile(model.forward)  # type: ignore[method-assign]
    return model


class Adapter(nn.Module):
    """Takes the place of a layer's forward, as LoRA scripts do."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.down = nn.Linear(layer.in_features, 2, bias=False)
        self.up = nn.Linear(2, layer.out_features, bias=False)
        self.original = layer.forward

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.original(x) + self.up(self.down(x))


def patched_by_an_adapter() -> nn.Module:
    model = chain()
    model[0].forward = Adapter(model[0]).forward
    return model


def patched_by_a_function() -> nn.Module:
    model = chain()
    original, scale = model[0].forward, nn.Parameter(torch.rand(64))
    model[0].forward = lambda x: original(x) * scale
    return model


OWN = {
    "attribute": attribute,
    "list": container(list, lambda held: held),
    "tuple": container(tuple, lambda held: held),
    "dict": container(lambda both: {"a": both[0], "b": both[1]}, lambda held: (held["a"], held["b"])),
    "layers in a list": layers_in_a_list,
    "compiled forward": compiled_forward,
    "adapter": patched_by_an_adapter,
}
OTHERS = {
    "class": OfTheClass,
    "globals": of_globals,
    "closure": of_a_closure,
    "function": patched_by_a_function,
}


def tensors(model: nn.Module) -> list[torch.Tensor]:
    """All that a change of the original can mean."""
    held = [value for value in vars(model).values() if isinstance(value, (list, tuple, dict, torch.Tensor))]
    found: list[torch.Tensor] = [*model.parameters(), FIRST, SECOND, OfTheClass.first, OfTheClass.second]
    for value in held:
        items = (
            value.values()
            if isinstance(value, dict)
            else [value]
            if isinstance(value, torch.Tensor)
            else value
        )
        for item in items:
            found += [item] if isinstance(item, torch.Tensor) else list(getattr(item, "parameters", list)())
    return found


@pytest.mark.parametrize("name", OWN | OTHERS)
def test_they_are_merged_and_owned(name: str) -> None:
    model = (OWN | OTHERS)[name]().eval()
    expected = [model(rows(size)).detach() for size in (5, 8)]
    fast = optimized(model, rows())
    with torch.no_grad():
        before = [tensor.clone() for tensor in tensors(model)]
        for tensor in tensors(model):
            tensor.mul_(2)
        try:
            for size, value in zip((5, 8), expected, strict=True):
                same(fast(rows(size)).detach(), value)
                same(copy.deepcopy(fast)(rows(size)).detach(), value)
        finally:
            for tensor, value in zip(tensors(model), before, strict=True):
                tensor.copy_(value)
    noted = any("not part of the model" in note for note in fast.report.notes)
    assert noted == (name in OTHERS)


def test_the_note_names_them() -> None:
    fast = optimized(of_globals(), rows())
    assert "globals or classes: FIRST, SECOND; the result has copies" in fast.report.notes[0]


@pytest.mark.parametrize("name", ["list", "layers in a list"])
def test_through_torch_compile_they_are_inputs(name: str) -> None:
    model = OWN[name]().eval()
    torch._dynamo.reset()
    fast = torch.compile(model, backend="stone", options={"inner": "eager"})
    same(fast(rows()).detach(), model(rows()).detach())
    with torch.no_grad():
        for tensor in tensors(model):
            tensor.mul_(2)
    try:
        same(fast(rows()).detach(), model(rows()).detach())
    finally:
        with torch.no_grad():
            for tensor in tensors(model):
                tensor.div_(2)


def test_one_that_wants_a_gradient_gets_it() -> None:
    model = Forward(lambda model, x: torch.relu(x @ model.held[0].t()))
    model.held = [FIRST.clone().requires_grad_()]
    fast = stonefx.optimize(model.eval(), rows(), machine="default")
    (held,) = [buffer for buffer in fast.buffers() if buffer.requires_grad]
    fast(rows()).sum().backward()
    model(rows()).sum().backward()
    torch.testing.assert_close(held.grad, model.held[0].grad)


def test_what_a_model_reaches_is_what_its_copy_copies() -> None:
    model = nn.Sequential(*(build() for build in (OWN | OTHERS).values()))
    own = reachable_tensors(model)
    copied = reachable_tensors(copy.deepcopy(model))
    assert len(own) == len(copied) and not own & copied
    assert id(FIRST) not in own and id(OfTheClass.first) not in own
