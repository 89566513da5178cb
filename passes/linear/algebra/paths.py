"""Ways through a region: from a level up to one above it, and down to the one source of a level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .elements import Convolve, Element, Pick, Scale, Shift
from .product import Product
from .readings import Carried
from .tree import Tree
from .values import LABELLED


def path_between(level: Tree, top: Tree) -> list[tuple[Tree, Tree]]:
    """The levels above `level` up to `top`, from the bottom, each with the child that the way comes from."""
    path = []
    while level is not top:
        parent = level.parent
        assert parent is not None
        path.append((parent, level))
        level = parent
    return path


def stands_above(level: Tree, other: Tree) -> bool:
    """Whether a way from `other` leads up to `level`, which is not `other` itself."""
    above = other.parent
    while above is not None and above is not level:
        above = above.parent
    return above is level


def elements_between(level: Tree, top: Tree) -> list[Element]:
    """What happens to the features of a level on the way to `top`, the factor of a sum included."""
    found: list[Element] = []
    for parent, child in path_between(level, top):
        found += parent.elements
        if parent.is_sum and parent.factors[child.place] != 1:
            found.append(Scale(parent.factors[child.place]))
    return found


@dataclass(frozen=True)
class Way:
    """What a plan asks of the way from a level up to one above it; `extended` goes one level further.

    Args:
        idle: nothing happens to the features.
        scales: single features are scaled and shifted, at most.
        picks: features are picked, at most.
        joins: they become features of a concatenation.
        convolve: the first convolution.
        made: the level of the first convolution.
        plain: features are shifted, scaled and picked, at most.
        keeps_groups: nothing but scales and shifts beside the convolution.
        mixing: how many levels compute features from others.
        cuts: levels at which a map for the way may be cut into two factors, each of which mixes features: of those
            of one width the lowest, as a plan cannot tell them apart.
        waiting: levels that become cuts as soon as features are mixed above them.
        distinct: of cuts of one width only the lowest is kept.
        product: where all axes have labels, the product that the way amounts to.
        along: what constants on the way vary with, each once.
    """

    idle: bool = True
    scales: bool = True
    picks: bool = True
    plain: bool = True
    joins: bool = False
    convolve: Convolve | None = None
    made: Tree | None = None
    keeps_groups: bool = True
    mixing: int = 0
    cuts: tuple[Tree, ...] = ()
    waiting: tuple[Tree, ...] = ()
    distinct: bool = True
    product: Product | None = None
    along: frozenset[Carried] = frozenset()

    def extended(self, parent: Tree, child: Tree) -> Way:
        """The way on to the level above."""
        elements: Sequence[Element] = parent.elements
        if parent.is_sum and parent.factors[child.place] != 1:
            elements = (*elements, Scale(parent.factors[child.place]))
        joins = self.joins or parent.joins
        if not elements:
            return self if joins == self.joins else replace(self, joins=joins)
        if child.value.axis == LABELLED:
            product = self.product or Product.of(child.value)
            for element in elements:
                product = product.then(element)
            return replace(self, product=product, idle=False, scales=False, picks=False, plain=False)
        convolve = next((each for each in elements if isinstance(each, Convolve)), None)
        first = self.convolve is None and convolve is not None
        mixes = any(not isinstance(each, Shift | Scale | Pick) for each in parent.elements)
        cuts, waiting = self.cuts, self.waiting
        if self.mixing and any(not isinstance(each, Shift | Scale) for each in parent.elements):
            waiting = (*waiting, child)
        if mixes and waiting:
            known = {each.width for each in cuts} if self.distinct else set()
            for each in waiting:
                if each.width not in known:
                    cuts = (*cuts, each)
                    known |= {each.width} if self.distinct else set()
            waiting = ()
        scales = all(isinstance(each, Shift | Scale) for each in elements)
        return Way(
            idle=False,
            scales=self.scales and scales,
            picks=self.picks and all(isinstance(each, Pick) for each in elements),
            plain=self.plain and all(isinstance(each, Shift | Scale | Pick) for each in elements),
            joins=joins,
            convolve=convolve if first else self.convolve,
            made=parent if first else self.made,
            keeps_groups=self.keeps_groups and (scales or (first and _alone(elements))),
            mixing=self.mixing + mixes,
            cuts=cuts,
            waiting=waiting,
            distinct=self.distinct,
            along=self.along | {parent.along} if parent.along else self.along,
        )


def _alone(elements: Sequence[Element]) -> bool:
    """Whether one convolution stands among scales and shifts."""
    others = [each for each in elements if not isinstance(each, Shift | Scale)]
    return len(others) == 1 and isinstance(others[0], Convolve)


def way_between(level: Tree, top: Tree, distinct: bool = True) -> Way:
    """The way from a level up to one above it; every cut is told apart where they are not `distinct` by width."""
    way = Way(distinct=distinct)
    for parent, child in path_between(level, top):
        way = way.extended(parent, child)
    return way


def single_source(level: Tree) -> tuple[Tree, list[Tree]] | None:
    """The leaf that all of a branching level comes from, and the views on every way from it, from the bottom.

    None if there are several leaves, if the views differ from way to way, or if there is a convolution.
    """
    inner = list(level.walk())
    if not any(each.is_sum or each.joins for each in inner):
        return None
    leaves = [each for each in inner if each.is_leaf]
    if len({leaf.value for leaf in leaves}) != 1:
        return None
    if any(isinstance(element, Convolve) for each in inner for element in each.elements):
        return None
    ways = [[leaf, *(parent for parent, _ in path_between(leaf, level))] for leaf in leaves]
    moves = [[each for each in way if each.move is not None] for way in ways]
    if not all(each.move is not None and each.move.view for way in moves for each in way):
        return None
    if any(list(map(_spelling, way)) != list(map(_spelling, moves[0])) for way in moves):
        return None
    return leaves[0], moves[0]


def _spelling(level: Tree) -> tuple[object, ...]:
    assert level.move is not None
    node = level.move.node
    return node.target, level.move.operand.axis, str(node.args[1:]), str(node.kwargs)
