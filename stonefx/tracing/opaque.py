"""Higher-order operators: copied whole, never traced into.

Traced into, a custom autograd function would silently lose its backward and a checkpoint its recomputation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import track_tensor_tree
from torch.utils import _pytree as pytree

from .errors import capture_error, node_location
from .state import recording_paused
from .subclasses import is_subclass


def is_higher_order(node: fx.Node) -> bool:
    """Whether a node calls a higher-order operator, such as a checkpoint or a custom autograd function."""
    return node.op == "call_function" and isinstance(node.target, torch._ops.HigherOrderOperator)


def copy_higher_order(node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Record a higher-order operator as it stands, its bodies as attributes, and return its fake result.

    Args:
        node: the node of Dynamo's graph.
        args, kwargs: its arguments in the running trace; bodies are `fx.GraphModule`s.
    """
    if "example_value" not in node.meta:
        raise capture_error(
            f"the higher-order operator `{node.target}` has no recorded result",
            "Call it outside the compiled function.",
            node_location(node),
        )
    mode = torch._ops._get_dispatch_mode_pre_dispatch(torch._C._TorchDispatchModeKey.PROXY)
    tracer = mode.tracer

    def recorded(argument: Any) -> Any:
        if isinstance(argument, torch.nn.Module):
            name = tracer.get_fresh_qualname(f"{node.name}_body")
            setattr(tracer.root, name, argument)
            return tracer.create_proxy("get_attr", name, (), {})
        return tracer.unwrap_proxy(argument)

    proxy = tracer.create_proxy(
        "call_function",
        node.target,
        pytree.tree_map(recorded, tuple(args)),
        pytree.tree_map(recorded, dict(kwargs)),
        name=node.name,
    )
    with recording_paused():
        result = pytree.tree_map(_fresh, node.meta["example_value"])
        return track_tensor_tree(result, proxy, constant=None, tracer=tracer)


def _fresh(value: Any) -> Any:
    """A fake tensor like `value` that no other trace has recorded: no leaf, since it is computed."""
    if not isinstance(value, torch.Tensor):
        return value
    if is_subclass(value):
        fresh = value.detach()
    else:
        fresh = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)
    if not value.requires_grad:
        return fresh
    with torch.enable_grad():
        return fresh.requires_grad_().clone()
