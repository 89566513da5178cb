"""How a region is computed, as a plan puts it together, and what that is predicted to take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..algebra.elements import Convolve, Element, Pick, Scale, Shift
from ..algebra.paths import elements_between, path_between, single_source
from ..algebra.tree import Tree
from .price import Costs

TIE = 1e-9


@dataclass(frozen=True, eq=False)
class Choice:
    """How to compute what a level contributes to the level `top`.

    Args:
        kind: "given" (a leaf), "map" (`level` is computed as `terms[0]` says, then mapped to `top`), "source" (as
            "map", from the one source of all of `level`), "move", "sum" or "join" (of `terms`).
        level: the level that the choice is about.
        top: the level whose features result.
        cut: for "map": the level in between that makes it a pair of factors.
        terms: how the parts are computed.
        seconds: predicted.
        parameters: entries of the matrices, those of the terms too.
        reads: for "map" and "source": the features that the matrix reads, of the level or of the source; None for a map
            that is emitted as the graph has it.
    """

    kind: str
    level: Tree
    top: Tree
    terms: tuple[Choice, ...] = ()
    cut: Tree | None = None
    seconds: float = 0.0
    parameters: int = 0
    reads: range | None = None

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
        return [*(inner for term in self.terms for inner in term.flat()), self]

    def maps(self) -> list[Choice]:
        """The maps that are applied, from the bottom."""
        return [each for each in self.flat() if each.kind in ("map", "source")]

    @property
    def has_matrix(self) -> bool:
        """Whether it applies a matrix itself; a map without one scales, shifts or does nothing."""
        return self.parameters > sum(term.parameters for term in self.terms)


def seconds(choice: Choice, costs: Costs) -> float:
    """Predicted time of a plan under other costs, such as other sizes."""
    return own_seconds(choice, costs) + sum(seconds(term, costs) for term in choice.terms)


def own_seconds(choice: Choice, costs: Costs) -> float:
    """Predicted time of a choice without its terms."""
    level, top = choice.level, choice.top
    path = elements_between(level, top)
    rows = costs.rows(level)
    if choice.kind == "given":
        return 0.0
    if choice.kind == "move":
        return costs.move(level, top.width)
    if choice.kind == "sum":
        made = _rows_made(level, top, costs)
        return (len(choice.terms) - 1) * costs.elementwise(made, top.width, 2)
    if choice.kind == "join":
        return costs.elementwise(rows, level.width)
    if choice.kind == "source":
        found = single_source(level)
        assert found is not None
        source, moves = found
        applied = costs.linear(costs.rows(source), choice.inputs, top.width) + _cut_seconds(choice, costs)
        return applied + sum(costs.move(move, top.width) for move in moves)
    return _map_seconds(choice, path, costs) + _cut_seconds(choice, costs)


def _cut_seconds(choice: Choice, costs: Costs) -> float:
    return costs.view() if choice.is_cut else 0.0


def _map_seconds(choice: Choice, path: Sequence[Element], costs: Costs) -> float:
    level, top = choice.level, choice.top
    rows, inputs, outputs = costs.rows(level), choice.inputs, top.width
    convolve = next((element for element in path if isinstance(element, Convolve)), None)
    if convolve is not None:
        made = _rows_made(level, top, costs)
        return costs.convolution(convolve, made, inputs, outputs, _groups(convolve, path))
    if choice.cut is not None and level.value.axis != level.value.tensor.dim() - 1:
        # The operator for pairs works on the last axis; elsewhere a pair is two calls.
        return costs.linear(rows, inputs, choice.cut.width) + costs.linear(rows, choice.cut.width, outputs)
    if choice.cut is not None:
        return costs.machine.pair_seconds(rows, inputs, choice.cut.width, outputs, costs.itemsize)
    if not path:
        return 0.0
    if all(isinstance(element, Shift | Scale) for element in path):
        return costs.elementwise(rows, outputs)
    if all(isinstance(element, Pick) for element in path):
        return costs.view()
    if choice.reads is None:
        return costs.elementwise(rows, outputs)
    return costs.linear(rows, inputs, outputs)


def _rows_made(level: Tree, top: Tree, costs: Costs) -> int:
    """Feature vectors of what a way makes of a level, before any move above it."""
    for parent, _ in path_between(level, top):
        if any(isinstance(element, Convolve) for element in parent.elements):
            return costs.rows(parent)
    return costs.rows(level)


def entries(inputs: int, outputs: int, path: Sequence[Element]) -> int:
    """Entries of the one matrix, or kernel, of a way."""
    convolve = next((element for element in path if isinstance(element, Convolve)), None)
    if convolve is not None:
        return inputs // _groups(convolve, path) * outputs * convolve.volume
    return 0 if all(isinstance(each, Shift | Scale | Pick) for each in path) else inputs * outputs


def _groups(convolve: Convolve, path: Sequence[Element]) -> int:
    """The groups that a convolution keeps: with nothing but shifts and scales around it, its own."""
    keeps = all(each is convolve or isinstance(each, Shift | Scale) for each in path)
    return convolve.groups if keeps else 1


def better(new: Choice, old: Choice) -> bool:
    """Whether a choice takes less time or, on a tie, fewer parameters."""
    if abs(new.seconds - old.seconds) > TIE * max(old.seconds, new.seconds):
        return new.seconds < old.seconds
    return new.parameters < old.parameters
