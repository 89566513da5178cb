"""What Dynamo wrote on its graph and what the retraced graph must carry on."""

from __future__ import annotations

import re

import torch
from torch import fx
from torch._dynamo.source import AttrSource, LocalSource

from .names import plain_name, source_name, weight_names

_NODE_META = ("tensor_dict", "example_value")


def carry_dynamo_meta(old: fx.GraphModule, new: fx.GraphModule) -> None:
    """Carry Dynamo's metadata over, so that `compile_fx` takes the retraced graph for one of Dynamo's.

    Sets `meta["weight"]` on parameters and buffers, readable names on all placeholders, and on their fake
    tensors the `requires_grad` that recording dropped.
    """
    before, after = old.graph.find_nodes(op="placeholder"), new.graph.find_nodes(op="placeholder")
    weights = weight_names(before)
    for source, node in zip(before, after, strict=True):
        for key in _NODE_META:
            if key in source.meta:
                node.meta[key] = source.meta[key]
        if hasattr(source, "_dynamo_source"):
            node._dynamo_source = source._dynamo_source
        if source in weights:
            node.meta["weight"] = weights[source]
        _keep_requires_grad(source, node)
    for node in new.graph.nodes:
        # It holds a weak reference to an input, which `torch.utils.swap_tensors` forbids, and only Dynamo reads it.
        node.meta.pop("grapharg", None)
    _rename(before, after)
    new.meta.update(old.meta)
    if hasattr(old, "_param_name_to_source"):
        # A plain attribute: nn.Module's own typing would have it a tensor or module.
        object.__setattr__(new, "_param_name_to_source", _attribute_sources(old, new))


def _keep_requires_grad(source: fx.Node, node: fx.Node) -> None:
    example, fake = source.meta.get("example_value"), node.meta.get("val")
    if isinstance(example, torch.Tensor) and isinstance(fake, torch.Tensor) and example.requires_grad:
        fake.requires_grad_(True)


def _rename(before: list[fx.Node], after: list[fx.Node]) -> None:
    for source, node in zip(before, after, strict=True):
        if isinstance(node.meta.get("val"), torch.SymInt):
            name = source.name
        else:
            name = node.meta.get("weight") or plain_name(source_name(source))
        name = re.sub(r"\W+", "_", name).strip("_").lower() or source.name
        node._rename(f"arg_{name}" if name[0].isdigit() else name)
        node.target = node.name


def _attribute_sources(old: fx.GraphModule, new: fx.GraphModule) -> dict[str, object]:
    """Inductor asks a source of every attribute; constants lifted by the retrace have none of Dynamo's."""
    sources: dict[str, object] = dict(getattr(old, "_param_name_to_source", None) or {})
    for name, _ in [*new.named_parameters(), *new.named_buffers()]:
        sources.setdefault(name, AttrSource(LocalSource("self"), f"_constant_{name}"))
    return sources
