"""Decides what becomes of a region: which shared values it computes anew, and the plan for every size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import fx

from ...graph.nodes import val
from ..algebra.elements import Convolve, Scale, Shift
from ..algebra.simplify import with_moves_first
from ..algebra.tree import Tree
from ..algebra.values import Value
from ..read.totals import with_products
from ..read.trees import Builder
from .flops import plan_flops, tree_flops
from .memory import Larger, Memory
from .plan import TIE, Choice, better, seconds
from .planner import Planner, Routes
from .price import FUSED_GAIN, GAIN, SIZES_TRIED, Costs

_MOST_SHARED = 6


@dataclass(frozen=True)
class Decision:
    """The plan for a region.

    Args:
        tree: the region as the graph has it, down to what the plan reads.
        planned: the tree that the plan is about: the same, perhaps with moves taken below maps.
        plan: the plan.
        costs: what it was planned with.
        seconds_before, seconds_after: predicted at the example sizes.
        flops: operations of the maps of the region as the graph has it, before anything is rewritten.
        worse_at: a size at which the best plan would lose, where that forbids it.
        staying: nodes of the region that are computed anyway, since something else reads them.
        larger: a table that no map was folded into, with the bytes of weights before and after, had it been.
    """

    tree: Tree
    planned: Tree
    plan: Choice
    costs: Costs
    seconds_before: float
    seconds_after: float
    flops: int
    worse_at: int | None = None
    staying: frozenset[fx.Node] = frozenset()
    larger: Larger | None = None

    @property
    def gains(self) -> bool:
        """Whether the plan is worth carrying out."""
        return self.gains_despite(0.0)

    def gains_despite(self, more: float) -> bool:
        """Whether the plan is worth carrying out though it takes some seconds more."""
        if self.worse_at is not None:
            return False
        margin = 0.0 if self._does_less() else FUSED_GAIN if self.costs.fuses else GAIN
        return self.seconds_after + self.looks + more < self.seconds_before * (1 - margin)

    @cached_property
    def looks(self) -> float:
        """Seconds that every call spends on seeing that the weights are those that were folded."""
        return self.costs.looks(self.tree.weights())

    @property
    def is_worth_telling(self) -> bool:
        """Whether a user would look for it: two maps, or one behind a look-up that it was not folded into."""
        above = self.larger[0].parent if self.larger is not None else None
        looked_up = above is not None and above.move is not None and above.move.looks_up
        return self.gains or looked_up or len(self.tree.maps()) > 1

    @property
    def saved(self) -> float:
        """Predicted seconds that the plan spares."""
        return self.seconds_before - self.seconds_after

    def _does_less(self) -> bool:
        """Whether the plan is right whatever the cost model is wrong by: fewer maps, less work, fewer weights."""
        maps = {level.value.node for level in self.tree.maps()} - self.staying
        fewer = len([each for each in self.plan.maps() if each.has_matrix]) < len(maps)
        weights = {weight for weight in self.tree.weights() if val(weight).dim() > 1}
        lighter = self.plan.parameters <= sum(val(weight).numel() for weight in weights)
        return fewer and lighter and not self.staying and plan_flops(self.plan) <= self.flops


def decide(tree: Tree, builder: Builder, costs: Costs) -> Decision:
    """Plan a region, once as it is and once with each shared value that it reads computed anew."""
    chosen = _decide(tree, builder, costs)
    inlined: set[fx.Node] = set()
    tried: set[fx.Node] = set()
    while len(tried) < _MOST_SHARED:
        candidate = next((node for node in _shared(chosen.tree, builder) if node not in tried), None)
        if candidate is None:
            break
        tried.add(candidate)
        deeper = builder.build(tree.value, inlined | {candidate})
        other = _decide(deeper, builder, costs)
        if not other.tree.maps():
            continue
        saved = _saving(candidate, chosen, other, builder, costs)
        if other.worse_at is None and other.seconds_after < (chosen.seconds_after + saved) * (1 - GAIN):
            inlined.add(candidate)
            chosen = replace(other, seconds_before=max(other.seconds_before, chosen.seconds_before + saved))
    return chosen


def decide_together(decisions: list[Decision], builder: Builder, costs: Callable[[Value], Costs]) -> None:
    """Let all readers of a shared value compute it anew, in place, where they gain by it together.

    The scale of a norm that feeds three maps costs nothing once each of the maps has taken it in.
    """
    readers: dict[fx.Node, list[int]] = {}
    for place, decision in enumerate(decisions):
        for node in _shared(decision.tree, builder):
            readers.setdefault(node, []).append(place)
    taken: set[int] = set()
    for node, places in readers.items():
        inside = {inner for place in places for inner in decisions[place].tree.nodes()}
        if taken.intersection(places) or not inside.issuperset(builder.counted[node]):
            continue
        tree = decisions[places[0]].tree
        value = next(leaf.value for leaf in tree.leaves() if leaf.value.node is node)
        chosen = _anew(value, [decisions[place] for place in places], builder, costs(value))
        if chosen is not None:
            taken.update(places)
            for place, other in zip(places, chosen, strict=True):
                decisions[place] = other


def _anew(value: Value, readers: Sequence[Decision], builder: Builder, costs: Costs) -> list[Decision] | None:
    """The plans of all readers of a shared value that compute it anew, all of it or its scales and shifts alone.

    None if they gain nothing by it.
    """
    best: list[Decision] | None = None
    least = 1.0 - GAIN
    below = _below_scales(builder.build(value))
    for ends in ((), (below,)) if below is not None else ((),):
        own = builder.build(value, ends=ends)
        saved = min(Planner(own, costs).plan().seconds, costs.as_it_stands(own))
        others = [
            _decide(builder.build(each.tree.value, {value.node}, ends), builder, costs) for each in readers
        ]
        before = saved + sum(each.seconds_after for each in readers)
        after = sum(each.seconds_after for each in others)
        if after < before * least and all(each.worse_at is None for each in others):
            least = after / before
            shares = [each.seconds_before + saved / len(readers) for each in readers]
            best = [replace(other, seconds_before=share) for other, share in zip(others, shares, strict=True)]
    return best


def _below_scales(tree: Tree) -> Value | None:
    """What the scales and shifts at the top of a region are done to; None if that is all of it, or nothing."""
    level = tree
    while level.is_map and all(isinstance(element, Scale | Shift) for element in level.elements):
        level = level.children[0]
    return None if level is tree or level.is_leaf else level.value


def _saving(node: fx.Node, chosen: Decision, other: Decision, builder: Builder, costs: Costs) -> float:
    """The time that computing a shared value takes, if it need not be computed once it is inlined."""
    if node in other.staying:
        return 0.0
    value = next(leaf.value for leaf in chosen.tree.leaves() if leaf.value.node is node)
    tree = builder.build(value)
    return min(Planner(tree, costs).plan().seconds, costs.as_it_stands(tree))


def _shared(tree: Tree, builder: Builder) -> list[fx.Node]:
    """The leaves that are shared values and come from a map themselves."""
    found = []
    for leaf in tree.leaves():
        if builder.shared(leaf.value.node):
            inner = builder.build(leaf.value)
            if not inner.is_leaf:
                found.append(leaf.value.node)
    return list(dict.fromkeys(found))


def _decide(tree: Tree, builder: Builder, costs: Costs) -> Decision:
    staying = _staying(tree, builder)
    before, flops = _before(tree, staying, costs), tree_flops(tree)
    candidates: list[tuple[Tree, Choice]] = []
    memory = Memory(tree, builder)
    larger: Larger | None = None
    varies = any(leaf.value.varies for leaf in tree.leaves()) or tree.value.varies
    sizes = (None, *SIZES_TRIED) if varies else (None,)
    for variant in _variants(tree):
        if variant is not None:
            routes = Routes(variant)
            for size in sizes:
                plan, too_large = memory.plan(variant, replace(costs, symbols=size), routes)
                larger = larger or too_large
                candidates.append((variant, replace(plan, seconds=seconds(plan, costs))))
    chosen: tuple[Tree, Choice] | None = None
    lost: int | None = None
    for variant, plan in candidates:
        worse = _loses(tree, plan, staying, costs) if varies else None
        if worse is not None:
            lost = worse if lost is None else lost
        elif chosen is None or better(plan, chosen[1]):
            chosen = (variant, plan)
    if chosen is None:
        variant, plan = candidates[0]
        return Decision(tree, variant, plan, costs, before, plan.seconds, flops, lost, staying, larger)
    return Decision(tree, *chosen, costs, before, chosen[1].seconds, flops, None, staying, larger)


def _variants(tree: Tree) -> Iterator[Tree | None]:
    """The orders in which a region's maps and moves may be taken."""
    for variant in (tree, with_products(tree)):
        if variant is not None:
            yield variant
            for further in (False, True):
                yield with_moves_first(variant, False, further)
                if _may_narrow(variant):
                    yield with_moves_first(variant, True, further)


