"""How a region is computed, as a planner puts it together, and what that is predicted to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..algebra.elements import Convolve
from ..algebra.paths import Way
from ..algebra.tree import Tree
from .price import Costs

TIE = 1e-9
_HERE = Way()  # from a level to itself


@dataclass(frozen=True, eq=False)
class Choice:
    """How to compute what a level contributes to the level `top`.

    Args:
        kind: "given" (a leaf), "map" (`level` is computed as `terms[0]` says, then mapped to `top`), "source" (as
            "map", from the one source of all of `level`), "part" (a part as the graph has it: what it comes from, then
            the trees in it), "move", "sum" or "join" (of `terms`).
        level: the level that the choice is about.
        top: the level whose features result.
        way: from `level` to `top`; for "source" where axes have labels, from the source to `top`.
        cut: for "map": the level in between that makes it a pair of factors.
        terms: how the parts are computed.
        seconds: predicted.
        parameters: entries of the matrices, those of the terms too.
        reads: for "map" and "source": the features that the matrix reads, of the level or of the source; None for a map
            that is emitted as the graph has it.
        moves: for "source": the views behind the map.
    """

    kind: str
    level: Tree
    top: Tree
    terms: tuple[Choice, ...] = ()
    way: Way = _HERE
    cut: Tree | None = None
    seconds: float = 0.0
    parameters: int = 0
    reads: range | None = None
    moves: tuple[Tree, ...] = ()

    @property
    def inputs(self) -> int:
        """How many features a map reads."""
        return self.level.width if self.reads is None else len(self.reads)

    @property
    def is_cut(self) -> bool:
        """Whether a map reads a part of the features only, so that a slice comes before it."""
        return self.reads is not None and len(self.reads) < self.base_width

    @property
    def base_width(self) -> int:
        """The features of what a map is applied to."""
        return self.terms[0].top.width

    def flat(self) -> list[Choice]:
        """This choice and all within it, from the bottom."""
        found, stack = [], [self]
        while stack:
            choice = stack.pop()
            found.append(choice)
            stack += choice.terms
        return found[::-1]

    def maps(self) -> list[Choice]:
        """The maps that are applied, from the bottom."""
        return [each for each in self.flat() if each.kind in ("map", "source")]

    @property
    def has_matrix(self) -> bool:
        """Whether it applies a matrix itself; a map without one scales, shifts or does nothing."""
        return self.parameters > sum(term.parameters for term in self.terms)


def seconds(choice: Choice, costs: Costs) -> float:
    """Predicted time of a plan under other costs, such as other sizes."""
    along = {level.along for level in choice.top.walk() if level.along}
    return sum(own_seconds(each, costs) for each in choice.flat()) + costs.ones(along)


def own_seconds(choice: Choice, costs: Costs) -> float:
    """Predicted time of a choice without its terms."""
    level, top = choice.level, choice.top
    if choice.kind in ("given", "part"):
        return 0.0
    if choice.kind == "move":
        return costs.move(level, top.width) + _constants(choice.way, top, costs)
    if choice.kind == "sum":
        made = costs.rows(top if choice.way.product is not None else choice.way.made or level)
        return (len(choice.terms) - 1) * costs.elementwise(made, top.width, 2)
    if choice.kind == "join":
        return costs.elementwise(costs.rows(level), level.width)
    if choice.kind == "source" and choice.way.product is None:
        return source_seconds(choice.terms[0].level, top, choice.reads, choice.moves, costs)
    return map_seconds(level, top, choice.way, choice.cut, choice.reads, costs)


def source_seconds(
    source: Tree, top: Tree, reads: range | None, moves: Sequence[Tree], costs: Costs
) -> float:
    """Predicted time of one map of the one source of a branching level, and of the views behind it."""
    inputs = source.width if reads is None else len(reads)
    cut = costs.view() if inputs < source.width else 0.0
    applied = costs.linear(costs.rows(source), inputs, top.width)
    return applied + cut + sum(costs.move(move, top.width) for move in moves)


def map_seconds(
    level: Tree, top: Tree, way: Way, cut: Tree | None, reads: range | None, costs: Costs
) -> float:
    """Predicted time of one map from a level to `top`, or of two factors."""
    if way.product is not None:
        return costs.product(way.product)
    if level.fixed:  # once, and not at each call
        return 0.0
    if way.along:
        bare = map_seconds(level, top, replace(way, along=frozenset()), cut, reads, costs)
        return bare + _constants(way, top, costs)
    rows, outputs = costs.rows(level), top.width
    inputs = level.width if reads is None else len(reads)
    sliced = costs.view() if inputs < level.width else 0.0
    if way.convolve is not None and way.made is not None:
        made = costs.rows(way.made)
        return sliced + costs.convolution(way.convolve, made, inputs, outputs, groups_kept(way))
    if cut is not None:
        # The operator for pairs works on the last axis; elsewhere a pair is two calls.
        if level.value.axis != level.value.tensor.dim() - 1:
            return sliced + costs.linear(rows, inputs, cut.width) + costs.linear(rows, cut.width, outputs)
        return sliced + costs.pair(rows, inputs, cut.width, outputs)
    if way.idle:
        return sliced
    if way.scales:
        return sliced + costs.elementwise(rows, outputs)
    if way.picks:
        return sliced + costs.view()
    if reads is None:
        return sliced + costs.elementwise(rows, outputs)
    return sliced + costs.linear(rows, inputs, outputs)


def _constants(way: Way, top: Tree, costs: Costs) -> float:
    """Predicted time of adding the constants of a way that vary by position."""
    return len(way.along) * costs.elementwise(costs.rows(top), top.width)


def entries(inputs: int, outputs: int, way: Way) -> int:
    """Entries of the one matrix, or kernel, of a way."""
    if way.product is not None:
        return way.product.entries
    if way.convolve is not None:
        return inputs // groups_kept(way) * outputs * way.convolve.volume
    return 0 if way.plain else inputs * outputs


def groups_kept(way: Way) -> int:
    """The groups that a convolution keeps: with nothing but shifts and scales around it, its own."""
    assert isinstance(way.convolve, Convolve)
    return way.convolve.groups if way.keeps_groups else 1


def better(new: Choice, old: Choice) -> bool:
    """Whether a choice takes less time or, on a tie, fewer parameters."""
    return cheaper(new.seconds, new.parameters, old.seconds, old.parameters)


def cheaper(seconds: float, parameters: int, than: float, than_parameters: int) -> bool:
    """As `better`, of the figures alone."""
    if abs(seconds - than) > TIE * max(than, seconds):
        return seconds < than
    return parameters < than_parameters
