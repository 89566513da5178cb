"""An affine region as a tree: how a value comes from given ones through maps, moves, sums and joins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from .elements import Element, Part, mixes, weights_of
from .readings import Carried, Moves
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
        inner: for a sum, the sums that were taken apart into it.
        fixed: for a leaf, its value depends on weights alone, so that a map of it is computed once.
        along: for a map with constants, the carries that were taken below it and that its constants vary with.
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
    inner: list[fx.Node] = field(default_factory=list)
    along: Carried = ()
    fixed: bool = False
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
    def part(self) -> Part | None:
        """The part of the graph that this level stands for, if it is one."""
        return next((element for element in self.elements if isinstance(element, Part)), None)

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
        stack = [self]
        while stack:
            level = stack.pop()
            yield level
            stack += reversed(level.children)

    def walk_parts(self) -> Iterator[Tree]:
        """As `walk`, with the levels inside of parts; what a part is given stands there as a leaf."""
        for level in self.walk():
            yield level
            if level.part is not None:
                for tree in reversed(level.part.trees):
                    yield from tree.walk_parts()

    def leaves(self) -> list[Tree]:
        """The leaves, from left to right; one value may stand at several."""
        return [level for level in self.walk() if level.is_leaf]

    def given(self) -> list[fx.Node]:
        """The nodes whose values the region is given, each once."""
        nodes: dict[fx.Node, None] = {}
        for leaf in self.leaves():
            value = leaf.value
            nodes[value.node.all_input_nodes[0] if value.bare else value.node] = None
        return list(nodes | dict.fromkeys(self.beside()))

    def beside(self) -> list[fx.Node]:
        """What carries read besides values of the region, each once."""
        return list(dict.fromkeys(node for move in self._moves() for node in move.beside))

    def through(self) -> list[fx.Node]:
        """What carries would compute again of what stands beside them, each once."""
        return list(dict.fromkeys(node for move in self._moves() for node in move.through))

    def _moves(self) -> list[Moves]:
        return [level.move for level in self.walk() if level.move is not None]

    def maps(self) -> list[Tree]:
        """The levels that compute features from other features with a weight or a fixed matrix, bottom up."""
        return [
            level
            for level in reversed(list(self.walk_parts()))
            if any(map(mixes, level.elements)) and not level.part
        ]

    def nodes(self) -> list[fx.Node]:
        """The nodes of the graph that the levels above the leaves stand for, each once."""
        levels = [level for level in self.walk_parts() if not level.is_leaf]
        found = (node for level in levels for node in (level.value.node, *level.dropped, *level.inner))
        return list(dict.fromkeys(found))

    def weights(self) -> list[fx.Node]:
        """The weight nodes that the levels read."""
        found = []
        for level in reversed(list(self.walk())):
            found += [level.value.node] if level.fixed else []
            found += [node for element in level.elements for node in weights_of(element)]
        return found

    def tables(self) -> list[Tree]:
        """The leaves that depend on weights alone."""
        return [leaf for leaf in self.leaves() if leaf.fixed]