def _may_narrow(tree: Tree) -> bool:
    """Whether a move may cost less at another width, or leave two maps side by side that are one convolution."""
    return bool(tree.beside()) or any(
        isinstance(element, Convolve) for level in tree.walk() for element in level.elements
    )


def _loses(tree: Tree, plan: Choice, staying: frozenset[fx.Node], costs: Costs) -> int | None:
    """A size at which a plan takes longer than the region as it stands; None if it never does."""
    for size in SIZES_TRIED:
        at = replace(costs, symbols=size)
        if seconds(plan, at) > _before(tree, staying, at) * (1 + TIE):
            return size
    return None


def _before(tree: Tree, staying: frozenset[fx.Node], costs: Costs) -> float:
    """Predicted time of those nodes of a region that a rewrite may leave out."""
    total, seen = 0.0, set(staying)
    for level in tree.walk_parts():
        if level.part is None and not level.is_leaf and level.value.node not in seen:
            seen.add(level.value.node)
            total += costs.level(level)
        for node in level.dropped:
            if node not in seen:
                seen.add(node)
                total += costs.view()
    return total


def _staying(tree: Tree, builder: Builder) -> frozenset[fx.Node]:
    """The nodes of a region that something outside of it reads, and all that they need."""
    inside, beside = set(tree.nodes()), set(tree.beside())
    staying: set[fx.Node] = set()
    for node in sorted(inside, reverse=True):
        outside = node in beside
        outside = outside or any(user not in inside or user in staying for user in builder.counted[node])
        if node is not tree.value.node and outside:
            staying.add(node)
    return frozenset(staying)
