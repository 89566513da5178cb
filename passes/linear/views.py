"""Reshapes of leading dimensions, which every map of the last axis commutes with."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..arguments import named_arguments, packet
from ..rewrite import val
from ..shapes import expression
from .steps import Step

aten = torch.ops.aten
_ABSOLUTE = (aten.view, aten.reshape, aten._unsafe_view)


def read_view(node: fx.Node) -> Step | None:
    """Read a node as a reshape that keeps rows whole; None where it is not one.

    Rows stay whole exactly if the last dimension has the same size before and after, since a reshape keeps
    the row-major order of entries.
    """
    if packet(node) not in (*_ABSOLUTE, aten.flatten, aten.unflatten, aten.unsqueeze, aten.squeeze):
        return None
    given = named_arguments(node)
    operand = given["self"]
    before, after = val(operand), val(node)
    if before.dim() == 0 or after.dim() == 0:
        return None
    width = expression(before.shape[-1])
    if not isinstance(width, int) or width != expression(after.shape[-1]):
        return None
    if packet(node) in _ABSOLUTE:
        readable = "size" in given or "shape" in given
    elif packet(node) is aten.flatten:
        readable = node.target is aten.flatten.using_ints
    else:
        readable = _touches_leading_only(node, given, before.dim())
    return Step(node, operand, "view") if readable else None


def _touches_leading_only(node: fx.Node, given: dict[str, Any], rank: int) -> bool:
    if packet(node) is aten.unsqueeze:
        return given["dim"] % (rank + 1) < rank
    axes = given.get("dim")
    if axes is None:
        return False
    axes = axes if isinstance(axes, list | tuple) else [axes]
    return all(axis % rank < rank - 1 for axis in axes)


def needed_views(steps: list[Step]) -> list[Step]:
    """The reshapes that still matter: those before the last one that names the whole shape do not."""
    needed: list[Step] = []
    for step in steps:
        if step.kind == "view":
            needed = [step] if packet(step.node) in _ABSOLUTE else [*needed, step]
    return needed


def replayed(step: Step, width: int) -> tuple[Any, tuple[Any, ...]]:
    """The operator and arguments, behind the value, that redo a reshape on rows of another width."""
    given = named_arguments(step.node)
    if packet(step.node) in _ABSOLUTE:
        sizes = given["size"] if "size" in given else given["shape"]
        return aten.reshape.default, ([*sizes[:-1], width],)
    return step.node.target, tuple(value for name, value in given.items() if name != "self")
