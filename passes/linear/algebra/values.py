"""A value of the graph together with the axis along which its features lie."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ...graph.nodes import val
from ...graph.shapes import expression, hint, product

# Stands for a size that only the data decides.
_UNKNOWN = 64
# As the axis of a value: every axis has a label, and each map says which of them hold its features.
LABELLED = -1


@dataclass(frozen=True)
class Value:
    """A tensor and its feature axis; the other axes are carried along.

    Args:
        node: the node that holds the tensor.
        axis: the feature axis, counted from 0; or `LABELLED`, where every entry counts as a row of one feature.
        bare: for a norm, its value before it scales and shifts its features with weights.
    """

    node: fx.Node
    axis: int
    bare: bool = False

    @property
    def tensor(self) -> torch.Tensor:
        """The fake tensor."""
        return val(self.node)

    @property
    def width(self) -> int:
        """The number of features."""
        return 1 if self.axis == LABELLED else int(expression(self.tensor.shape[self.axis]))

    @property
    def carried(self) -> list[Any]:
        """The sizes of the other axes."""
        shape = list(self.tensor.shape)
        if self.axis == LABELLED:
            return shape
        return shape[: self.axis] + shape[self.axis + 1 :]

    def rows(self, symbols: int | None = None) -> int:
        """The number of feature vectors; a symbol counts as its example value, or as `symbols` where given."""
        count = 1
        for size in self.carried:
            count *= size_at(size, symbols)
        return count

    @property
    def varies(self) -> bool:
        """Whether the number of feature vectors may differ from call to call."""
        return not all(isinstance(expression(size), int) for size in self.carried)


def size_at(size: Any, symbols: int | None) -> int:
    """A size as a number, with every symbol replaced by `symbols`, or by its example value if that is None."""
    if isinstance(expression(size), int):
        return int(expression(size))
    if symbols is None:
        return hint(size, _UNKNOWN)
    return _with_symbols(size.node.expr, symbols)


@functools.lru_cache(maxsize=4096)
def _with_symbols(formula: Any, symbols: int) -> int:
    """A formula's value with every symbol replaced by a number; sympy takes its time, and plans ask often."""
    try:
        return max(1, int(formula.subs(dict.fromkeys(formula.free_symbols, symbols))))
    except (ArithmeticError, TypeError):  # there is no such size where every symbol is that number
        return 1


def readable(node: Any, axis: int) -> bool:
    """Whether a node is a dense real tensor with a fixed number of features along an axis."""
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        return False
    return axis == LABELLED or (0 <= axis < value.dim() and isinstance(expression(value.shape[axis]), int))


def whole_axis(source: Sequence[Any], result: Sequence[Any], axis: int) -> int | None:
    """The axis of `source` that a reshape keeps whole as axis `axis` of `result`; None if it does not.

    A reshape keeps the row-major order of entries, so an axis stays whole exactly if its size is the same and
    as many entries lie before it, or behind it.

    >>> whole_axis([2, 12, 5], [2, 3, 4, 5], 3)
    2
    >>> whole_axis([2, 12, 5], [2, 3, 20], 2)
    """
    width, before, behind = expression(result[axis]), product(result[:axis]), product(result[axis + 1 :])
    if not isinstance(width, int) or width == 1:
        return None
    for candidate, size in enumerate(source):
        if expression(size) == width and (
            product(source[:candidate]) == before or product(source[candidate + 1 :]) == behind
        ):
            return candidate
    return None
