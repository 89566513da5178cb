"""Traces modules and functions into the graph language, with parameters as marked placeholders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch._subclasses import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv


def trace(
    model: nn.Module | Callable[..., Any],
    *inputs: torch.Tensor,
    weights: dict[str, torch.Tensor] | None = None,
    dynamic: bool = False,
) -> fx.GraphModule:
    """Trace into functional pre-dispatch ATen.

    Placeholders are the weights, in order, each with `meta["weight"]`, then the inputs.

    Args:
        model: a module; or a function of `(weights, *inputs)`, where `weights` is a namespace.
        weights: for a function, its weights by name.
        dynamic: sizes of the inputs are symbols; those of the weights never are.
    """
    if isinstance(model, nn.Module):
        weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    held = weights or {}
    names = list(held)

    def flat(*arguments: Any) -> Any:
        given = dict(zip(names, arguments[: len(names)], strict=True))
        if isinstance(model, nn.Module):
            return functional_call(model, given, arguments[len(names) :])
        return model(Weights(given), *arguments[len(names) :])

    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(value, static_shapes=True) for value in held.values()]
    fakes += [mode.from_tensor(value, static_shapes=not dynamic) for value in inputs]
    module = make_fx(flat, pre_dispatch=True, tracing_mode="real")(*fakes)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders, names, strict=False):
        node.meta["weight"] = name
        node.meta["val"].requires_grad_(held[name].requires_grad)
    return module


class Weights:
    """The weights of a traced function, as attributes."""

    def __init__(self, given: dict[str, torch.Tensor]) -> None:
        self.__dict__.update(given)


def run(module: fx.GraphModule, weights: Sequence[torch.Tensor] | nn.Module, *inputs: torch.Tensor) -> Any:
    """Run a traced graph on real weights and inputs, without gradients."""
    if isinstance(weights, nn.Module):
        weights = [*weights.parameters(), *weights.buffers()]
    with torch.no_grad():
        return module(*weights, *inputs)


def counts(module: fx.GraphModule) -> dict[str, int]:
    """How often each operator occurs outside of fold expressions, such as `{"linear": 1}`."""
    folded: set[fx.Node] = set()
    for node in reversed(list(module.graph.nodes)):
        if "fold" in node.meta or (node.users and all(user in folded for user in node.users)):
            folded.add(node)
    found: dict[str, int] = {}
    for node in module.graph.nodes:
        if node.op == "call_function" and node not in folded:
            name = getattr(node.target, "_opname", None) or node.target.__name__
            found[name] = found.get(name, 0) + 1
    return found


def folds(module: fx.GraphModule) -> list[str]:
    """The names of the folds of a graph, in order."""
    return [node.meta["fold"] for node in module.graph.nodes if "fold" in node.meta]
