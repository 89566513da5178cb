"""Where views put the entries of a tensor, so that views that undo each other can be left out."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import expression
from .readings import Moves
from .values import Value

# One axis of the current tensor: the axes of the first tensor that it runs over, in order, with their sizes.
_Axis = tuple[tuple[int, Any], ...]

aten = torch.ops.aten


def rearranges_nothing(low: Value, moves: list[Moves]) -> bool:
    """Whether views, applied to `low` in order, end with every entry where it was.

    The feature axis counts as one entry, since every map of the features commutes with the views.
    """
    shape = [expression(size) for size in low.tensor.shape]
    shape[low.axis] = 1
    axes: list[_Axis] | None = [((place, size),) for place, size in enumerate(shape)]
    start = list(axes or [])
    for move in moves:
        if axes is None:
            return False
        axes = _after(axes, move)
    if axes is None:
        return False
    return _plain(axes) == _plain(start)


def _after(axes: list[_Axis], move: Moves) -> list[_Axis] | None:
    order = permutation(move.node, len(axes)) if not move.ordered else None
    if order is not None:
        return [axes[place] for place in order]
    result = _feature_as_one(move.node, move)
    return None if result is None else _regroup([atom for axis in axes for atom in axis], result)


def _feature_as_one(node: fx.Node, move: Moves) -> list[Any] | None:
    """The sizes of a view's result, with 1 for the feature axis."""
    after = [expression(size) for size in val(node).shape]
    before = move.operand
    for axis, size in enumerate(after):
        if size == before.width and _place(after, axis) == _place(
            [expression(size) for size in before.tensor.shape], before.axis
        ):
            after[axis] = 1
            return after
    return None


def _place(sizes: list[Any], axis: int) -> Any:
    total: Any = 1
    for size in sizes[:axis]:
        total = total * size
    return total


def _regroup(atoms: list[tuple[int, Any]], sizes: list[Any]) -> list[_Axis] | None:
    """Cut the atoms, in row-major order, into runs whose sizes multiply to `sizes`; None if that fails."""
    left = [atom for atom in atoms if atom[1] != 1]
    axes: list[_Axis] = []
    for size in sizes:
        run: list[tuple[int, Any]] = []
        total: Any = 1
        while total != size:
            if not left:
                return None
            run.append(left.pop(0))
            total = total * run[-1][1]
            if isinstance(total, int) and isinstance(size, int) and total > size:
                return None
        axes.append(tuple(run))
    return None if left else axes


def _plain(axes: list[_Axis]) -> list[_Axis]:
    return [tuple(atom for atom in axis if atom[1] != 1) for axis in axes]


def permutation(node: fx.Node, rank: int) -> list[int] | None:
    """The order in which a view takes the axes of a tensor of `rank` axes; None if it is no permutation."""
    given = named_arguments(node)
    axes = list(range(rank))
    if packet(node) is aten.permute:
        return [axis % rank for axis in given["dims"]]
    if packet(node) in (aten.transpose, aten.swapaxes, aten.swapdims):
        first, second = [value for name, value in given.items() if name != "self"]
        if not isinstance(first, int) or not isinstance(second, int):
            return None
        axes[first % rank], axes[second % rank] = axes[second % rank], axes[first % rank]
        return axes
    if packet(node) in (aten.t, aten.numpy_T, aten.mT) and rank >= 2:
        if packet(node) is aten.mT:
            return [*axes[:-2], axes[-1], axes[-2]]
        return axes[::-1] if rank == 2 or packet(node) is aten.numpy_T else None
    if packet(node) is aten.movedim:
        return _moved(given["source"], given["destination"], rank)
    return None


def _moved(source: Any, destination: Any, rank: int) -> list[int]:
    sources = [axis % rank for axis in (source if isinstance(source, list | tuple) else [source])]
    targets = [
        axis % rank for axis in (destination if isinstance(destination, list | tuple) else [destination])
    ]
    placed = dict(zip(targets, sources, strict=True))
    rest = iter(axis for axis in range(rank) if axis not in sources)
    return [placed[place] if place in placed else next(rest) for place in range(rank)]
