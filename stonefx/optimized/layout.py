"""What a graph asks of the memory of its inputs: the layout of arguments, and weights that it writes to."""

from __future__ import annotations

import torch

from ..capture import Capture
from ..passes.graph.shapes import is_row_major
from ..tracing.mutation import written_placeholders

_LAYOUT = {torch.ops.aten.view, torch.ops.aten.contiguous, torch.ops.aten.as_strided, torch.ops.aten.reshape}


def row_major_arguments(capture: Capture, inner: str) -> frozenset[str]:
    """The arguments whose memory layout a graph relies on and that were in row-major order at capture.

    Views and `contiguous` were decided for the layout at capture, as is everything under inductor. An argument that
    the graph writes to must come as it is, since a copy of it would take the change.

    Args:
        capture: the capture, not rewritten yet.
        inner: what will run it.
    """
    graph = capture.module.graph
    relies = inner != "eager" or any(
        getattr(node.target, "overloadpacket", None) in _LAYOUT for node in graph.nodes
    )
    if not relies:
        return frozenset()
    written = written_placeholders(graph)
    return frozenset(
        node.name
        for node in graph.find_nodes(op="placeholder")
        if node.name in capture.arguments and node not in written and is_row_major(node.meta["val"])
    )


def written_weights(capture: Capture) -> list[str]:
    """The parameters and buffers that a graph writes to."""
    written = written_placeholders(capture.module.graph)
    return [
        name for placeholder, name in capture.weights.items() if any(n.name == placeholder for n in written)
    ]
