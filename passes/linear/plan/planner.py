"""How to compute a region in least predicted time: the matrix-chain problem on a tree.

Every map, sum and join of a region may either be computed where it stands, or be left *pending*: composed with the
maps above it and applied further down, as one matrix for each way down. With `w(u)` the width of a level and `p` a
level above `u`, the least time to have what `u` contributes to `p` is

    best(u, p) = min( best(u, u) + one map u -> p,                  the level is computed, then mapped
                      best(child, p)                                 a map: left pending
                      best(child, p) + move at width w(p)            a move commutes with what is pending
                      sum of best(child, p) + additions at w(p)      a sum, or a join, is taken apart
                      one map source -> p )                          all of u comes from one source

A map may stand for a way only where all that it makes depends on all that it reads, as `dependence` says.
and `best(root, root)` is the plan. One map `u -> p` is a dense matrix or, through a level in between, two factors.
On a chain this is the matrix-chain problem, solved exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..algebra.dependence import part_of_source, part_read, stays_as_it_is
from ..algebra.elements import Convolve, Element, Pick, Shift, mixes
from ..algebra.paths import cuts, elements_between, single_source
from ..algebra.tree import Tree
from .plan import Choice, better, entries, own_seconds
from .price import Costs


class Planner:
    """Finds the plan of one tree.

    Args:
        tree: the region.
        costs: what things cost.
    """

    def __init__(self, tree: Tree, costs: Costs) -> None:
        self.tree = tree
        self.costs = costs
        self._best: dict[tuple[Tree, Tree], Choice | None] = {}

    def plan(self) -> Choice:
        """The plan of the whole region."""
        return self.computed(self.tree)

    def computed(self, level: Tree) -> Choice:
        """The best way to compute a level itself."""
        found = self.best(level, level)
        assert found is not None
        return found

    def best(self, level: Tree, top: Tree) -> Choice | None:
        """The best way to have what `level` contributes to `top`; None where no map may stand for the way there."""
        if (level, top) not in self._best:
            found: Choice | None = None
            for candidate in self._candidates(level, top):
                if candidate is not None and (found is None or better(candidate, found)):
                    found = candidate
            self._best[level, top] = found
        return self._best[level, top]

    def _candidates(self, level: Tree, top: Tree) -> list[Choice | None]:
        found: list[Choice | None] = []
        path = elements_between(level, top)
        if level.is_leaf:
            return [self._mapped(Choice("given", level, level), level, top, path)]
        if level is not top:
            found.append(self._mapped(self.computed(level), level, top, path))
        if level.is_map and self._may_pend(level, path):
            found.append(self.best(level.children[0], top))
        elif level.move is not None and _may_move(level, top, path):
            found.append(self._around("move", level, top, (self.best(level.children[0], top),)))
        elif level.is_sum or (level.joins and any(map(mixes, path))):
            terms = tuple(self.best(child, top) for child in level.children)
            found.append(self._around("sum", level, top, terms))
        elif level.joins and level is top:
            parts = tuple(self.best(child, child) for child in level.children)
            found.append(self._around("join", level, top, parts))
        found_source = single_source(level)
        if found_source is not None and not any(isinstance(element, Convolve) for element in path):
            found.append(self._from_source(level, top, found_source[0]))
        return found

    def _may_pend(self, level: Tree, path: Sequence[Element]) -> bool:
        """Whether a map may be composed with what is pending above it."""
        above = [element for element in path if isinstance(element, Convolve)]
        if not above:
            return True
        if any(isinstance(element, Convolve) for element in level.elements):
            return False
        # A constant below a border of zeros is no constant behind it.
        return not (above[0].pads and any(isinstance(element, Shift) for element in level.elements))

    def _around(self, kind: str, level: Tree, top: Tree, parts: tuple[Choice | None, ...]) -> Choice | None:
        terms = tuple(part for part in parts if part is not None)
        if len(terms) < len(parts):
            return None
        return self._priced(
            Choice(kind, level, top, terms, parameters=sum(term.parameters for term in terms))
        )

    def _from_source(self, level: Tree, top: Tree, source: Tree) -> Choice | None:
        reads = part_of_source(level, top, source)
        if reads is None:
            return None
        given = Choice("given", source, source)
        parameters = len(reads) * top.width
        return self._priced(Choice("source", level, top, (given,), parameters=parameters, reads=reads))

    def _mapped(self, base: Choice, level: Tree, top: Tree, path: Sequence[Element]) -> Choice | None:
        """`base` computes the level; one map, or a pair of factors, takes it to `top`."""
        if level is top:
            return base
        if stays_as_it_is(level, top) or all(isinstance(element, Pick) for element in path):
            return self._priced(Choice("map", level, top, (base,), parameters=base.parameters))
        reads = part_read(level, top)
        if reads is None:
            return None
        size = entries(len(reads), top.width, path)
        chosen = self._priced(
            Choice("map", level, top, (base,), parameters=base.parameters + size, reads=reads)
        )
        if size and not any(isinstance(element, Convolve) for element in path):
            for cut in cuts(level, top):
                # What lies between the factors must be read whole, as only what goes in can be cut.
                inner = part_read(level, cut)
                if inner is None or part_read(cut, top) != range(cut.width):
                    continue
                factors = base.parameters + cut.width * (len(inner) + top.width)
                candidate = self._priced(
                    Choice("map", level, top, (base,), cut, parameters=factors, reads=inner)
                )
                if better(candidate, chosen):
                    chosen = candidate
        return chosen

    def _priced(self, choice: Choice) -> Choice:
        inner = sum(term.seconds for term in choice.terms)
        return replace(choice, seconds=inner + own_seconds(choice, self.costs))


def _may_move(level: Tree, top: Tree, path: Sequence[Element]) -> bool:
    """Whether what is pending above a move may be applied below it."""
    assert level.move is not None
    fits = not level.move.rigid or top.width == level.move.operand.width
    return fits and not any(isinstance(element, Convolve) for element in path)
