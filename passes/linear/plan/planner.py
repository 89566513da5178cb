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
On a chain this is the matrix-chain problem, solved exactly. Levels are taken from the bottom, each with all that stand
above it, so that `n` levels take `n^2` steps and no recursion. A part of the graph with one entry and one exit is one
level: a map when it is seen from outside, or what the plans of the trees in it make of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..algebra.dependence import Reads, of_source, part_read, stays_as_it_is
from ..algebra.elements import Convolve, shifts
from ..algebra.paths import Way, single_source, way_between
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
        if not self._best:
            for level in reversed(list(self.tree.walk())):  # children first
                self._plan_level(level)
        return self._computed(self.tree)

    def _computed(self, level: Tree) -> Choice:
        """The best way to compute a level itself."""
        found = self._best[level, level]
        assert found is not None
        return found

    def _plan_level(self, level: Tree) -> None:
        """The best way to have what `level` contributes to itself and to every level above."""
        found_source = single_source(level)
        below = of_source(level, found_source[0].width) if found_source else None
        reads, way, top = Reads(level.width), Way(), level
        of_all = Reads(found_source[0].width, below) if found_source else None
        while True:
            best: Choice | None = None
            for candidate in self._candidates(level, top, way, reads):
                if candidate is not None and (best is None or better(candidate, best)):
                    best = candidate
            if found_source is not None and of_all is not None and way.convolve is None:
                candidate = self._from_source(level, top, way, found_source, of_all)
                if candidate is not None and (best is None or better(candidate, best)):
                    best = candidate
            self._best[level, top] = best
            if top is self.tree:
                return
            parent = top.parent
            assert parent is not None
            way = way.extended(parent, top)
            reads.extend(parent, top)
            if of_all is not None:
                of_all.extend(parent, top)
            top = parent

    def _candidates(self, level: Tree, top: Tree, way: Way, reads: Reads) -> Iterator[Choice | None]:
        """None where no map may stand for the way from `level` to `top`."""
        if level.is_leaf:
            yield self._mapped(Choice("given", level, level), level, top, way, reads)
            return
        if level is not top:
            yield self._mapped(self._computed(level), level, top, way, reads)
        if level.is_map:
            if _may_pend(level, way):
                yield self._best[level.children[0], top]
            if level is top:
                yield self._as_a_part(level)
        elif level.move is not None:
            if _may_move(level, top, way):
                yield self._around("move", level, top, way, (self._best[level.children[0], top],))
        elif level.is_sum or (level.joins and way.mixing):
            terms = tuple(self._best[child, top] for child in level.children)
            yield self._around("sum", level, top, way, terms)
        elif level.joins and level is top:
            parts = tuple(self._computed(child) for child in level.children)
            yield self._around("join", level, top, way, parts)

    def _as_a_part(self, level: Tree) -> Choice | None:
        """A part as the graph has it, with a plan for each tree in it."""
        if level.part is None:
            return None
        inner = (Planner(tree, self.costs).plan() for tree in level.part.trees)
        terms = (self._computed(level.children[0]), *inner)
        return self._around("part", level, level, Way(), terms)

    def _around(
        self, kind: str, level: Tree, top: Tree, way: Way, parts: tuple[Choice | None, ...]
    ) -> Choice | None:
        terms = tuple(part for part in parts if part is not None)
        if len(terms) < len(parts):
            return None
        parameters = sum(term.parameters for term in terms)
        return self._priced(Choice(kind, level, top, terms, way, parameters=parameters))

    def _from_source(
        self, level: Tree, top: Tree, way: Way, found: tuple[Tree, list[Tree]], of_all: Reads
    ) -> Choice | None:
        source, moves = found
        reads = of_all.part()
        if reads is None:
            return None
        given = Choice("given", source, source)
        parameters = len(reads) * top.width
        return self._priced(
            Choice("source", level, top, (given,), way, None, 0.0, parameters, reads, tuple(moves))
        )

    def _mapped(self, base: Choice, level: Tree, top: Tree, way: Way, reads: Reads) -> Choice | None:
        """`base` computes the level; one map, or a pair of factors, takes it to `top`."""
        if level is top:
            return base
        if stays_as_it_is(level, top) or way.picks:
            return self._priced(Choice("map", level, top, (base,), way, parameters=base.parameters))
        part = reads.part()
        if part is None:
            return None
        size = entries(len(part), top.width, way)
        chosen = self._priced(
            Choice("map", level, top, (base,), way, parameters=base.parameters + size, reads=part)
        )
        if not size or way.convolve is not None or way.joins:
            return chosen
        selects = reads.found is not None
        for cut in way_between(level, top, distinct=False).cuts if selects else way.cuts:
            inner: range | None = part
            if selects:
                # What lies between the factors must be read whole, as only what goes in can be cut.
                inner = part_read(level, cut)
                if inner is None or part_read(cut, top) != range(cut.width):
                    continue
            assert inner is not None
            factors = base.parameters + cut.width * (len(inner) + top.width)
            candidate = self._priced(
                Choice("map", level, top, (base,), way, cut, parameters=factors, reads=inner)
            )
            if better(candidate, chosen):
                chosen = candidate
        return chosen

    def _priced(self, choice: Choice) -> Choice:
        inner = sum(term.seconds for term in choice.terms)
        return replace(choice, seconds=inner + own_seconds(choice, self.costs))


def _may_pend(level: Tree, way: Way) -> bool:
    """Whether a map may be composed with what is pending above it."""
    if way.convolve is None:
        return True
    if any(isinstance(element, Convolve) for element in level.elements):
        return False
    # A constant below a border of zeros is no constant behind it.
    return not (way.convolve.pads and any(map(shifts, level.elements)))


def _may_move(level: Tree, top: Tree, way: Way) -> bool:
    """Whether what is pending above a move may be applied below it."""
    assert level.move is not None
    fits = not level.move.rigid or top.width == level.move.operand.width
    return fits and way.convolve is None
