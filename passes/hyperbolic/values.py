"""What a node is to the row algebra: a form and how its shape lies along the rows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import fx

from ..graph.shapes import same_size
from .forms import Form


class Layout(Enum):
    """How a value of some shape broadcasts against rows of shape `[*batch, dim]`."""

    CONSTANT = "one value for all rows"
    ROW = "the last dimension is the row, of size dim or 1"
    BATCH = "one value a row, the last dimension left out"


@dataclass(frozen=True)
class Value:
    """A node's form and layout."""

    form: Form
    layout: Layout


class NotRowwise(Exception):
    """A node is no function of the rows that the algebra can write down; the message says why."""


def combine(left: Value, right: Value) -> Layout:
    """Layout of an elementwise operation on two values."""
    if left.layout is right.layout or right.layout is Layout.CONSTANT:
        return left.layout
    if left.layout is Layout.CONSTANT:
        return right.layout
    raise NotRowwise("a value per row meets the rows without its last dimension (keepdim=False)")


def tensor(node: fx.Node) -> torch.Tensor:
    """The fake tensor of a node, or `NotRowwise` where it has none."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        raise NotRowwise("not a tensor")
    return value


def scalar_layout(value: torch.Tensor) -> Layout | None:
    """Layout of a tensor that is constant along the row by its shape alone, else None."""
    if value.ndim == 0 or (value.ndim == 1 and same_size(value.shape[0], 1)):
        return Layout.CONSTANT
    return Layout.ROW if same_size(value.shape[-1], 1) else None
