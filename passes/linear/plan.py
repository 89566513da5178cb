"""How to compute a region in least predicted time: the matrix-chain problem on a tree.

Every map, sum and join of a region may either be computed where it stands, or be left *pending*: composed with the
maps above it and applied further down, as one matrix for each way down. With `w(u)` the width of a level and `p` a
level above `u`, the least time to have what `u` contributes to `p` is

    best(u, p) = min( best(u, u) + one map u -> p,                  the level is computed, then mapped
                      best(child, p)                                 a map: left pending
                      best(child, p) + move at width w(p)            a move commutes with what is pending
                      sum of best(child, p) + additions at w(p)      a sum, or a join, is taken apart
                      one map source -> p )                          all of u comes from one source

and `best(root, root)` is the plan. One map `u -> p` is a dense matrix or, through a level in between, two factors.
On a chain this is the matrix-chain problem, solved exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .costs import Costs
from .elements import Convolve, Element, Pick, Scale, Shift, mixes
from .tree import Tree

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
        parameters: entries of the matrices.
    """

    kind: str
    level: Tree
    top: Tree
    terms: tuple[Choice, ...] = ()
    cut: Tree | None = None
    seconds: float = 0.0
    parameters: int = 0

    def flat(self) -> list[Choice]:
        """This choice and all within it, from the bottom."""
        return [*(inner for term in self.terms for inner in term.flat()), self]

    def maps(self) -> list[Choice]:
        """The maps that are applied, from the bottom."""
        return [each for each in self.flat() if each.kind in ("map", "source")]


class Planner:
    """Finds the plan of one tree.

    Args:
        tree: the region.
        costs: what things cost.
    """

    def __init__(self, tree: Tree, costs: Costs) -> None:
        self.tree = tree
        self.costs = costs
        self._best: dict[tuple[Tree, Tree], Choice] = {}

    def plan(self) -> Choice:
        """The plan of the whole region."""
        return self.best(self.tree, self.tree)

    def best(self, level: Tree, top: Tree) -> Choice:
        """The best way to have what `level` contributes to `top`; `level is top` computes the level itself."""
        if (level, top) not in self._best:
            found: Choice | None = None
            for candidate in self._candidates(level, top):
                if found is None or better(candidate, found):
                    found = candidate
            assert found is not None
            self._best[level, top] = found
        return self._best[level, top]

    def _candidates(self, level: Tree, top: Tree) -> list[Choice]:
        found: list[Choice] = []
        path = elements_between(level, top)
        if level.is_leaf:
            return [self._mapped(Choice("given", level, level), level, top, path)]
        if level is not top:
            found.append(self._mapped(self.best(level, level), level, top, path))
        if level.is_map and self._may_pend(level, path):
            found.append(self.best(level.children[0], top))
        elif level.move is not None and _may_move(level, top, path):
            inner = self.best(level.children[0], top)
            found.append(self._around("move", level, top, (inner,)))
        elif level.is_sum or (level.joins and any(map(mixes, path))):
            terms = tuple(self.best(child, top) for child in level.children)
            found.append(self._around("sum", level, top, terms))
        elif level.joins:
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

    def _around(self, kind: str, level: Tree, top: Tree, terms: tuple[Choice, ...]) -> Choice:
        return self._priced(
            Choice(kind, level, top, terms, parameters=sum(term.parameters for term in terms))
        )

    def _from_source(self, level: Tree, top: Tree, source: Tree) -> Choice:
        given = Choice("given", source, source)
        return self._priced(Choice("source", level, top, (given,), parameters=source.width * top.width))

    def _mapped(self, base: Choice, level: Tree, top: Tree, path: Sequence[Element]) -> Choice:
        """`base` computes the level; one map, or a pair of factors, takes it to `top`."""
        if level is top:
            return base
        size = _entries(level, top, path)
        chosen = self._priced(Choice("map", level, top, (base,), parameters=base.parameters + size))
        if size and not any(isinstance(element, Convolve) for element in path):
            for cut in cuts(level, top):
                factors = base.parameters + cut.width * (level.width + top.width)
                candidate = self._priced(Choice("map", level, top, (base,), cut, parameters=factors))
                if better(candidate, chosen):
                    chosen = candidate
        return chosen

    def _priced(self, choice: Choice) -> Choice:
        inner = sum(term.seconds for term in choice.terms)
        return replace(choice, seconds=inner + own_seconds(choice, self.costs))


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
        applied = costs.linear(costs.rows(source), source.width, top.width)
        return applied + sum(costs.move(move, top.width) for move in moves)
    return _map_seconds(choice, path, costs)


