"""Products with a weight of any number of axes, read with a label for each axis as `einsum` has letters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import same_size

aten = torch.ops.aten
Labels = tuple[int, ...]


@dataclass(frozen=True)
class Contraction:
    """`result[...] = sum over shared labels of operand[...] * weight[...]`, then times `scale`, plus `shift`.

    Args:
        node: the node that computes it.
        operand: the node of the value.
        weight: the node of the weight.
        operand_labels, weight_labels, result_labels: one label an axis; a label that is not in the result is summed.
        scale: a number.
        shift: a weight that is added at the end, times `factor`, or None.
        factor: a number.
    """

    node: fx.Node
    operand: fx.Node
    weight: fx.Node
    operand_labels: Labels
    weight_labels: Labels
    result_labels: Labels
    scale: float = 1.0
    shift: fx.Node | None = None
    factor: float = 1.0

    @property
    def batched(self) -> bool:
        """Whether the weight is more than one matrix."""
        return len(self.weight_labels) > 2


def read_contraction(node: fx.Node, fixed: Collection[fx.Node]) -> Contraction | None:
    """Read a node as a product of a value and a weight; None where it is not one.

    Args:
        node: the node.
        fixed: the nodes that depend on weights alone.
    """
    reader = _READERS.get(packet(node))
    if reader is None or node in fixed:
        return None
    found = reader(node, named_arguments(node), fixed)
    return found if found is not None and _sound(found) else None


def _sound(found: Contraction) -> bool:
    """Whether every axis has one label, every label one size, and the value's axes are summed along the weight's."""
    terms = (found.operand_labels, found.weight_labels, found.result_labels)
    if any(len(set(labels)) != len(labels) for labels in terms):
        return False
    if not set(found.operand_labels) <= {*found.weight_labels, *found.result_labels}:
        return False
    if not set(found.weight_labels) <= {*found.operand_labels, *found.result_labels}:
        return False
    sizes: dict[int, Any] = {}
    nodes = (found.operand, found.weight, found.node)
    for node, labels in zip(nodes, terms, strict=True):
        shape = val(node).shape
        if len(shape) != len(labels):
            return False
        for label, size in zip(labels, shape, strict=True):
            if not same_size(sizes.setdefault(label, size), size):
                return False
    return all(isinstance(size, int) for size in val(found.weight).shape)


def _product(
    node: fx.Node,
    operands: Sequence[Any],
    labels: Sequence[Labels],
    result: Labels,
    fixed: Collection[fx.Node],
) -> Contraction | None:
    if not all(isinstance(each, fx.Node) for each in operands):
        return None
    for value, weight in ((0, 1), (1, 0)):
        if operands[weight] in fixed and operands[value] not in fixed:
            return Contraction(node, operands[value], operands[weight], labels[value], labels[weight], result)
    return None


def _matmul(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Contraction | None:
    left, right = given["self"], given["other"] if "other" in given else given["mat2"]
    return _matrices(node, left, right, fixed)


def _matrices(node: fx.Node, left: Any, right: Any, fixed: Collection[fx.Node]) -> Contraction | None:
    """`[*batch, n, i] @ [*batch, i, o]`; labels of the batch count from the right, as they broadcast."""
    ranks = val(left).dim(), val(right).dim()
    if min(ranks) < 2:
        return None
    batch = [tuple(range(rank, 2, -1)) for rank in ranks]
    longest = max(batch, key=len)
    return _product(node, (left, right), ((*batch[0], 0, 1), (*batch[1], 1, 2)), (*longest, 0, 2), fixed)


def _baddbmm(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Contraction | None:
    found = _matrices(node, given["batch1"], given["batch2"], fixed)
    alpha, beta, added = given["alpha"], given["beta"], given["self"]
    if found is None or isinstance(alpha, fx.Node) or isinstance(beta, fx.Node):
        return None
    if beta != 0 and added not in fixed:
        return None
    shift = added if beta != 0 else None
    terms = (found.operand_labels, found.weight_labels, found.result_labels)
    return Contraction(node, found.operand, found.weight, *terms, float(alpha), shift, float(beta))


def _linear(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Contraction | None:
    operand, weight, bias = given["input"], given["weight"], given["bias"]
    if weight not in fixed or operand in fixed or val(weight).dim() != 2:
        return None
    carried = tuple(range(2, val(operand).dim() + 1))
    return Contraction(node, operand, weight, (*carried, 0), (1, 0), (*carried, 1), 1.0, bias)


def _tensordot(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Contraction | None:
    left, right = given["self"], given["other"]
    ranks = val(left).dim(), val(right).dim()
    first, second = list(range(ranks[0])), list(range(ranks[0], sum(ranks)))
    for one, other in zip(given["dims_self"], given["dims_other"], strict=True):
        second[other % ranks[1]] = first[one % ranks[0]]
    result = tuple(label for label in (*first, *second) if (label in first) != (label in second))
    return _product(node, (left, right), (tuple(first), tuple(second)), result, fixed)


def _einsum(node: fx.Node, given: dict[str, Any], fixed: Collection[fx.Node]) -> Contraction | None:
    operands = given["tensors"]
    parts = given["equation"].replace(" ", "").split("->")
    terms = parts[0].split(",")
    if len(parts) != 2 or len(terms) != 2 or len(operands) != 2:
        return None
    ranks = [val(each).dim() for each in operands]
    labels = [_letters(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    result = _letters(parts[1], val(node).dim())
    if labels[0] is None or labels[1] is None or result is None:
        return None
    return _product(node, operands, (labels[0], labels[1]), result, fixed)


def _letters(term: str, rank: int) -> Labels | None:
    """Labels for the letters of a term, with an ellipsis written out."""
    before, dots, behind = term.partition("...")
    more = rank - len(before) - len(behind)
    if more < 0 or (more and not dots):
        return None
    # Axes of an ellipsis are aligned from the right; negative labels are no letter's.
    return (*map(ord, before), *range(-more, 0), *map(ord, behind))


_READERS: dict[Any, Callable[[fx.Node, dict[str, Any], Collection[fx.Node]], Contraction | None]] = {
    aten.linear: _linear,
    aten.matmul: _matmul,
    aten.mm: _matmul,
    aten.bmm: _matmul,
    aten.baddbmm: _baddbmm,
    aten.tensordot: _tensordot,
    aten.einsum: _einsum,
}
