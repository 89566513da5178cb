"""What a node is to the row algebra: a form, and what each dimension of the tensor runs over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx

from ...graph.shapes import same_size
from ..rows.forms import Form

ROW, WHOLE = "row", "row with its time"
ROWS = frozenset({ROW, WHOLE})
Label = str | int | None
Axes = tuple[Label, ...]


@dataclass(frozen=True)
class Value:
    """A node's form, and for each of its dimensions what it runs over.

    `ROW` is the dimension along the rows, `WHOLE` along rows that begin with a time coordinate. A number is a
    dimension of the batch, counted from the end of the rows, the row included: rows `[B, N, D]` have `(3, 2,
    ROW)`. A letter is the dimension of one side of a matrix of pairs. Along a dimension with None the value is
    constant.
    """

    form: Form
    axes: Axes = ()


class NotRowwise(Exception):
    """A node is no function of the rows that the algebra can write down; the message says why."""


def broadcast(left: Axes, right: Axes) -> Axes:
    """The axes of an elementwise operation on two values."""
    rank = max(len(left), len(right))
    axes: list[Label] = []
    for a, b in zip(_padded(left, rank), _padded(right, rank), strict=True):
        if a is not None and b is not None and a != b:
            raise NotRowwise("a value per row meets the rows without its last dimension (keepdim=False)")
        axes.append(b if a is None else a)
    return distinct(axes)


def distinct(axes: Sequence[Label]) -> Axes:
    """The axes, `NotRowwise` where two dimensions run over the same."""
    held = [label for label in axes if label is not None]
    if len(held) > len(set(held)):
        raise NotRowwise("a value per row meets the rows without its last dimension (keepdim=False)")
    return tuple(axes)


def _padded(axes: Axes, rank: int) -> Axes:
    return (None,) * (rank - len(axes)) + axes


def combine(*values: Value) -> Axes:
    """The axes of an elementwise operation on values."""
    axes: Axes = ()
    for value in values:
        axes = broadcast(axes, value.axes)
    return axes


def tensor(node: fx.Node) -> torch.Tensor:
    """The fake tensor of a node, or `NotRowwise` where it has none."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise NotRowwise("not a tensor")
    return value


def row_of(axes: Sequence[Label]) -> int | None:
    """Where the row lies; None where the value is constant along it."""
    return next((dim for dim, label in enumerate(axes) if label in ROWS), None)


def has_time(axes: Sequence[Label]) -> bool:
    """Whether the rows begin with a time coordinate."""
    return WHOLE in axes


def vector_axes(value: torch.Tensor, row: int = -1, side: str | None = None) -> Axes:
    """The axes of rows that lie along the dimension `row`; `side` names the dimension of one side of pairs.

    Dimensions of size 1 are constant.
    """
    rank = value.ndim
    if row != -1 and row != -2:
        return tuple(ROW if i - rank == row else _label(value, i) for i in range(rank))
    axes = [ROW if i - rank == row else _label(value, i) for i in range(rank)]
    if side is not None:
        axes[-1 if row == -2 else -2] = side
    return tuple(axes)


def number_axes(value: torch.Tensor) -> Axes | None:
    """The axes of a tensor with one number a row, by its shape alone; None where it has more than one."""
    if value.ndim > 0 and not same_size(value.shape[-1], 1):
        return None
    return tuple(_label(value, i) for i in range(value.ndim))


def _label(value: torch.Tensor, dim: int) -> Label:
    return None if same_size(value.shape[dim], 1) else value.ndim - dim
