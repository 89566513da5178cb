"""Places between two linear maps that no merge crosses, with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from torch import fx

from ...graph.nodes import val
from ...graph.weights import leaves
from ...refusal import Refusal
from ...site import Site, refused_site
from ..algebra.elements import Apply, mixes, weights_of
from ..algebra.readings import Stops
from ..algebra.tree import Tree
from ..algebra.values import Value
from ..plan.decide import Decision
from ..plan.price import Costs
from ..read.reader import Reader
from ..read.regions import has_map
from ..read.trees import Builder
from .between import between, maps_before


def breaks(
    pass_name: str, graph: fx.Graph, decisions: Sequence[Decision], reader: Reader, builder: Builder
) -> Iterator[tuple[fx.Node, Site]]:
    """Yield every break between two maps, each once, with the node behind it."""
    planned = {decision.tree.value: decision.seconds_after for decision in decisions if decision.gains}
    for after, value, reason, curable in _breaks(graph, decisions, reader, builder):
        inner = _maps_below(value, reader, builder)
        if not any(map(reader.is_subject, [*inner, after])):
            continue
        site = _site(pass_name, inner, value, after, reason, reader)
        if curable and _curable(site):
            site = _priced(site, value, after, planned, reader, builder)
        yield after, site


def _breaks(
    graph: fx.Graph, decisions: Sequence[Decision], reader: Reader, builder: Builder
) -> Iterator[tuple[fx.Node, Value, str, bool]]:
    """The map behind each break, the value of the maps below, why, and whether the model could do without it."""
    told: set[fx.Node] = set()
    trees = [decision.tree for decision in decisions]
    for tree in trees:
        for leaf in tree.leaves():
            node = leaf.value.node
            above = _map_above(leaf) or _sum_beside(leaf, tree, reader)
            if node in told or above is None:
                continue
            reason, below, alone = _reason(leaf, above.value, reader, builder)
            if reason:
                told.add(node)
                yield above.value.node, below, reason, alone
    inner = {node for tree in trees for node in tree.nodes() if node is not tree.value.node}
    # The maps above a product with labels may be none of those that its reader is for.
    for value in (tree.value for tree in trees if reader.labelled):
        maps = [user for user in builder.counted[value.node] if reader.map_axis(user) is not None]
        if maps and builder.shared(value.node) and value.node not in told | inner:
            told.add(value.node)
            yield maps[0], value, shared_reason(value.node, builder), False
    for after, value, reason in _broken_maps(graph, told, reader, builder):
        yield after, value, reason, False


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


def _reason(leaf: Tree, after: Value, reader: Reader, builder: Builder) -> tuple[str, Value, bool]:
    """Why nothing is merged through a leaf, the value of the maps below, and whether they alone stand there.

    The reason is empty where there is no map below.
    """
    value = leaf.value
    reading = reader.read(value)
    if isinstance(reading, Stops):
        below = reader.read(reading.operand)
        while isinstance(below, Stops) and not below.is_map and not reading.is_map:
            reading, below = below, reader.read(below.operand)  # the one next to the map below
        if reading.is_map or has_map(reader, reading.operand, builder):
            return reading.reason, value, True
        return (reading.reason if maps_before(reading.operand.node, reader) else ""), value, False
    if reading is None:
        return between(value.node, after.node, reader) or "", value, False
    if has_map(reader, value, builder):
        return (shared_reason(value.node, builder) if builder.shared(value.node) else ""), value, True
    inner = (_reason(each, after, reader, builder) for each in builder.build(value).leaves())
    return next((each for each in inner if each[0]), ("", value, False))


def _curable(site: Site) -> bool:
    """Whether the model could be the same without what stands in the way: only then there is something to save."""
    return site.code != "norm" or "batch_norm" in str(site.figures["operator"])


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


def _priced(
    site: Site, below: Value, after: fx.Node, planned: Mapping[Value, float], reader: Reader, builder: Builder
) -> Site:
    """A break with the seconds of its maps, and of one map in their place; without where they are no row of dense maps.

    Args:
        site: the break.
        below: the value that the maps below give.
        after: the map behind it.
        planned: what a region that is rewritten takes then.
        reader, builder: what the pass knows.
    """
    inner = sorted(_maps_below(below, reader, builder))
    sizes = []
    for node in [*inner, after]:
        axis, elements = reader.map_axis(node), reader.map_elements(node)
        matrix = next((each.matrix for each in elements if isinstance(each, Apply)), None)
        if axis is None or matrix is None:
            return site
        sizes.append((Value(node, axis).rows(), matrix.inputs, matrix.outputs))
    if any(out != into for (_, _, out), (_, into, _) in pairwise(sizes)):
        return site
    costs = Costs.of(val(after), reader.context)
    rows, inputs, outputs = min(rows for rows, _, _ in sizes), sizes[0][1], sizes[-1][2]
    apart = planned.get(below, sum(costs.linear(*size) for size in sizes[:-1])) + costs.linear(*sizes[-1])
    return replace(site, seconds_before=apart, seconds_after=min(apart, costs.linear(rows, inputs, outputs)))


def _maps_below(value: Value, reader: Reader, builder: Builder) -> list[fx.Node]:
    """The maps that a value comes from: those of its own region, or of the one below what stops it."""
    reading = reader.read(value)
    if isinstance(reading, Stops):
        return [reading.node] if reading.is_map else _maps_below(reading.operand, reader, builder)
    if reading is None:
        nearest = [(node, reader.map_axis(node)) for node in maps_before(value.node, reader)]
        below = [
            _maps_below(Value(node, axis), reader, builder) for node, axis in nearest if axis is not None
        ]
        return list(dict.fromkeys(node for nodes in below for node in nodes))
    return list(dict.fromkeys(level.value.node for level in builder.build(value).maps()))


def _weights(node: fx.Node, reader: Reader) -> list[fx.Node]:
    axis = reader.map_axis(node)
    found = reader.map_elements(node)
    return [] if axis is None else [weight for element in found for weight in weights_of(element)]
