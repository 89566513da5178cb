"""Nodes that the graph language has no words for: copied as Dynamo has them, and opaque from then on.

Such are the nodes that touch tensor subclasses, the functorch regions whose plain operators would not do the same, and
functions that recording does not see. What compiles the graph takes them as it takes Dynamo's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import has_proxy_slot, track_tensor_tree
from torch.utils import _pytree as pytree

from .opaque import is_higher_order
from .regions import Region


def is_verbatim(node: fx.Node) -> bool:
    """Whether a node was copied as Dynamo has it; `meta["verbatim"]` says why."""
    return "verbatim" in node.meta


def is_opaque(node: fx.Node) -> bool:
    """Whether nothing is known of what a node does with its operands."""
    return is_higher_order(node) or is_verbatim(node)


class Recording:
    """The graph that is being recorded, and what to do with it."""

    def __init__(self) -> None:
        mode = torch._ops._get_dispatch_mode_pre_dispatch(torch._C._TorchDispatchModeKey.PROXY)
        self._tracer = mode.tracer

    def last(self) -> fx.Node:
        """The newest node."""
        return next(iter(reversed(self._tracer.graph.nodes)))

    def forget_after(self, last: fx.Node) -> None:
        """Take back what was recorded behind a node, nothing of which is used."""
        for node in reversed(self._tracer.graph.nodes):
            if node is last:
                break
            self._tracer.graph.erase_node(node)

    def saw(self, result: Any) -> bool:
        """Whether every tensor of a result was recorded."""
        return all(
            has_proxy_slot(leaf, self._tracer)
            for leaf in pytree.tree_leaves(result)
            if isinstance(leaf, torch.Tensor)
        )

    def copy(
        self, node: fx.Node, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, why: str
    ) -> Any:
        """Record a node as it stands, with this result.

        Args:
            node: of Dynamo's graph.
            args, kwargs: its arguments in the running trace.
            result: what it gives for them.
            why: what it works on or in that the graph language has no words for.
        """
        proxies = pytree.tree_map(self._tracer.unwrap_proxy, (tuple(args), dict(kwargs)))
        proxy = self._tracer.create_proxy(node.op, node.target, *proxies, name=node.name)
        proxy.node.meta["verbatim"] = why
        return track_tensor_tree(result, proxy, constant=None, tracer=self._tracer)

    def copy_region(self, region: Region, values: Sequence[Any], results: Sequence[Any]) -> None:
        """Record the nodes of a region as they stand.

        Args:
            region: of Dynamo's graph.
            values, results: of its inputs and outputs in the running trace.
        """
        proxies = {
            node: self._tracer.unwrap_proxy(value) for node, value in zip(region.inputs, values, strict=True)
        }
        for node in region.nodes:
            args, kwargs = fx.map_arg((node.args, dict(node.kwargs)), proxies.__getitem__)
            proxies[node] = self._tracer.create_proxy(node.op, node.target, args, kwargs, name=node.name)
            proxies[node].node.meta["verbatim"] = "inside a transform of torch.func"
        for node, result in zip(region.outputs, results, strict=True):
            track_tensor_tree(result, proxies[node], constant=None, tracer=self._tracer)
