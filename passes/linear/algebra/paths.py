"""Ways through a region: from a level up to one above it, and down to the one source of a level."""

from __future__ import annotations

from .elements import Convolve, Element, Pick, Scale, Shift
from .tree import Tree


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
