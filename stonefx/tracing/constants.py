"""Tensors made of Python numbers by the user's code, which tracing lifts into attributes of the graph."""

from __future__ import annotations

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from .errors import capture_error, is_wrapped, node_location


def check_constants(module: fx.GraphModule) -> None:
    """Raise `CaptureError` where an attribute of the graph is a tensor that lived only during tracing."""
    for node in module.graph.find_nodes(op="get_attr"):
        value = attribute(module, node)
        if isinstance(value, FakeTensor) or is_wrapped(value):
            raise capture_error(
                f"the trace-time tensor `{node.target}` ({type(value).__name__}) leaked into the graph",
                "Exclude this code with torch.compiler.disable, or report it.",
                node_location(node),
            )


def inline_scalars(module: fx.GraphModule) -> None:
    """Make every lifted 0-dim constant an `aten.full([], value)`, which needs no attribute.

    Each `lift_fresh_copy` of a constant becomes a tensor of its own, because the user's code may write to it.
    Other constants stay attributes, without the `detach_` that tracing adds.
    """
    graph = module.graph
    for node in graph.find_nodes(op="get_attr"):
        value = attribute(module, node)
        if not isinstance(value, torch.Tensor) or value.requires_grad:
            continue
        for user in list(node.users):
            if user.target is torch.ops.aten.lift_fresh_copy.default:
                _remove_detach(user)
        if value.dim():
            continue
        for user in list(node.users):
            if user.target is torch.ops.aten.lift_fresh_copy.default:
                _replace_by_full(user, value)
        if node.users:
            _replace_by_full(node, value)
        else:
            graph.erase_node(node)
    _remove_unused(module)


def fake_constants(module: fx.GraphModule, fake_mode: FakeTensorMode) -> None:
    """Give every attribute node the fake tensor that stands for its value."""
    for node in module.graph.find_nodes(op="get_attr"):
        value = attribute(module, node)
        if isinstance(value, torch.Tensor):
            node.meta["val"] = fake_mode.from_tensor(value, static_shapes=True)


def attribute(module: fx.GraphModule, node: fx.Node) -> object:
    """What a get_attr node reads."""
    value: object = module
    for name in str(node.target).split("."):
        value = getattr(value, name)
    return value


def _replace_by_full(node: fx.Node, value: torch.Tensor) -> None:
    graph = node.graph
    with graph.inserting_before(node):
        full = graph.call_function(
            torch.ops.aten.full.default,
            ([], value.item()),
            {"dtype": value.dtype, "device": value.device, "pin_memory": False},
        )
    full.meta = dict(node.meta)
    node.replace_all_uses_with(full)
    graph.erase_node(node)


def _remove_detach(node: fx.Node) -> None:
    # The constant needs no gradient, so there is nothing to detach.
    for user in list(node.users):
        if user.target is torch.ops.aten.detach_.default:
            user.replace_all_uses_with(node)
            node.graph.erase_node(user)


def _remove_unused(module: fx.GraphModule) -> None:
    used = {str(node.target) for node in module.graph.find_nodes(op="get_attr")}
    for name in [name for name, _ in module.named_buffers(recurse=False) if name not in used]:
        delattr(module, name)
