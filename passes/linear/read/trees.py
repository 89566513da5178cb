"""Builds the trees of affine regions from what nodes mean.

A value that is read more than once would stand in a tree more than once. Where all that comes from it meets again in
one value, and nothing else looks in between, as around a residual block, the part between the two is one level of the
tree: a map, seen from outside. Such parts are found by dominators, as in a graph of control flow; anywhere else a value
that is read more than once ends the tree, unless the caller wants it computed anew.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import fx

from ...graph.shapes import same_sizes
from ..algebra.elements import Convolve, Part
from ..algebra.readings import Adds, Joins, Maps, Moves, Reading, Stops, operands
from ..algebra.simplify import without_idle_views
from ..algebra.tree import Tree
from ..algebra.values import LABELLED, Value
from .reader import Reader


@dataclass(eq=False)
class _Frame:
    """A level to be built: what it reads comes to stand below it."""

    value: Value
    reading: Reading | None
    part: Part | None = None
    children: list[_Frame] = field(default_factory=list)


class Builder:
    """Builds trees from readings.

    Args:
        reader: reads the graph.
        counted: for every node, its users other than those that only read a size.
    """

    def __init__(self, reader: Reader, counted: dict[fx.Node, list[fx.Node]]) -> None:
        self.reader = reader
        self.counted = counted
        self._dominators: dict[Value, tuple[Value | None, int]] = {}
        self._parts: dict[tuple[Value, frozenset[fx.Node]], Part | None] = {}

    def build(self, value: Value, inlined: Collection[fx.Node] = (), ends: Collection[Value] = ()) -> Tree:
        """The tree of a value, down to values that are given, in `ends`, or shared and not in `inlined`."""
        return self._grow(value, frozenset(inlined), ends)

    def shared(self, node: fx.Node) -> bool:
        """Whether something else reads a node's value too."""
        return len(self.counted[node]) > 1

    def _grow(
        self, value: Value, inlined: frozenset[fx.Node], ends: Collection[Value], whole: bool = True
    ) -> Tree:
        """The tree of a value.

        Args:
            value: the value.
            inlined: shared values that do not end the tree.
            ends: values that end it.
            whole: the value itself may be the exit of a part.
        """
        frames = [self._frame(value, inlined, whole)]
        for frame in frames:  # grows while it is walked
            for operand, inside in self._below(frame, inlined):
                taken = inside or not self.shared(operand.node) or operand.node in inlined
                given = operand in ends or not taken
                child = _Frame(operand, None) if given else self._frame(operand, inlined, True)
                frame.children.append(child)
                frames.append(child)
        built: dict[_Frame, Tree] = {}
        for frame in reversed(frames):  # children first
            built[frame] = _level(frame, [built.pop(child) for child in frame.children])
            built[frame].fixed = built[frame].is_leaf and frame.value.node in self.reader.fixed
        tree = built[frames[0]]
        for level in list(tree.walk()):
            level.adopt()
        return without_idle_views(tree)

    def _frame(self, value: Value, inlined: frozenset[fx.Node], whole: bool) -> _Frame:
        reading = self.reader.read(value)
        if reading is None or isinstance(reading, Stops):
            return _Frame(value, None)
        branches = isinstance(reading, Adds | Joins)
        return _Frame(value, reading, self._part(value, inlined) if branches and whole else None)

    def _below(self, frame: _Frame, inlined: frozenset[fx.Node]) -> list[tuple[Value, bool]]:
        """The values that a level reads, each with whether nothing outside of the level reads it."""
        if frame.part is not None:
            return [(frame.part.source, frame.part.closed)]
        return [(operand, False) for operand in operands(frame.reading)]

    def _part(self, value: Value, inlined: frozenset[fx.Node]) -> Part | None:
        """The part of the graph that ends at a value, if it has one entry and one exit and no tree can hold it."""
        key = (value, inlined)
        if key not in self._parts:
            self._parts[key] = None  # while the trees in it are built
            self._parts[key] = self._find_part(value, inlined)
        return self._parts[key]

    def _find_part(self, value: Value, inlined: frozenset[fx.Node]) -> Part | None:
        entry = self._dominator(value)
        if entry is None or entry.bare or entry.axis == LABELLED:
            return None
        inner = self._between(entry, value)
        nodes = {each.node for each in inner}
        shared = [each for each in inner if each != value and self.shared(each.node)]
        if any(user not in nodes for each in inner if each != value for user in self.counted[each.node]):
            return None
        closed = all(user in nodes for user in self.counted[entry.node])
        reading = self.reader.read(entry)
        goes_on = reading is not None and not isinstance(reading, Stops)
        if not shared and not (goes_on and (closed or entry.node in inlined)):
            return None
        trees = {value: self._grow(value, frozenset(), (entry,), whole=False)}
        for each in shared:
            trees[each] = self._grow(each, frozenset(), (entry,))
        # What the trees in it no longer read belongs to none of them.
        read = {leaf.value for tree in trees.values() for leaf in tree.leaves()}
        kept = [tree for each, tree in trees.items() if each == value or each in read]
        if not all(_fits(tree, entry, trees) for tree in kept) or not any(tree.maps() for tree in kept):
            return None
        return Part(entry, tuple(sorted(kept, key=lambda tree: tree.value.node)), closed)

    def _between(self, entry: Value, value: Value) -> list[Value]:
        """The values on the ways from `entry` to `value`, without the entry."""
        found, stack = {value: None}, [value]
        while stack:
            for operand in operands(self.reader.read(stack.pop())):
                if operand != entry and operand not in found:
                    found[operand] = None
                    stack.append(operand)
        return list(found)

    def _dominator(self, value: Value) -> Value | None:
        """The nearest value that everything which a value comes from goes through; None if there is none."""
        stack = [value]
        while stack:
            current = stack[-1]
            if current in self._dominators:
                stack.pop()
                continue
            below = operands(self.reader.read(current))
            missing = [operand for operand in below if operand not in self._dominators]
            if missing:
                stack += missing
                continue
            entry: Value | None = below[0] if below else None
            for operand in below[1:]:
                entry = self._common(entry, operand)
            depth = 0 if entry is None else self._dominators[entry][1] + 1
            self._dominators[current] = entry, depth
            stack.pop()
        return self._dominators[value][0]

    def _common(self, left: Value | None, right: Value | None) -> Value | None:
        """The nearest value that dominates both, one of them perhaps."""
        while left != right:
            if left is None or right is None:
                return None
            if self._dominators[left][1] >= self._dominators[right][1]:
                left = self._dominators[left][0]
            else:
                right = self._dominators[right][0]
        return left


