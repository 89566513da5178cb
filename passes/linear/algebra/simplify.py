"""Trees without needless levels: views that undo each other, and moves that are cheaper taken first."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...graph.arguments import packet
from ...graph.shapes import same_sizes
from .elements import Convolve, shifts
from .layout import rearranges_nothing
from .tree import Tree

aten = torch.ops.aten
_ABSOLUTE = (aten.view, aten.reshape, aten._unsafe_view)


def without_idle_views(tree: Tree) -> Tree:
    """Leave out views that rearrange nothing in the end, and reshapes that a later one makes needless."""
    for top in list(tree.walk()):
        parent = top.parent
        if parent is not None and _passes(parent) and parent is not tree:
            continue  # a run begins below a root, a sum, a join or a real move
        run = _run(top)
        views = [level for level in run if level.move is not None]
        if views:
            for idle in _idle(views):
                _drop(idle)
    return tree


def _passes(level: Tree) -> bool:
    """Whether views may be taken across a level: a map of features at single places, or a view itself."""
    if level.move is not None:
        return level.move.view
    return level.is_map and not any(isinstance(element, Convolve) for element in level.elements)


def _run(top: Tree) -> list[Tree]:
    """The levels from `top` down that views may be taken across."""
    run, level = [], top
    while _passes(level):
        run.append(level)
        level = level.children[0]
    return run


def _idle(views: list[Tree]) -> list[Tree]:
    """The views of a run, listed from the top, that may be left out."""
    if not views:
        return []
    if all(level.move is not None and level.move.ordered for level in views):
        lowest = views[-1].move
        assert lowest is not None
        low, high = lowest.operand, views[0].value
        if low.axis == high.axis and same_sizes(low.carried, high.carried):
            return views
        for place, level in enumerate(views):
            if packet(level.value.node) in _ABSOLUTE:
                return views[place + 1 :]
        return []
    for length in range(len(views), 1, -1):
        for start in range(len(views) - length + 1):
            part = views[start : start + length]
            moves = [level.move for level in reversed(part) if level.move is not None]
            low, high = moves[0].operand, part[0].value
            if low.axis == high.axis and rearranges_nothing(low, moves):
                return [*_idle(views[:start]), *part, *_idle(views[start + length :])]
    return []


def _drop(level: Tree) -> None:
    child, parent = level.children[0], level.parent
    if parent is None:
        level.move = None  # the root keeps its node, and does nothing
        return
    parent.dropped += [level.value.node, *level.dropped]
    parent.children[level.place] = child
    child.parent, child.place = parent, level.place


def with_moves_first(tree: Tree, narrow: bool = False, further: bool = False) -> Tree | None:
    """The same region with every move that leaves fewer rows taken below the maps under it; None if none is.

    `T(W x + b) = W T(x) + b T(1)`: a map costs less behind a mean, a pooling or a selection than before it.

    Args:
        tree: the region.
        narrow: take moves below maps also where they have narrower features there: `A (X W) = (A X) W`.
        further: take them below maps that add a constant also where `T(1)` has to be computed, and along with a move
            above that leaves fewer rows; None if that makes no difference.
    """
    if not any(_sinks(level, narrow, further) for level in tree.walk()):
        return None
    copy, differs = copied(tree), not further
    # From the bottom: a move sinks through all maps below it before the next one above comes to them.
    for level in reversed(list(copy.walk())):
        while _sinks(level, narrow, further):
            differs = differs or not _sinks(level, narrow, False)
            _swap(level)
            level = level.children[0]
    return copy if differs else None


def copied(tree: Tree) -> Tree:
    """The same region, of levels that may be changed."""
    copies: dict[Tree, Tree] = {}
    for level in reversed(list(tree.walk())):
        children = [copies[child] for child in level.children]
        copies[level] = replace(level, children=children, parent=None).adopt()
    return copies[tree]


def _sinks(level: Tree, narrow: bool, further: bool) -> bool:
    move = level.move
    if move is None or move.view:
        return False
    child = level.children[0]
    if not child.is_map or any(isinstance(element, Convolve) for element in child.elements):
        return False
    if _changes_constants(level) and not (further and _knows_ones(level)):
        return False
    last = _last_of_run(level) if further else level
    fewer = last.value.rows() < child.value.rows()
    return fewer or (narrow and not move.rigid and child.children[0].width < child.width)


def _last_of_run(level: Tree) -> Tree:
    """The last of the moves that directly follow a move, none of them a view."""
    above = level.parent
    while above is not None and above.move is not None and not above.move.view:
        level, above = above, above.parent
    return level


def _changes_constants(level: Tree) -> bool:
    """Whether a move makes something else of the constants that the map under it adds."""
    assert level.move is not None
    child = level.children[0]
    return any(map(shifts, child.elements)) and bool(child.along or not level.move.preserves)


def _knows_ones(level: Tree) -> bool:
    """Whether `T(1)` can be computed for a move, and `b T(1)` added with no more rounding than there was.

    In half precision the terms would be rounded one by one, and a sum of ones may be too large for it.
    """
    assert level.move is not None
    child = level.children[0]
    return not level.move.rigid and level.value.tensor.itemsize > 2 and child.children[0].width > 0


def _swap(level: Tree) -> None:
    """A move above a map becomes a map above a move: the levels keep their places and swap what they do."""
    child = level.children[0]
    source = child.children[0]
    if _changes_constants(level):
        assert level.move is not None
        level.along = (*child.along, (level.move, level.value))
    child.along = ()
    level.elements, child.elements = child.elements, ()
    level.move, child.move = None, level.move
    child.value, child.width = level.value, source.width
    level.call = child.call = None
