"""Sums whose terms are products with weights, read from the graph, and their weights as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.emit import Emitter
from ...graph.nodes import val
from ...graph.shapes import expression, same_sizes
from .contraction import Contraction, read_contraction
from .steps import Scaled, read_step

aten = torch.ops.aten
Factored = tuple[fx.Node, float]


@dataclass(frozen=True)
class Term:
    """`factor * product`."""

    product: Contraction
    factor: float


@dataclass
class Sum:
    """`root = products + others + shifts`.

    Args:
        root: the node that holds the result.
        groups: terms that one product can make: of one value, summed along the same axes; the first has the weight
            with the most axes.
        others: values that are added too.
        shifts: weights that are added, or numbers.
        inner: the nodes that add and scale, the root among them.
    """

    root: fx.Node
    groups: list[list[Term]] = field(default_factory=list)
    others: list[Factored] = field(default_factory=list)
    shifts: list[tuple[fx.Node | float, float]] = field(default_factory=list)
    inner: list[fx.Node] = field(default_factory=list)

    def nodes(self) -> list[fx.Node]:
        """What the sum replaces, in the order of the graph."""
        products = (term.product.node for group in self.groups for term in group)
        return sorted({*self.inner, *products})

    def weights(self) -> list[fx.Node]:
        """The weights that it reads."""
        products = [term.product.weight for group in self.groups for term in group]
        return [*products, *(value for value, _ in self.shifts if isinstance(value, fx.Node))]

    @property
    def varies(self) -> bool:
        """Whether sizes may differ from call to call."""
        nodes = [self.root, *(group[0].product.operand for group in self.groups)]
        return not all(isinstance(expression(size), int) for node in nodes for size in val(node).shape)

    def emit_shift(self, emit: Emitter) -> fx.Node | None:
        """Everything constant that is added, as one weight in float64; None where there is nothing."""
        total: fx.Node | None = None
        for value, factor in self.shifts:
            if isinstance(value, fx.Node):
                shift = emit.exact(value)
                shift = shift if factor == 1 else emit(aten.mul.Tensor, shift, factor)
            else:
                device = val(self.root).device
                shift = emit(aten.full.default, [1], value * factor, dtype=torch.float64, device=device)
            total = shift if total is None else emit(aten.add.Tensor, total, shift)
        return total


def sums(graph: fx.Graph, fixed: Collection[fx.Node]) -> list[Sum]:
    """The largest sums in which two products or more, one with more than a matrix, can be made by one."""
    found: list[Sum] = []
    seen: set[fx.Node] = set()
    for node in reversed(list(graph.nodes)):
        if node in seen or node in fixed or not _is_sum(node):
            continue
        whole = _read(node, fixed)
        seen.update(whole.inner)
        if whole.groups:
            found.append(whole)
    return found[::-1]


def _is_sum(node: fx.Node) -> bool:
    return packet(node) in (aten.add, aten.sub, aten.rsub) and isinstance(node.meta.get("val"), torch.Tensor)


def _read(root: fx.Node, fixed: Collection[fx.Node]) -> Sum:
    found = Sum(root)
    terms: list[Term] = []
    stack: list[Factored] = [(root, 1.0)]
    while stack:
        node, factor = stack.pop()
        alone = node is root or (len(node.users) == 1 and node not in fixed)
        product = read_contraction(node, fixed) if alone and node is not root else None
        if product is not None and _same_kind(root, product.weight, product.operand):
            terms.append(Term(product, factor))
            continue
        operands = _summands(node, root) if alone else None
        scaled = read_step(node, fixed) if alone and operands is None else None
        if operands is not None:
            found.inner.append(node)
            stack += [(operand, factor * own) for operand, own in reversed(operands)]
        elif isinstance(scaled, Scaled) and _same_kind(root, scaled.shift or root, scaled.operand):
            found.inner.append(node)
            stack.append((scaled.operand, factor * scaled.scale))
            if scaled.shift is not None:
                found.shifts.append((scaled.shift, factor * scaled.factor))
            if scaled.number:
                found.shifts.append((scaled.number, factor))
        elif node in fixed:
            found.shifts.append((node, factor))
        else:
            found.others.append((node, factor))
    _group(terms, found)
    return found


def _same_kind(root: fx.Node, *nodes: fx.Node) -> bool:
    return all(val(node).dtype == val(root).dtype and val(node).device == val(root).device for node in nodes)


def _summands(node: fx.Node, root: fx.Node) -> list[Factored] | None:
    """The two terms of a sum of values of its own shape and dtype; None for anything else."""
    if not _is_sum(node):
        return None
    given = named_arguments(node)
    operands, alpha = (given["self"], given["other"]), given.get("alpha", 1)
    if isinstance(alpha, fx.Node) or not all(isinstance(each, fx.Node) for each in operands):
        return None
    for operand in operands:
        value = operand.meta.get("val")
        if not isinstance(value, torch.Tensor) or not same_sizes(value.shape, val(root).shape):
            return None
    if not _same_kind(root, node, *operands):
        return None
    factors = {aten.sub: (1.0, -float(alpha)), aten.rsub: (-float(alpha), 1.0)}
    return list(zip(operands, factors.get(packet(node), (1.0, float(alpha))), strict=True))


def _group(terms: Sequence[Term], found: Sum) -> None:
    """Sort terms into groups that one product can make each; the rest stay as they are."""
    left = sorted(terms, key=lambda term: -len(term.product.weight_labels))
    while left:
        base = left[0]
        group = [term for term in left if same_labels(base.product, term.product) is not None]
        left = [term for term in left if term not in group]
        if len(group) > 1 and base.product.batched:
            found.groups.append(group)
            found.shifts += [
                (term.product.shift, term.factor * term.product.factor)
                for term in group
                if term.product.shift is not None
            ]
        else:
            found.others += [(term.product.node, term.factor) for term in group]


def same_labels(base: Contraction, other: Contraction) -> dict[int, int] | None:
    """For each label of `other` that of `base`, if a product of one value can make both; else None."""
    if other.operand is not base.operand or len(other.result_labels) != len(base.result_labels):
        return None
    pairs = zip(
        (*other.operand_labels, *other.result_labels),
        (*base.operand_labels, *base.result_labels),
        strict=True,
    )
    names: dict[int, int] = {}
    for label, wanted in pairs:
        if names.setdefault(label, wanted) != wanted:
            return None
    if len(set(names.values())) != len(names):
        return None
    return names if {names[label] for label in other.weight_labels} <= set(base.weight_labels) else None


def summed_weight(emit: Emitter, group: Sequence[Term]) -> fx.Node:
    """The weights of a group, each with its factor, as one in float64 with the axes of the first."""
    order = group[0].product.weight_labels
    total: fx.Node | None = None
    for term in group:
        product = term.product
        names = same_labels(group[0].product, product)
        assert names is not None
        labels = [names[label] for label in product.weight_labels]
        weight = emit.exact(product.weight)
        present = [label for label in order if label in labels]
        weight = emit(aten.permute.default, weight, [labels.index(label) for label in present])
        sizes = dict(zip(present, val(weight).shape, strict=True))
        if len(present) < len(order):
            weight = emit(aten.reshape.default, weight, [sizes.get(label, 1) for label in order])
        if term.factor * product.scale != 1:
            weight = emit(aten.mul.Tensor, weight, term.factor * product.scale)
        total = weight if total is None else emit(aten.add.Tensor, total, weight)
    assert total is not None
    return total
