"""A select of one feature, for the time of the pass, as a slice of width 1 and a select from that.

A region is about values with a feature axis, and `y[..., 3]` has lost it; the slice still has it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.emit import Emitter, Unrealizable
from ...graph.nodes import val
from ...graph.shapes import expression
from ...site import Site
from .reader import Reader
from .regions import feature_axes

aten = torch.ops.aten

# The slice, and the select that it was made for.
Selects = dict[fx.Node, fx.Node]


def slice_selects(graph: fx.Graph, reader: Reader) -> Selects:
    """Put a slice of one feature in front of every select along a feature axis."""
    found = [node for node in graph.nodes if packet(node) is aten.select and _is_fixed(node, reader)]
    axes = feature_axes(graph, reader) if found else {}
    slices: Selects = {}
    for node in found:
        given = named_arguments(node)
        source, axis = given["self"], given["dim"] % val(given["self"]).dim()
        if axis not in axes.get(source, ()):
            continue
        index = given["index"] % int(val(source).shape[axis])
        place = {"dim": axis, "start": index, "end": index + 1, "step": 1}
        emit = Emitter(node)
        try:
            part = emit.call(aten.slice.Tensor, {"self": source, **place})
        except Unrealizable:
            emit.sweep()
            continue
        node.args, node.kwargs = (part, axis, 0), {}
        slices[part] = node
    return slices


def _is_fixed(node: fx.Node, reader: Reader) -> bool:
    """Whether a node selects a known place along an axis of fixed size of something that is no weight."""
    if node in reader.fixed:
        return False
    given = named_arguments(node)
    size = expression(val(given["self"]).shape[given["dim"]])
    return isinstance(given["index"], int) and isinstance(size, int)


def join_selects(slices: Selects) -> None:
    """Leave out the slices that are still there."""
    for part, node in slices.items():
        if not part._erased and packet(part) is aten.slice and part in node.all_input_nodes:
            source, axis, start = part.args[:3]
            node.args = (source, axis, start)
            if not part.users:
                part.graph.erase_node(part)


def as_selects(site: Site, slices: Selects) -> Site:
    """A site that names the selects, which the graph has before the pass and behind it, instead of the slices."""
    names = {part.name: node.name for part, node in slices.items()}
    nodes = tuple(dict.fromkeys(names.get(name, name) for name in site.nodes))
    return replace(site, nodes=nodes, output=names.get(site.output, site.output))
