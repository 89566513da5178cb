"""Weights that torch's freezing makes attributes of a graph: inputs while it is rewritten, attributes again behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch._dynamo.source import AttrSource, LocalSource

from .passes.pipeline import copy_graph
from .tracing.constants import attribute


def lift_weights(gm: fx.GraphModule) -> tuple[fx.GraphModule, list[Any]]:
    """Make the weights that a graph of Dynamo's holds as attributes its last inputs.

    Returns:
        The graph and the weights; `gm` itself and none where it holds none, as is usual.
    """
    held: dict[str, list[fx.Node]] = {}
    for node in gm.graph.find_nodes(op="get_attr"):
        if isinstance(node.meta.get("example_value"), torch.Tensor):
            held.setdefault(str(node.target), []).append(node)
    if not held:
        return gm, []
    lifted = fx.GraphModule(gm, copy_graph(gm.graph))
    sources: Any = getattr(gm, "_param_name_to_source", {})
    graph = lifted.graph
    first = next(node for node in graph.nodes if node.op != "placeholder")
    for target in held:
        copies = [node for node in graph.find_nodes(op="get_attr") if node.target == target]
        with graph.inserting_before(first):
            placeholder = graph.placeholder(target.replace(".", "_"))
        placeholder.meta = copies[0].meta
        placeholder._dynamo_source = sources.get(target)
        for copy in copies:
            copy.replace_all_uses_with(placeholder)
            if copy is first:
                first = copy.next
            graph.erase_node(copy)
    lifted.meta.update(gm.meta)
    lifted.recompile()
    return lifted, [attribute(gm, nodes[0]) for nodes in held.values()]


def bind_weights(module: fx.GraphModule, values: Mapping[str, torch.Tensor]) -> None:
    """Make inputs of a rewritten graph its attributes, in place, so that inductor may freeze them.

    Args:
        module: the graph.
        values: name of each such placeholder -> its value.
    """
    graph = module.graph
    sources = dict(getattr(module, "_param_name_to_source", None) or {})
    first = next(node for node in graph.nodes if node.op != "placeholder")
    for node in graph.find_nodes(op="placeholder"):
        if node.name in values:
            target = f"_frozen_{node.name}"
            module.register_buffer(target, values[node.name].detach())
            sources[target] = AttrSource(LocalSource("self"), target)
            with graph.inserting_before(first):
                frozen = graph.get_attr(target)
            frozen.meta = {"val": node.meta["val"]}
            node.replace_all_uses_with(frozen)
            graph.erase_node(node)
    # A plain attribute: nn.Module's own typing would have it a tensor or module.
    object.__setattr__(module, "_param_name_to_source", sources)
    module.recompile()
