"""Finds the affine regions of a graph: maximal trees of maps, moves, sums and joins."""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from ...graph.shapes import expression, same_size
from ...graph.sizes import is_size
from ..algebra.elements import Permute, mixes
from ..algebra.readings import Adds, Joins, Maps, Moves, Reading, Stops, operands
from ..algebra.tree import Tree
from ..algebra.values import Value
from .reader import Reader
from .trees import Builder


def users(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """For every node, its users other than those that only read a size; for one that is split, those are the parts."""
    found = {node: [user for user in node.users if not is_size(user, node)] for node in graph.nodes}
    for node, readers in found.items():
        found[node] = [part for user in readers for part in (found[user] if _splits(user) else [user])]
    return found


def _splits(node: fx.Node) -> bool:
    return node.op == "call_function" and isinstance(node.meta.get("val"), list | tuple)


def feature_axes(graph: fx.Graph, reader: Reader) -> dict[fx.Node, set[int]]:
    """The axes along which a node's value is affine in what some linear map made or will read."""
    axes: dict[fx.Node, set[int]] = {}
    for node in graph.nodes:
        if node in reader.fixed or not reader.axes(node):
            continue
        own = reader.map_axis(node)
        found = set() if own is None else {own}
        if any(operand in axes for operand in node.all_input_nodes) or _picks_part(node, axes):
            for axis in reader.axes(node):
                reading = reader.read(Value(node, axis))
                if any(operand.axis in axes.get(operand.node, ()) for operand in operands(reading)):
                    found.add(axis)
        if found:
            axes[node] = found
    return axes


def _picks_part(node: fx.Node, axes: dict[fx.Node, set[int]]) -> bool:
    """Whether a node is a piece of a split whose source has a feature axis."""
    return any(
        source in axes for split in node.all_input_nodes if _splits(split) for source in split.all_input_nodes
    )


def roots(graph: fx.Graph, reader: Reader, builder: Builder) -> Iterator[Tree]:
    """Yield the tree of every region that holds a map of features, from the end of the graph to its start."""
    axes = feature_axes(graph, reader)
    covered: set[Value] = set()
    for node in reversed(list(graph.nodes)):
        for axis in sorted(axes.get(node, ())):
            value = Value(node, axis)
            if value in covered or not _begins(reader.read(value)):
                continue
            tree = builder.build(value)
            if not any(reader.is_subject(level.value.node) for level in tree.maps()):
                continue
            for level in tree.walk_parts():
                if not level.is_leaf:
                    covered.add(level.value)
            yield tree


def _begins(reading: Reading | None) -> bool:
    """Whether a region may end with what a reading says: views and no-ops behind it do not belong to it."""
    if isinstance(reading, Maps):
        return any(not isinstance(element, Permute) for element in reading.elements)
    if isinstance(reading, Moves):
        fewer = reading.operand.rows() > Value(reading.node, _axis(reading)).rows()
        return not reading.view and (fewer or expression(reading.summed) != 1)
    return isinstance(reading, Adds | Joins)


def _axis(reading: Moves) -> int:
    """Any axis of a move's result with the width of its operand; only the number of rows is asked of it."""
    shape = reading.node.meta["val"].shape
    return next(axis for axis, size in enumerate(shape) if same_size(size, reading.operand.width))


def has_map(reader: Reader, value: Value, builder: Builder) -> bool:
    """Whether a value comes from a linear map, itself one or through anything a region holds."""
    reading = reader.read(value)
    if isinstance(reading, Stops):
        return reading.is_map or has_map(reader, reading.operand, builder)
    tree = builder.build(value)
    return any(any(map(mixes, level.elements)) for level in tree.walk())
