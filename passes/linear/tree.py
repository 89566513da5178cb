"""An affine region as a tree: how a value comes from given ones through maps, moves, sums and joins."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..arguments import packet
from ..shapes import same_sizes
from .elements import Convolve, Element, Scale, Shift, mixes, weights_of
from .layout import rearranges_nothing
from .reader import Reader
from .readings import Adds, Joins, Maps, Moves, Stops
from .values import Value

aten = torch.ops.aten
_ABSOLUTE = (aten.view, aten.reshape, aten._unsafe_view)


@dataclass(eq=False)
class Tree:
    """A value of the region. `parent` is the level that reads it; the root has none.

    Args:
        value: the value, as the original graph holds it; where a move changed places with a map, a value with as
            many rows.
        width: the number of features.
        elements: a map of features: what it does to the only child. Empty for the other kinds.
        move: the operation on the other axes, for a level of that kind.
        children: the levels that this one reads; a leaf has none.
        factors: for a sum, the factor of each child.
        joins: the children are concatenated along the features.
        call: for a map as the graph has it, its target, arguments and operand, which a rewrite may have changed since.
        dropped: the views between this level and its child that were found to be needless.
    """

    value: Value
    width: int
    elements: tuple[Element, ...] = ()
    move: Moves | None = None
    children: list[Tree] = field(default_factory=list)
    factors: tuple[float, ...] = ()
    joins: bool = False
    call: tuple[Any, Any, Any, Value] | None = None
    dropped: list[fx.Node] = field(default_factory=list)
    parent: Tree | None = None
    place: int = 0

    @property
    def is_leaf(self) -> bool:
        """A value that is given."""
        return not self.children

    @property
    def is_sum(self) -> bool:
        """A sum of children."""
        return bool(self.factors)

    @property
    def is_map(self) -> bool:
        """A map of features, perhaps one that does nothing."""
        return len(self.children) == 1 and self.move is None and not self.factors and not self.joins

    @property
    def offset(self) -> int:
        """Where the features of this child begin in the concatenation that its parent makes."""
        assert self.parent is not None
        return sum(sibling.width for sibling in self.parent.children[: self.place])

    def adopt(self) -> Tree:
        """Tell the children who reads them."""
        for place, child in enumerate(self.children):
            child.parent, child.place = self, place
        return self

    def walk(self) -> Iterator[Tree]:
        """This level and all below it, from the top."""
        yield self
        for child in self.children:
            yield from child.walk()

    def leaves(self) -> list[Tree]:
        """The leaves, from left to right; one value may stand at several."""
        return [level for level in self.walk() if level.is_leaf]

    def given(self) -> list[fx.Node]:
        """The nodes whose values the region is given, each once."""
        nodes: dict[fx.Node, None] = {}
        for leaf in self.leaves():
            value = leaf.value
            nodes[value.node.all_input_nodes[0] if value.bare else value.node] = None
        return list(nodes)

    def maps(self) -> list[Tree]:
        """The levels that compute features from other features with a weight or a fixed matrix, bottom up."""
        return [level for level in reversed(list(self.walk())) if any(map(mixes, level.elements))]

    def nodes(self) -> list[fx.Node]:
        """The nodes of the graph that the levels above the leaves stand for, each once."""
        levels = [level for level in self.walk() if not level.is_leaf]
        return list(dict.fromkeys(node for level in levels for node in (level.value.node, *level.dropped)))

    def weights(self) -> list[fx.Node]:
        """The weight nodes that the levels read."""
        return [
            node for level in reversed(list(self.walk())) for e in level.elements for node in weights_of(e)
        ]


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
        return _without_idle_views(tree)

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


def _without_idle_views(tree: Tree) -> Tree:
    """Leave out views that rearrange nothing in the end, and reshapes that a later one makes needless."""
    for top in list(tree.walk()):
        parent = top.parent
        if parent is not None and _passes(parent) and parent is not tree:
            continue  # a run begins below a root, a sum, a join or a real move
        run = _run(top)
        views = [level for level in run if level.move is not None]
        if views:
            for idle in _idle(views):
                _drop(idle)
    return tree


def _passes(level: Tree) -> bool:
    """Whether views may be taken across a level: a map of features at single places, or a view itself."""
    if level.move is not None:
        return level.move.view
    return level.is_map and not any(isinstance(element, Convolve) for element in level.elements)


def _run(top: Tree) -> list[Tree]:
    """The levels from `top` down that views may be taken across."""
    run, level = [], top
    while _passes(level):
        run.append(level)
        level = level.children[0]
    return run


def _idle(views: list[Tree]) -> list[Tree]:
    """The views of a run, listed from the top, that may be left out."""
    if not views:
        return []
    if all(level.move is not None and level.move.ordered for level in views):
        lowest = views[-1].move
        assert lowest is not None
        low, high = lowest.operand, views[0].value
        if low.axis == high.axis and same_sizes(low.carried, high.carried):
            return views
        for place, level in enumerate(views):
            if packet(level.value.node) in _ABSOLUTE:
                return views[place + 1 :]
        return []
    for length in range(len(views), 1, -1):
        for start in range(len(views) - length + 1):
            part = views[start : start + length]
            moves = [level.move for level in reversed(part) if level.move is not None]
            low, high = moves[0].operand, part[0].value
            if low.axis == high.axis and rearranges_nothing(low, moves):
                return [*_idle(views[:start]), *part, *_idle(views[start + length :])]
    return []


def _drop(level: Tree) -> None:
    child, parent = level.children[0], level.parent
    if parent is None:
        level.move = None  # the root keeps its node, and does nothing
        return
    parent.dropped += [level.value.node, *level.dropped]
    parent.children[level.place] = child
    child.parent, child.place = parent, level.place


def with_moves_first(tree: Tree) -> Tree | None:
    """The same region with every move that leaves fewer rows taken below the maps under it; None if none is.

    `mean(W x + b) = W mean(x) + b`: a map costs less behind a mean, a pooling or a selection than before it.
    """
    copy = _copy(tree)
    changed = False
    again = True
    while again:
        again = False
        for level in copy.walk():
            if _sinks(level):
                _swap(level)
                changed = again = True
                break
    return copy if changed else None


def _copy(tree: Tree) -> Tree:
    children = [_copy(child) for child in tree.children]
    return Tree(
        tree.value,
        tree.width,
        tree.elements,
        tree.move,
        children,
        tree.factors,
        tree.joins,
        tree.call,
        tree.dropped,
    ).adopt()


def _sinks(level: Tree) -> bool:
    move = level.move
    if move is None or move.view:
        return False
    child = level.children[0]
    if not child.is_map or any(isinstance(element, Convolve) for element in child.elements):
        return False
    if not move.preserves and any(isinstance(element, Shift) for element in child.elements):
        return False
    return level.value.rows() < child.value.rows()


def _swap(level: Tree) -> None:
    """A move above a map becomes a map above a move: the levels keep their places and swap what they do."""
    child = level.children[0]
    source = child.children[0]
    level.elements, child.elements = child.elements, ()
    level.move, child.move = None, level.move
    child.value, child.width = level.value, source.width
    level.call = child.call = None


def elementwise(elements: tuple[Element, ...]) -> bool:
    """Whether elements shift and scale single features, and no more."""
    return all(isinstance(element, Shift | Scale) for element in elements)
