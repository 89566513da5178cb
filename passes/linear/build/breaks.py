"""Places between two linear maps that no merge crosses, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch import fx

from ...graph.weights import leaves
from ...refusal import Refusal
from ...site import Site, refused_site
from ..algebra.elements import mixes, weights_of
from ..algebra.readings import Stops
from ..algebra.tree import Tree
from ..algebra.values import Value
from ..read.reader import Reader
from ..read.regions import has_map
from ..read.trees import Builder


def breaks(
    pass_name: str, graph: fx.Graph, trees: Sequence[Tree], reader: Reader, builder: Builder
) -> Iterator[tuple[fx.Node, Site]]:
    """Yield every break between two maps, each once, with the node behind it."""
    for after, value, reason in _breaks(graph, trees, reader, builder):
        inner = _maps_below(value, reader, builder)
        if any(map(reader.is_subject, [*inner, after])):
            yield after, _site(pass_name, inner, value, after, reason, reader)


def _breaks(
    graph: fx.Graph, trees: Sequence[Tree], reader: Reader, builder: Builder
) -> Iterator[tuple[fx.Node, Value, str]]:
    """The map behind each break, the value at which it is, and why."""
    told: set[fx.Node] = set()
    for tree in trees:
        for leaf in tree.leaves():
            node = leaf.value.node
            above = _map_above(leaf) or _sum_beside(leaf, tree, reader)
            if node in told or above is None:
                continue
            reason = _reason(leaf, reader, builder)
            if reason:
                told.add(node)
                yield above.value.node, leaf.value, reason
    inner = {node for tree in trees for node in tree.nodes() if node is not tree.value.node}
    for value in (
        tree.value for tree in trees if reader.labelled
    ):  # the maps above may be none of this reader's subjects
        after = next(
            (user for user in builder.counted[value.node] if reader.map_axis(user) is not None), None
        )
        if after is not None and builder.shared(value.node) and value.node not in told | inner:
            told.add(value.node)
            yield after, value, shared_reason(value.node, builder)
    yield from _broken_maps(graph, told, reader, builder)


def _map_above(leaf: Tree) -> Tree | None:
    """The first map that a leaf's features run into."""
    level: Tree | None = leaf.parent
    while level is not None and not any(map(mixes, level.elements)):
        level = level.parent
    return level


def _sum_beside(leaf: Tree, tree: Tree, reader: Reader) -> Tree | None:
    """The sum in which a map that stays as it is meets another map of what it reads itself."""
    reading = reader.read(leaf.value)
    if not isinstance(reading, Stops) or not reading.is_map or leaf.parent is None or not leaf.parent.is_sum:
        return None
    beside = [each for each in tree.maps() if any(below.value == reading.operand for below in each.leaves())]
    return leaf.parent if beside else None


def _reason(leaf: Tree, reader: Reader, builder: Builder) -> str:
    value = leaf.value
    reading = reader.read(value)
    if isinstance(reading, Stops):
        below = reader.read(reading.operand)
        while isinstance(below, Stops) and not below.is_map and not reading.is_map:
            reading, below = below, reader.read(below.operand)  # the one next to the map below
        crosses = reading.is_map or has_map(reader, reading.operand, builder)
        return reading.reason if crosses else ""
    if reading is None or not builder.shared(value.node) or not has_map(reader, value, builder):
        return ""
    return shared_reason(value.node, builder)


def shared_reason(node: fx.Node, builder: Builder) -> str:
    """Why an intermediate has to be computed."""
    users = builder.counted[node]
    others = [user for user in users if user.op != "output"]
    if len(others) < len(users):
        return Refusal("returned", value=node.name)
    names = ", ".join([*(user.name for user in others[:4]), *(["..."] if len(others) > 4 else [])])
    return Refusal("shared", value=node.name, count=len(others), users=names)


def _broken_maps(
    graph: fx.Graph, told: set[fx.Node], reader: Reader, builder: Builder
) -> Iterator[tuple[fx.Node, Value, str]]:
    """Maps with a problem of their own, next to another map."""
    for node in graph.nodes:
        axis = reader.map_axis(node)
        if axis is None or node in told:
            continue
        reading = reader.read(Value(node, axis))
        if not isinstance(reading, Stops):
            continue
        if has_map(reader, reading.operand, builder):
            told.add(node)
            if reading.operand.node not in told:
                yield node, reading.operand, reading.reason
            continue
        above = _next_map(Value(node, axis), reader)
        if above is not None:
            told.update((node, above))
            yield above, Value(node, axis), reading.reason


def _next_map(value: Value, reader: Reader) -> fx.Node | None:
    """The first map that reads a value, through nothing or through what regions hold."""
    stack, seen = [value], {value}
    while stack:
        current = stack.pop()
        for user in current.node.users:
            axis = reader.map_axis(user)
            if axis is not None:
                return user
            for place in reader.axes(user):
                following = Value(user, place)
                reading = reader.read(following)
                if following not in seen and reading is not None and _continues(reading, current):
                    seen.add(following)
                    stack.append(following)
    return None


def _continues(reading: object, value: Value) -> bool:
    operand = getattr(reading, "operand", None)
    return operand == value or value in getattr(reading, "operands", ())


def _site(
    pass_name: str, inner: Sequence[fx.Node], value: Value, after: fx.Node, reason: str, reader: Reader
) -> Site:
    weights = leaves(weight for node in inner for weight in _weights(node, reader))
    site = refused_site(
        pass_name, "linear_chain", [*inner, after], weights, line=after, output=after, reason=reason
    )
    names = dict.fromkeys([*(node.name for node in sorted(inner)), value.node.name, after.name])
    return replace(site, nodes=tuple(names))


def _maps_below(value: Value, reader: Reader, builder: Builder) -> list[fx.Node]:
    """The maps that a value comes from: those of its own region, or of the one below what stops it."""
    reading = reader.read(value)
    if isinstance(reading, Stops):
        return [reading.node] if reading.is_map else _maps_below(reading.operand, reader, builder)
    return list(dict.fromkeys(level.value.node for level in builder.build(value).maps()))


def _weights(node: fx.Node, reader: Reader) -> list[fx.Node]:
    axis = reader.map_axis(node)
    found = reader.map_elements(node)
    return [] if axis is None else [weight for element in found for weight in weights_of(element)]
