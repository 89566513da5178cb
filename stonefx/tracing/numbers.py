"""Numbers of a result that the graph computes, told apart from those that are the same in every call.

A run of the recorded function builds its result out of what the graph returned. Where the graph returns a number,
it returns a marked one here, and wherever the mark turns up in the result, that output of the graph belongs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class GraphInteger(int):
    """An integer or bool that is output number `output` of the graph."""

    output: int


class GraphFloat(float):
    """A float that is the `item()` of output number `output` of the graph."""

    output: int


class GraphScalar(torch.Tensor):
    """A tensor of no dimensions that is output number `output` of the graph."""

    output: int

    def item(self) -> Any:
        """The number, marked."""
        value = super().item()
        return marked(value, self.output) if isinstance(value, (int, float)) else value


def marked(value: Any, index: int) -> Any:
    """A number or a tensor of no dimensions that knows which output of the graph it is; others as they are."""
    if isinstance(value, torch.Tensor):
        made: Any = (
            value.as_subclass(GraphScalar) if not value.dim() and type(value) is torch.Tensor else None
        )
    elif isinstance(value, int):
        made = GraphInteger(value)
    else:
        made = GraphFloat(value) if isinstance(value, float) else None
    if made is None:
        return value
    made.output = index
    return made


def marked_outputs(outputs: Sequence[Any], inputs: Sequence[Any]) -> tuple[Any, ...]:
    """All outputs of a graph, marked; inputs that it returns as they are stay as they are."""
    given = {id(value) for value in inputs if isinstance(value, torch.Tensor)}
    return tuple(value if id(value) in given else marked(value, index) for index, value in enumerate(outputs))