def _fits(tree: Tree, entry: Value, trees: Collection[Value]) -> bool:
    """Whether a tree is a map of features of the entry and of other values of its part."""
    for level in tree.walk():
        if level.move is not None or any(isinstance(element, Convolve) for element in level.elements):
            return False
        if level.is_leaf and level.value != entry and level.value not in trees:
            return False
    return True


def _level(frame: _Frame, children: list[Tree]) -> Tree:
    value, reading = frame.value, frame.reading
    if frame.part is not None:
        return Tree(value, value.width, (frame.part,), children=children)
    if isinstance(reading, Maps):
        call = (value.node.target, value.node.args, value.node.kwargs, reading.operand)
        return Tree(value, value.width, reading.elements, children=children, call=call)
    if isinstance(reading, Moves):
        return Tree(value, value.width, move=reading, children=children)
    if isinstance(reading, Joins):
        return Tree(value, value.width, children=children, joins=True)
    if isinstance(reading, Adds):
        return _flat_sum(value, children, reading.factors)
    return Tree(value, value.width)


def _flat_sum(value: Value, children: list[Tree], factors: tuple[float, ...]) -> Tree:
    """A sum whose terms are no sums themselves."""
    terms: list[Tree] = []
    weights: list[float] = []
    within: list[fx.Node] = []
    for child, factor in zip(children, factors, strict=True):
        # A sum of fewer rows, such as one of tables, is made before it is added to all.
        flat = child.is_sum and same_sizes(child.value.tensor.shape, value.tensor.shape)
        nested = child.factors if flat else (1.0,)
        if flat:
            within += [
                child.value.node,
                *child.inner,
                *(node for term in child.children for node in term.inner),
            ]
        for term, inner in zip(child.children if flat else [child], nested, strict=True):
            terms.append(term)
            weights.append(factor * inner)
    total = _grouped(value, terms, weights)
    total.inner = list(dict.fromkeys(within))
    return total


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
