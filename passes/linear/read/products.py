"""Every way to write a product of a value and a weight, read with a label for each axis as `einsum` has letters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import same_size
from ...graph.weights import matrix
from ..algebra.elements import Apply, Contract, Element, Labels, Scale, Shift
from ..algebra.values import LABELLED, Value, readable
from .convolutions import CONVOLUTIONS, read_convolution

aten = torch.ops.aten
Map = tuple[Value, int, tuple[Element, ...]]  # the value read, the axis of the result, what happens to it


@dataclass(frozen=True)
class _Roles:
    """A product of two factors, one of them in the role of the value and one in that of the weight.

    `result[...] = sum over shared labels of operand[...] * weight[...]`.

    Args:
        node: the node that computes it.
        operand: the node of the value.
        weight: the node of the weight.
        operand_labels, weight_labels, result_labels: one label an axis; a label that is not in the result is summed.
        behind: what is done to the result.
    """

    node: fx.Node
    operand: fx.Node
    weight: fx.Node
    operand_labels: Labels
    weight_labels: Labels
    result_labels: Labels
    behind: tuple[Element, ...] = ()

    def sound(self) -> bool:
        """Whether every axis has one label, each label one size, and the result lacks none but shared ones."""
        terms = (self.operand_labels, self.weight_labels, self.result_labels)
        operand, weight, result = map(set, terms)
        if any(len(set(labels)) != len(labels) for labels in terms):
            return False
        if not operand <= weight | result or not weight <= operand | result or not result <= operand | weight:
            return False
        if any(
            val(node).dim() != len(labels)
            for node, labels in zip((self.operand, self.weight, self.node), terms, strict=True)
        ):
            return False
        # What stands on one side alone is as long in the result, however its size is spelled there.
        sizes = dict(zip(self.operand_labels, val(self.operand).shape, strict=True))
        of_weight = dict(zip(self.weight_labels, val(self.weight).shape, strict=True))
        return all(
            isinstance(size, int) and same_size(sizes.get(label, size), size)
            for label, size in of_weight.items()
        )

    def along(self) -> Map | None:
        """The same as a map of the features along one axis, which stays where it is; None where it is more."""
        inner = [label for label in self.weight_labels if label not in self.result_labels]
        outer = [label for label in self.weight_labels if label not in self.operand_labels]
        if len(self.weight_labels) != 2 or len(inner) != 1 or len(outer) != 1:
            return None
        axis = self.operand_labels.index(inner[0])
        if (*self.operand_labels[:axis], outer[0], *self.operand_labels[axis + 1 :]) != self.result_labels:
            return None
        apply = Apply(matrix(self.weight, transposed=self.weight_labels[0] == inner[0]))
        return Value(self.operand, axis), axis, (apply, *self.behind)

    def labelled(self) -> Map:
        """The same as a map of all axes by their labels."""
        contract = Contract(self.weight, self.operand_labels, self.weight_labels, self.result_labels)
        return Value(self.operand, LABELLED), LABELLED, (contract, *self.behind)


def read_map(node: fx.Node, fixed: Collection[fx.Node]) -> Map | None:
    """Read a node as a map of the features along one axis; None where it is not such a product with a weight.

    Args:
        node: the node.
        fixed: the nodes that depend on weights alone.

    Returns:
        The value that it reads, the feature axis of its result, and the elements.
    """
    if packet(node) in CONVOLUTIONS:
        found = read_convolution(node, named_arguments(node))
        candidates = [found] if found is not None else []
    else:
        candidates = [found for each in _products(node, fixed) if (found := each.along()) is not None]
    for found in candidates:
        if found[0].node not in fixed and readable(found[0].node, found[0].axis):
            return found
    return None


def read_labelled(node: fx.Node, fixed: Collection[fx.Node]) -> Map | None:
    """Read a node as a product of a value and a weight, whatever axes they share; None where it is not one."""
    for product in _products(node, fixed):
        if product.weight in fixed and product.operand not in fixed:
            return product.labelled()
    return None


def _products(node: fx.Node, fixed: Collection[fx.Node]) -> Iterator[_Roles]:
    """A node as a product with a weight: the factor that is fixed, or else the one that is spelled as a weight."""
    reader = _READERS.get(packet(node))
    found = reader(node, named_arguments(node)) if reader else None
    if found is None:
        return
    either = packet(node) is aten.einsum or found.operand in fixed or found.weight in fixed
    swapped = replace(
        found,
        operand=found.weight,
        weight=found.operand,
        operand_labels=found.weight_labels,
        weight_labels=found.operand_labels,
    )
    both = (found, swapped) if either else (found,)
    for product in sorted(both, key=lambda each: each.operand in fixed or each.weight not in fixed):
        if product.sound():
            yield product


def _roles(node: fx.Node, operands: Sequence[Any], labels: Sequence[Labels], result: Labels) -> _Roles | None:
    if not all(isinstance(each, fx.Node) for each in operands):
        return None
    return _Roles(node, operands[0], operands[1], labels[0], labels[1], result)


def _linear(node: fx.Node, given: dict[str, Any]) -> _Roles | None:
    value, weight, bias = given["input"], given["weight"], given["bias"]
    carried = tuple(range(2, val(value).dim() + 1))
    of_weight = (1, 0) if val(weight).dim() == 2 else (0,)
    found = _roles(node, (value, weight), ((*carried, 0), of_weight), (*carried, *of_weight[:-1]))
    return found if found is None or bias is None else replace(found, behind=(Shift(bias),))


def _matmul(node: fx.Node, given: dict[str, Any]) -> _Roles | None:
    return _matrices(node, given["self"], given["other"] if "other" in given else given["mat2"])


def _matrices(node: fx.Node, left: Any, right: Any) -> _Roles | None:
    """`[*batch, n, i] @ [*batch, i, o]`, or vectors; labels of the batch count from the right, as they broadcast."""
    ranks = val(left).dim(), val(right).dim()
    batch = [tuple(range(rank, 2, -1)) for rank in ranks]
    rows, columns = (0,) if ranks[0] > 1 else (), (2,) if ranks[1] > 1 else ()
    longest = max(batch, key=len)
    labels = ((*batch[0], *rows, 1), (*batch[1], 1, *columns))
    # A matrix times a vector is a map of the vector.
    order = 1 if columns else -1
    return _roles(node, (left, right)[::order], labels[::order], (*longest, *rows, *columns))


def _mv(node: fx.Node, given: dict[str, Any]) -> _Roles | None:
    return _matrices(node, given["self"], given["vec"])


def _added(node: fx.Node, given: dict[str, Any], left: str, right: str) -> _Roles | None:
    """`beta * self + alpha * (left @ right)`."""
    found, alpha, beta = _matrices(node, given[left], given[right]), given["alpha"], given["beta"]
    if found is None or isinstance(alpha, fx.Node) or isinstance(beta, fx.Node):
        return None
    behind: tuple[Element, ...] = (Scale(float(alpha)),) if alpha != 1 else ()
    return replace(found, behind=(*behind, Shift(given["self"], float(beta))) if beta != 0 else behind)


def _tensordot(node: fx.Node, given: dict[str, Any]) -> _Roles | None:
    left, right = given["self"], given["other"]
    ranks = val(left).dim(), val(right).dim()
    first, second = list(range(ranks[0])), list(range(ranks[0], sum(ranks)))
    for one, other in zip(given["dims_self"], given["dims_other"], strict=True):
        second[other % ranks[1]] = first[one % ranks[0]]
    result = tuple(label for label in (*first, *second) if (label in first) != (label in second))
    return _roles(node, (left, right), (tuple(first), tuple(second)), result)


def _einsum(node: fx.Node, given: dict[str, Any]) -> _Roles | None:
    operands = given["tensors"]
    parts = given["equation"].replace(" ", "").split("->")
    terms = parts[0].split(",")
    if len(parts) != 2 or len(terms) != 2 or len(operands) != 2 or given.get("path"):
        return None
    ranks = [val(each).dim() for each in operands]
    labels = [_letters(term, rank) for term, rank in zip(terms, ranks, strict=True)]
    result = _letters(parts[1], val(node).dim())
    if labels[0] is None or labels[1] is None or result is None:
        return None
    return _roles(node, operands, (labels[0], labels[1]), result)


def _letters(term: str, rank: int) -> Labels | None:
    """Labels for the letters of a term, with an ellipsis written out."""
    before, dots, behind = term.partition("...")
    more = rank - len(before) - len(behind)
    if more < 0 or (more and not dots):
        return None
    # Axes of an ellipsis are aligned from the right; negative labels are no letter's.
    return (*map(ord, before), *range(-more, 0), *map(ord, behind))


_READERS: dict[Any, Callable[[fx.Node, dict[str, Any]], _Roles | None]] = {
    aten.linear: _linear,
    aten.matmul: _matmul,
    aten.mm: _matmul,
    aten.bmm: _matmul,
    aten.mv: _mv,
    aten.addmm: lambda node, given: _added(node, given, "mat1", "mat2"),
    aten.baddbmm: lambda node, given: _added(node, given, "batch1", "batch2"),
    aten.tensordot: _tensordot,
    aten.einsum: _einsum,
}
