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

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from ..algebra.dependence import Reads, of_source, part_read, stays_as_it_is
from ..algebra.elements import Convolve, shifts
from ..algebra.paths import Way, single_source, way_between
from ..algebra.product import product_of_source
from ..algebra.tree import Tree
from ..algebra.values import LABELLED, Value
from .plan import Choice, better, cheaper, entries, map_seconds, own_seconds, source_seconds
from .price import Costs


@dataclass(frozen=True, slots=True)
class Route:
    """What holds of the way from a level up to `top`, whatever it costs.

    Args:
        top: the level.
        way: what happens to the features.
        reads: the features that one map for the way reads; None where no one map may stand for it.
        selects: not all features come through.
        of_source: as `reads`, of the one source that all of the level comes from.
        from_source: where axes have labels, the way from that source.
    """

    top: Tree
    way: Way
    reads: range | None
    selects: bool
    of_source: range | None
    from_source: Way | None = None


class Routes:
    """The ways between all levels of a tree, looked at once for all the costs that it is planned with.

    Args:
        tree: the region.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.levels = list(tree.walk())[::-1]  # children first
        self.sources = {level: single_source(level) for level in self.levels}
        self.up = {level: list(self._up(level)) for level in self.levels}
        self.parts = {
            level: [Routes(tree) for tree in level.part.trees]
            for level in self.levels
            if level.part is not None
        }

    def _up(self, level: Tree) -> Iterator[Route]:
        source = self.sources[level]
        reads, way, top = Reads(level.width), Way(), level
        of_all: Reads | None = None
        behind: Way | None = None  # from the source, where labels tell what depends on what
        if source is not None and level.value.axis == LABELLED:
            product = product_of_source(level)
            behind = None if product is None else Way(product=product)
        elif source is not None:
            of_all = Reads(source[0].width, of_source(level, source[0].width))
        while True:
            below = reads.part() if behind is not None else None
            if of_all is not None and way.convolve is None:
                below = of_all.part()
            yield Route(top, way, reads.part(), reads.found is not None, below, behind)
            if top is self.tree:
                return
            parent = top.parent
            assert parent is not None
            way = way.extended(parent, top)
            behind = behind and behind.extended(parent, top)
            reads.extend(parent, top)
            if of_all is not None:
                of_all.extend(parent, top)
            top = parent


class Planner:
    """Finds the plan of one tree.

    Args:
        tree: the region.
        costs: what things cost.
        routes: the ways between its levels, where they were looked at before.
        kept: values that depend on weights alone and that no map is folded into.
    """

    def __init__(
        self, tree: Tree, costs: Costs, routes: Routes | None = None, kept: Collection[Value] = ()
    ) -> None:
        self.tree = tree
        self.costs = costs
        self.kept = kept
        self.routes = routes or Routes(tree)
        self._best: dict[tuple[Tree, Tree], Choice | None] = {}

    def plan(self) -> Choice:
        """The plan of the whole region."""
        for level in self.routes.levels:
            for route in self.routes.up[level]:
                best: Choice | None = None
                for candidate in self._candidates(level, route):
                    if candidate is not None and (best is None or better(candidate, best)):
                        best = candidate
                self._best[level, route.top] = best
        return self._computed(self.tree)

    def _computed(self, level: Tree) -> Choice:
        """The best way to compute a level itself."""
        found = self._best[level, level]
        assert found is not None
        return found

    def _candidates(self, level: Tree, route: Route) -> Iterator[Choice | None]:
        """The ways to have what `level` contributes to the top of a route; None for one that may not be."""
        top, way = route.top, route.way
        if level.is_leaf:
            given = Choice("given", level, level)
            if not level.fixed:
                yield self._mapped(given, level, route)
            elif level is top or way.idle or way.picks:
                yield self._mapped(replace(given, parameters=level.value.rows() * level.width), level, route)
            elif way.convolve is None and (
                level.value not in self.kept or (top is level.parent and way.scales)
            ):
                yield self._mapped(given, level, route)
            return
        if level is not top:
            yield self._mapped(self._computed(level), level, route)
        if level.is_map:
            if _may_pend(level, way):
                yield self._best[level.children[0], top]
            if level is top:
                yield self._as_a_part(level)
        elif level.move is not None:
            if _may_move(level, top, way):
                yield self._around("move", level, route, (self._best[level.children[0], top],))
        elif level.is_sum or (level.joins and way.mixing):
            terms = tuple(self._best[child, top] for child in level.children)
            yield self._around("sum", level, route, terms)
        elif level.joins and level is top:
            yield self._around("join", level, route, tuple(map(self._computed, level.children)))
        if route.of_source is not None:
            yield self._from_source(level, route, route.of_source)

    def _as_a_part(self, level: Tree) -> Choice | None:
        """A part as the graph has it, with a plan for each tree in it."""
        if level.part is None:
            return None
        inner = (Planner(each.tree, self.costs, each).plan() for each in self.routes.parts[level])
        terms = (self._computed(level.children[0]), *inner)
        return self._around("part", level, self.routes.up[level][0], terms)

    def _around(
        self, kind: str, level: Tree, route: Route, parts: tuple[Choice | None, ...]
    ) -> Choice | None:
        terms = tuple(part for part in parts if part is not None)
        if len(terms) < len(parts):
            return None
        parameters = sum(term.parameters for term in terms)
        choice = Choice(kind, level, route.top, terms, route.way, parameters=parameters)
        inner = sum(term.seconds for term in terms)
        return replace(choice, seconds=inner + own_seconds(choice, self.costs))

    def _from_source(self, level: Tree, route: Route, reads: range) -> Choice:
        found = self.routes.sources[level]
        assert found is not None
        source, moves = found
        given = (Choice("given", source, source),)
        if route.from_source is not None:
            size = entries(len(reads), route.top.width, route.from_source)
            choice = Choice("source", level, route.top, given, route.from_source, None, 0.0, size, reads)
            return replace(choice, seconds=own_seconds(choice, self.costs))
        took = source_seconds(source, route.top, reads, moves, self.costs)
        parameters = len(reads) * route.top.width
        return Choice(
            "source", level, route.top, given, route.way, None, took, parameters, reads, tuple(moves)
        )

    def _mapped(self, base: Choice, level: Tree, route: Route) -> Choice | None:
        """`base` computes the level; one map, or a pair of factors, takes it to the top of the route."""
        top, way, reads = route.top, route.way, route.reads
        if level is top:
            return base
        if stays_as_it_is(level, top) or way.picks:
            took = base.seconds + map_seconds(level, top, way, None, None, self.costs)
            return Choice("map", level, top, (base,), way, None, took, base.parameters)
        if reads is None:
            return None
        size = entries(len(reads), top.width, way)
        if level.fixed:
            size = level.value.rows() * top.width
        chosen: tuple[Tree | None, range] = (None, reads)
        took = base.seconds + map_seconds(level, top, way, None, reads, self.costs)
        parameters = base.parameters + size
        if size and not level.fixed and way.convolve is None and not way.joins and way.product is None:
            for cut, inner in _cuts(level, route, reads):
                factors = base.parameters + cut.width * (len(inner) + top.width)
                took_factors = base.seconds + map_seconds(level, top, way, cut, inner, self.costs)
                if cheaper(took_factors, factors, took, parameters):
                    chosen, took, parameters = (cut, inner), took_factors, factors
        return Choice("map", level, top, (base,), way, chosen[0], took, parameters, chosen[1])


def _cuts(level: Tree, route: Route, reads: range) -> Iterator[tuple[Tree, range]]:
    """Where a map may be cut into two factors, and what the first of them reads."""
    if not route.selects:
        yield from ((cut, reads) for cut in route.way.cuts)
        return
    for cut in way_between(level, route.top, distinct=False).cuts:
        # What lies between the factors must be read whole, as only what goes in can be cut.
        inner = part_read(level, cut)
        if inner is not None and part_read(cut, route.top) == range(cut.width):
            yield cut, inner


def _may_pend(level: Tree, way: Way) -> bool:
    """Whether a map may be composed with what is pending above it."""
    if way.convolve is None:
        return True
    if any(isinstance(element, Convolve) for element in level.elements):
        return False
    # A constant below a border of zeros is no constant behind it, and one that varies by position meets its neighbours.
    return not ((way.convolve.pads or level.along) and any(map(shifts, level.elements)))


def _may_move(level: Tree, top: Tree, way: Way) -> bool:
    """Whether what is pending above a move may be applied below it."""
    assert level.move is not None
    fits = not level.move.rigid or top.width == level.move.operand.width
    return fits and way.convolve is None
