"""Builds the trees of affine regions from what nodes mean."""

from __future__ import annotations

from collections.abc import Collection

from torch import fx

from ..algebra.readings import Adds, Joins, Maps, Moves, Stops
from ..algebra.simplify import without_idle_views
from ..algebra.tree import Tree
from ..algebra.values import Value
from .reader import Reader


class Builder:
    """Builds trees from readings.

    Args:
        reader: reads the graph.
        counted: for every node, its users other than those that only read a size.
    """

    def __init__(self, reader: Reader, counted: dict[fx.Node, list[fx.Node]]) -> None:
        self.reader = reader
        self.counted = counted

    def build(self, value: Value, inlined: Collection[fx.Node] = ()) -> Tree:
        """The tree of a value, down to values that are given or shared and not in `inlined`."""
        tree = self._level(value, frozenset(inlined), top=True)
        for level in list(tree.walk()):
            level.adopt()
        return without_idle_views(tree)

    def shared(self, node: fx.Node) -> bool:
        """Whether something else reads a node's value too."""
        return len(self.counted[node]) > 1

    def _level(self, value: Value, inlined: frozenset[fx.Node], top: bool = False) -> Tree:
        reading = self.reader.read(value)
        leaf = Tree(value, value.width)
        if reading is None or isinstance(reading, Stops):
            return leaf
        if not top and self.shared(value.node) and value.node not in inlined:
            return leaf
        if isinstance(reading, Maps):
            child = self._level(reading.operand, inlined)
            call = (value.node.target, value.node.args, value.node.kwargs, reading.operand)
            return Tree(value, value.width, reading.elements, children=[child], call=call)
        if isinstance(reading, Moves):
            return Tree(value, value.width, move=reading, children=[self._level(reading.operand, inlined)])
        children = [self._level(operand, inlined) for operand in reading.operands]
        if isinstance(reading, Joins):
            return Tree(value, value.width, children=children, joins=True)
        assert isinstance(reading, Adds)
        return _flat_sum(value, children, reading.factors)


def _flat_sum(value: Value, children: list[Tree], factors: tuple[float, ...]) -> Tree:
    """A sum whose terms are no sums themselves."""
    terms: list[Tree] = []
    weights: list[float] = []
    for child, factor in zip(children, factors, strict=True):
        nested = child.factors if child.is_sum else (1.0,)
        for term, inner in zip(child.children if child.is_sum else [child], nested, strict=True):
            terms.append(term)
            weights.append(factor * inner)
    return _grouped(value, terms, weights)


def _grouped(value: Value, terms: list[Tree], factors: list[float]) -> Tree:
    """A sum in which the terms that come from one value stand together, since one map can make them all."""
    groups: dict[object, list[int]] = {}
    for place, term in enumerate(terms):
        sources = {leaf.value for leaf in term.leaves()}
        groups.setdefault(next(iter(sources)) if len(sources) == 1 else place, []).append(place)
    if len(groups) in (1, len(terms)):
        return Tree(value, value.width, children=terms, factors=tuple(factors))
    children: list[Tree] = []
    for places in groups.values():
        inner = [terms[place] for place in places]
        weights = tuple(factors[place] for place in places)
        together = Tree(value, value.width, children=inner, factors=weights)
        children.append(together if len(places) > 1 else inner[0])
    of_groups = tuple(1.0 if len(places) > 1 else factors[places[0]] for places in groups.values())
    return Tree(value, value.width, children=children, factors=of_groups)