def _map_seconds(choice: Choice, path: Sequence[Element], costs: Costs) -> float:
    level, top = choice.level, choice.top
    rows, inputs, outputs = costs.rows(level), level.width, top.width
    convolve = next((element for element in path if isinstance(element, Convolve)), None)
    if convolve is not None:
        made = _rows_made(level, top, costs)
        return costs.convolution(convolve, made, inputs, outputs, _groups(convolve, path))
    if choice.cut is not None:
        return costs.machine.pair_seconds(rows, inputs, choice.cut.width, outputs, costs.itemsize)
    if not path:
        return 0.0
    if all(isinstance(element, Shift | Scale) for element in path):
        return costs.elementwise(rows, outputs)
    if all(isinstance(element, Pick) for element in path):
        return costs.view()
    return costs.linear(rows, inputs, outputs)


def _rows_made(level: Tree, top: Tree, costs: Costs) -> int:
    """Feature vectors of what a way makes of a level, before any move above it."""
    for parent, _ in path_between(level, top):
        if any(isinstance(element, Convolve) for element in parent.elements):
            return costs.rows(parent)
    return costs.rows(level)


def _entries(level: Tree, top: Tree, path: Sequence[Element]) -> int:
    """Entries of the one matrix, or kernel, of a way."""
    convolve = next((element for element in path if isinstance(element, Convolve)), None)
    if convolve is not None:
        return level.width // _groups(convolve, path) * top.width * convolve.volume
    return 0 if all(isinstance(each, Shift | Scale | Pick) for each in path) else level.width * top.width


def _groups(convolve: Convolve, path: Sequence[Element]) -> int:
    """The groups that a convolution keeps: with nothing but shifts and scales behind it, its own."""
    keeps = path[0] is convolve and all(isinstance(each, Shift | Scale) for each in path[1:])
    return convolve.groups if keeps else 1


def _may_move(level: Tree, top: Tree, path: Sequence[Element]) -> bool:
    """Whether what is pending above a move may be applied below it."""
    assert level.move is not None
    fits = not level.move.rigid or top.width == level.move.operand.width
    return fits and not any(isinstance(element, Convolve) for element in path)


def better(new: Choice, old: Choice) -> bool:
    """Whether a choice takes less time or, on a tie, fewer parameters."""
    if abs(new.seconds - old.seconds) > TIE * max(old.seconds, new.seconds):
        return new.seconds < old.seconds
    return new.parameters < old.parameters


def path_between(level: Tree, top: Tree) -> list[tuple[Tree, Tree]]:
    """The levels above `level` up to `top`, from the bottom, each with the child that the way comes from."""
    path = []
    while level is not top:
        parent = level.parent
        assert parent is not None
        path.append((parent, level))
        level = parent
    return path


def elements_between(level: Tree, top: Tree) -> list[Element]:
    """What happens to the features of a level on the way to `top`, the factor of a sum included."""
    found: list[Element] = []
    for parent, child in path_between(level, top):
        found += parent.elements
        if parent.is_sum and parent.factors[child.place] != 1:
            found.append(Scale(parent.factors[child.place]))
    return found


def cuts(level: Tree, top: Tree) -> list[Tree]:
    """The levels between two others at which a map may be cut into two factors, each of which mixes features."""
    path = [parent for parent, _ in path_between(level, top)]
    mixing = [
        place
        for place, each in enumerate(path)
        if any(not isinstance(e, Shift | Scale | Pick) for e in each.elements)
    ]
    if len(mixing) < 2 or any(each.joins for each in path):
        return []
    found = []
    for place in range(mixing[0], mixing[-1]):
        behind = path[place + 1]
        if any(not isinstance(e, Shift | Scale) for e in behind.elements):
            found.append(path[place])
    return found


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
