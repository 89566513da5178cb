"""Floating-point operations: the one count, of nodes as a graph has them and of products that are planned."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ..graph.arguments import named_arguments
from ..graph.shapes import entries, hint


def product_flops(*extents: int) -> int:
    """Operations of a product that runs over some extents, an addition and a multiplication apart.

    >>> product_flops(2, 3, 5)  # [2, 3] @ [3, 5]
    60
    """
    return 2 * math.prod(extents)


def node_flops(node: fx.Node) -> int:
    """Operations of one call of a node at the example sizes.

    Products count what they multiply and add up; any other operator counts one for each entry that it reads or
    writes, whichever are more.
    """
    made = _tensors(node)
    if not made:
        return 0
    return _COUNTS[name](named_arguments(node), made[0]) if (name := _name(node)) in _COUNTS else passed(node)


def is_product(node: fx.Node) -> bool:
    """Whether a node multiplies and adds up, so that a compiler hands it to a library instead of fusing it."""
    return _name(node) in _COUNTS


def passed(node: fx.Node) -> int:
    """Entries that one call of a node reads or writes, whichever are more, at the example sizes."""
    values = [value for each in (node, *node.all_input_nodes) for value in _tensors(each)]
    return max(map(entries, values), default=0)


def _name(node: fx.Node) -> str:
    return node.target._schema.name if isinstance(node.target, torch._ops.OpOverload) else ""


def _tensors(node: fx.Node) -> list[torch.Tensor]:
    value = node.meta.get("val")
    values = value if isinstance(value, list | tuple) else [value]
    return [each for each in values if isinstance(each, torch.Tensor)]


def _value(argument: Any) -> torch.Tensor:
    return argument.meta["val"]


def _rows(name: str) -> Callable[[dict[str, Any], torch.Tensor], int]:
    """Each entry made is an inner product along the last axis of an operand."""
    return lambda given, made: product_flops(entries(made), hint(_value(given[name]).shape[-1], 1))


def _convolution(given: dict[str, Any], made: torch.Tensor) -> int:
    weight = _value(given["weight"])
    # Each entry made reads the rest of the kernel; of a transposed convolution each entry read is spread by it.
    entry = _value(given["input"]) if given.get("transposed") else made
    return product_flops(entries(entry), entries(weight) // max(hint(weight.shape[0], 1), 1))


def _transposed(given: dict[str, Any], made: torch.Tensor) -> int:
    return _convolution({**given, "transposed": True}, made)


def _tensordot(given: dict[str, Any], made: torch.Tensor) -> int:
    shape = _value(given["self"]).shape
    return product_flops(entries(made), *(hint(shape[axis], 1) for axis in given["dims_self"]))


def _einsum(given: dict[str, Any], made: torch.Tensor) -> int:
    """Two operands meet once for each value that their letters take; axes of an ellipsis are aligned from the right."""
    extents: dict[Any, int] = {}
    terms = given["equation"].replace(" ", "").partition("->")[0].split(",")
    for term, operand in zip(terms, given["tensors"], strict=True):
        shape = [hint(size, 1) for size in _value(operand).shape]
        before, _, behind = term.partition("...")
        dots = range(len(before) + len(behind) - len(shape), 0)
        for label, size in zip((*before, *dots, *behind), shape, strict=True):
            extents[label] = max(extents.get(label, 1), size)
    return product_flops(*extents.values()) * max(len(terms) - 1, 1)


def _attention(given: dict[str, Any], made: torch.Tensor) -> int:
    keys = hint(_value(given["key"]).shape[-2], 1)
    return product_flops(entries(_value(given["query"])), keys) + product_flops(entries(made), keys)


def _pair(given: dict[str, Any], made: torch.Tensor) -> int:
    value, *factors = (_value(each) for each in list(given.values())[:3])
    rows = entries(value) // max(hint(value.shape[-1], 1), 1)
    return product_flops(rows, sum(map(entries, factors)))


_COUNTS: dict[str, Callable[[dict[str, Any], torch.Tensor], int]] = {
    "aten::linear": _rows("input"),
    "aten::addmm": _rows("mat1"),
    "aten::baddbmm": _rows("batch1"),
    **dict.fromkeys(("aten::mm", "aten::mv", "aten::matmul", "aten::bmm"), _rows("self")),
    "aten::tensordot": _tensordot,
    "aten::einsum": _einsum,
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution"), _convolution),
    **{f"aten::conv_transpose{axes}d": _transposed for axes in (1, 2, 3)},
    "aten::scaled_dot_product_attention": _attention,
    **{
        f"stone::{name}{suffix}": _pair
        for name in ("low_rank_linear", "pifa_linear")
        for suffix in ("", "_forward")
    },
}
