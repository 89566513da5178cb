"""Views that rearrange the axes carrying features along: reshapes and permutations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import is_row_major
from ..algebra.layout import permutation
from ..algebra.readings import Moves, Replay
from ..algebra.values import Value, whole_axis

aten = torch.ops.aten

_SIZED = (aten.view, aten.reshape, aten._unsafe_view)
ORDERED_VIEWS = (*_SIZED, aten.flatten, aten.unflatten, aten.unsqueeze, aten.squeeze)
PERMUTATIONS = (
    aten.permute,
    aten.transpose,
    aten.swapaxes,
    aten.swapdims,
    aten.t,
    aten.numpy_T,
    aten.mT,
    aten.movedim,
)


def again(node: fx.Node, axis: int, name: str = "self", sizes: str | None = None, **changed: Any) -> Replay:
    """Emit a node's call on another tensor, with features of its width at `axis` of the result.

    Args:
        node: the node.
        axis: the feature axis of its result.
        name: the argument that the tensor becomes.
        sizes: an argument that is a list of sizes, which gets the width at `axis`.
        changed: other arguments to emit otherwise: for each a function of the emitter, the tensor and its width.
    """

    def replay(emit: Any, tensor: fx.Node, width: int) -> fx.Node:
        given = dict(named_arguments(node))
        given[name] = tensor
        if sizes is not None:
            given[sizes] = [*given[sizes][:axis], width, *given[sizes][axis + 1 :]]
        for argument, made in changed.items():
            given[argument] = made(emit, tensor, width)
        return emit.call_sized(node.target, given, resized(node, axis, width))

    return replay


def resized(node: fx.Node, axis: int, width: int) -> list[Any]:
    """The sizes of a node's value, with features of another width."""
    shape = list(val(node).shape)
    return [*shape[:axis], width, *shape[axis + 1 :]]


def read_reshape(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """Read a reshape that keeps the features whole."""
    source = given["self"]
    found = whole_axis(val(source).shape, val(node).shape, axis)
    if found is None:
        return None
    value = Value(source, found)
    if packet(node) in _SIZED:
        name = "size" if "size" in given else "shape"
        if name not in given:
            return None

        sizes = given[name]

        def arguments(width: int) -> tuple[Any, ...]:
            return ([*sizes[:axis], width, *sizes[axis + 1 :]],)

        return Moves(node, value, _reshaped(node, axis, aten.reshape.default, arguments), True, True)
    if packet(node) is aten.flatten and node.target is not aten.flatten.using_ints:
        return None
    if packet(node) is aten.squeeze and "dim" not in given:
        return None
    if packet(node) is aten.unflatten and given["dim"] % val(source).dim() == found:
        dim, parts = found, list(given["sizes"])

        def parted(width: int) -> tuple[Any, ...]:
            return dim, [*parts[: axis - dim], width, *parts[axis - dim + 1 :]]

        return Moves(node, value, _reshaped(node, axis, node.target, parted), True, True)
    rest = tuple(value for name, value in given.items() if name != "self")
    return Moves(node, value, _reshaped(node, axis, node.target, lambda width: rest), True, True)


def _reshaped(node: fx.Node, axis: int, target: Any, arguments: Callable[[int], tuple[Any, ...]]) -> Replay:
    """Emit a reshape of a tensor with features of another width at `axis` of the result."""

    def replay(emit: Any, tensor: fx.Node, width: int) -> fx.Node:
        if not is_row_major(val(tensor)):
            return emit.call_as(target, (tensor, *arguments(width)), {})
        # Its value is known, and working it out could fix sizes that may vary.
        value = val(tensor).new_empty(resized(node, axis, width))
        return emit.insert(target, (tensor, *arguments(width)), {}, value)

    return replay


def read_permutation(node: fx.Node, axis: int, given: dict[str, Any]) -> Moves | None:
    """Read a permutation of the axes."""
    source = given["self"]
    rank = val(source).dim()
    order = permutation(node, rank)
    return None if order is None else Moves(node, Value(source, order[axis]), again(node, axis), view=True)


READERS = {
    **dict.fromkeys(ORDERED_VIEWS, read_reshape),
    **dict.fromkeys(PERMUTATIONS, read_permutation),
}
