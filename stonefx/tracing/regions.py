"""Functorch regions of a Dynamo graph: everything from the outermost transform's entry to its exit.

Pre-dispatch recording sits above functorch, so `vmap` would leave dead batched tensors in the graph. Such a
region is traced on its own below functorch, which leaves plain operators, and those are then recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from .constants import check_constants
from .errors import capture_error, is_wrapped, node_location
from .located import Located
from .state import recording_paused, restored_state

_NESTING = {
    "_vmap_increment_nesting": 1,
    "_vmap_decrement_nesting": -1,
    "_grad_increment_nesting": 1,
    "_grad_decrement_nesting": -1,
    "_jvp_increment_nesting": 1,
    "_jvp_decrement_nesting": -1,
}
_WITHOUT_EFFECT = {"lazy_load_decompositions"}


@dataclass(frozen=True)
class Region:
    """The nodes of one outermost transform, what they read from outside and what is read of them outside."""

    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


def find_regions(graph: fx.Graph) -> list[Region]:
    """The outermost functorch regions of a graph, in order."""
    regions: list[Region] = []
    depth, nodes = 0, []
    for node in graph.nodes:
        step = _NESTING.get(_function_name(node), 0)
        if depth or step > 0:
            nodes.append(node)
        depth += step
        if depth == 0 and nodes:
            regions.append(_region(nodes))
            nodes = []
    if nodes:
        raise capture_error(
            "a functorch transform is entered and never left",
            "End the transform inside the compiled function.",
            node_location(nodes[0]),
        )
    return regions


def is_loader(node: fx.Node) -> bool:
    """Whether a node only loads functorch's own tables, which the process has done by now."""
    return _function_name(node) in _WITHOUT_EFFECT


def run_region(module: fx.GraphModule, region: Region, values: Sequence[Any]) -> list[Any]:
    """Evaluate a region on fake `values` of its inputs so that only plain operators are recorded.

    Raises:
        CaptureError: the plain operators would not propagate gradients as the region does.
    """
    body = _body(module, region)
    # What is raised inside of a transform would leave the process in it.
    with recording_paused(), restored_state(()):
        flat = make_fx(Located(body).run)(*values)
        flat.graph.eliminate_dead_code()
        flat.recompile()
        check_constants(flat)
        wanted = [_requires_grad(value) for value in evaluate_region(module, region, values)]
    results = list(fx.Interpreter(flat).run(*values))
    for node, value, grad in zip(region.outputs, results, wanted, strict=True):
        if is_wrapped(value) or _requires_grad(value) != grad:
            raise capture_error(
                f"the result `{node.name}` of a functorch transform does not carry gradients when traced",
                "Move the transform out of the compiled function, or run it under torch.no_grad().",
                node_location(node),
            )
    return results


def evaluate_region(module: fx.GraphModule, region: Region, values: Sequence[Any]) -> list[Any]:
    """Evaluate a region on fake `values` of its inputs, as it stands."""
    return Located(_body(module, region)).run(*values)


def _region(nodes: list[fx.Node]) -> Region:
    inside = set(nodes)
    inputs = dict.fromkeys(a for node in nodes for a in node.all_input_nodes if a not in inside)
    outputs = [node for node in nodes if any(user not in inside for user in node.users)]
    return Region(tuple(nodes), tuple(inputs), tuple(outputs))


def _body(module: fx.GraphModule, region: Region) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in region.inputs}
    for node in region.nodes:
        copies[node] = graph.node_copy(node, lambda argument: copies[argument])
    graph.output([copies[node] for node in region.outputs])
    return fx.GraphModule(module, graph)


def _function_name(node: fx.Node) -> str:
    return getattr(node.target, "__name__", "") if node.op == "call_function" else ""


def _requires_grad(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.requires_grad
