"""Which nodes of a graph are weights, which are folds, and which only feed a fold."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def is_fold(node: fx.Node) -> bool:
    """Whether a node holds a folded value: the runtime computes it once, outside of the graph."""
    return "fold" in node.meta


def is_stored(node: fx.Node) -> bool:
    """Whether a node is a stored tensor: a weight passed as an input, or a tensor attribute."""
    if "weight" in node.meta:
        return True
    return node.op == "get_attr" and isinstance(node.meta.get("val"), torch.Tensor)


def hidden_by_folds(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that serve folds only, so that nothing of them is left when the graph runs."""
    hidden: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.users and all(user in hidden or is_fold(user) for user in node.users):
            hidden.add(node)
    return hidden


def stored_behind(node: fx.Node) -> list[fx.Node]:
    """The weights that a fold is computed from, in the order of the graph."""
    seen: set[fx.Node] = set()
    stack = [node]
    while stack:
        current = stack.pop()
        if current not in seen:
            seen.add(current)
            stack.extend(current.all_input_nodes)
    return [candidate for candidate in node.graph.nodes if candidate in seen and is_stored(candidate)]


def tensors_in(value: Any) -> list[torch.Tensor]:
    """The tensors of a node's value, which may be one tensor or nested lists and tuples of them."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []
