"""Nodes that take a part of a tensor along one dimension: slices, selections, and parts of a split."""

from __future__ import annotations

from typing import Any

from torch import fx

from .arguments import is_operator, named_arguments
from .nodes import val
from .shapes import same_size

# Operand, dimension, first entry and the one behind the last, and whether the dimension is kept.
Part = tuple[fx.Node, int, int, Any, bool]


def interval(node: fx.Node) -> Part | None:
    """What a node takes a part of: operand, dimension, bounds, and whether the dimension is kept.

    The first entry is a number; the one behind the last may be the size of the operand, where that varies. None for a
    node that takes no part, or one whose bounds are not known.
    """
    if node.op == "call_function" and not is_operator(node):
        return _of_split(node)
    if not is_operator(node):
        return None
    name = node.target._schema.name  # type: ignore[union-attr]
    given = named_arguments(node)
    source = given.get("self")
    if name not in ("aten::slice", "aten::narrow", "aten::select") or not isinstance(source, fx.Node):
        return None
    dim = given["dim"] % val(source).ndim
    size = val(source).shape[dim]
    first = given["start" if name != "aten::select" else "index"] or 0
    if name == "aten::slice" and given["step"] != 1:
        return None
    if not isinstance(first, int) or (not isinstance(size, int) and first < 0):
        return None
    first = first + size if first < 0 else (min(first, size) if isinstance(size, int) else first)
    if name == "aten::select":
        return source, dim, first, first + 1, False
    length = val(node).shape[dim]
    last = first + length
    return source, dim, first, size if same_size(last, size) else last, True


def _of_split(node: fx.Node) -> Part | None:
    """A part of `split([1, dim])`."""
    if getattr(node.target, "__name__", "") != "getitem" or not isinstance(node.args[0], fx.Node):
        return None
    split, index = node.args[0], node.args[1]
    if not is_operator(split) or not isinstance(index, int):
        return None
    if split.target._schema.name not in ("aten::split_with_sizes", "aten::split"):  # type: ignore[union-attr]
        return None
    given = named_arguments(split)
    sizes, source = given.get("split_sizes", given.get("split_size")), given["self"]
    if not isinstance(sizes, list | tuple) or not all(isinstance(size, int) for size in sizes):
        return None
    index = index % len(sizes)
    first = sum(sizes[:index])
    return source, given["dim"] % val(source).ndim, first, first + sizes[index], True
