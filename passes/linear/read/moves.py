"""The table of carries: operations on the axes that carry features along, each with the reader that knows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ..algebra.readings import Moves
from ..algebra.values import readable
from . import axes, gathering, mixing, resampling, views

_READERS: dict[Any, Callable[[fx.Node, int, dict[str, Any]], Moves | None]] = {
    **views.READERS,
    **axes.READERS,
    **resampling.READERS,
    **mixing.READERS,
    **gathering.READERS,
}


def read_move(node: fx.Node, axis: int) -> Moves | None:
    """Read a node as an operation on the axes other than `axis` of its result; None where it is not one."""
    reader = _READERS.get(packet(node))
    found = reader(node, axis, named_arguments(node)) if reader else None
    if found is None or not readable(found.operand.node, found.operand.axis):
        return None
    if found.operand.node in found.beside:  # then it is no linear operation
        return None
    if val(node).dtype != found.operand.tensor.dtype or found.operand.width != val(node).shape[axis]:
        return None
    return found
