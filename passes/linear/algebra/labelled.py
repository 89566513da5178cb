"""Fold expressions of ways through values whose axes all have labels: one weight with a label for each axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from ...graph.emit import Emitter
from ...graph.nodes import val
from .composition import Composition
from .elements import Contract, Element, Labels, Permute, Scale, Shift
from .product import Product, equation, largest
from .values import Value

aten = torch.ops.aten


class LabelledComposition(Composition):
    """The weights of a way as one tensor with a label for each axis, and its constants as one, in float64.

    The bias has the rank of the result, with size 1 along the axes on which it does not depend.

    Args:
        emit: where the nodes go.
        value: what the way starts from.
    """

    def __init__(self, emit: Emitter, value: Value) -> None:
        super().__init__(emit, value.width)
        self.product = Product.of(value)
        self.labels: Labels = ()  # of `weight`

    def add(self, element: Element) -> None:
        """Compose with one more element."""
        emit, before = self.emit, self.product
        self.product = before.then(element)
        if isinstance(element, Contract):
            self._contract(element, before)
        elif isinstance(element, Permute) and self.bias is not None:
            self.bias = emit(aten.permute.default, self.bias, list(element.order))
        elif isinstance(element, Scale):
            number = float(element.value)  # type: ignore[arg-type]
            by = 1 / number if element.inverse else number
            self.scale = by if self.scale is None else self.scale * by  # type: ignore[operator]
            self.bias = None if self.bias is None else emit(aten.mul.Tensor, self.bias, by)
        elif isinstance(element, Shift) and self.constants:
            self._shift(element)

    def weight_in(self, order: Labels) -> fx.Node:
        """The weight with its axes in an order, those that it lacks with size 1."""
        weight = self.weight
        assert weight is not None
        present = [label for label in order if label in self.labels]
        if tuple(present) != self.labels:
            weight = self.emit(aten.permute.default, weight, [self.labels.index(label) for label in present])
        if len(present) < len(order):
            sizes = dict(zip(present, val(weight).shape, strict=True))
            weight = self.emit(aten.reshape.default, weight, [sizes.get(label, 1) for label in order])
        return weight if self.scale in (None, 1) else self.emit(aten.mul.Tensor, weight, self.scale)

    def plus(self, others: Sequence[LabelledComposition]) -> LabelledComposition:
        """The sum with other products of the same value."""
        terms = [self, *others]
        place = largest([term.product for term in terms])
        assert place is not None
        total = terms[place].copy()
        total.labels = total.product.matrix
        weights = []
        for term in terms:
            names = term.product.names_in(total.product)
            assert names is not None
            renamed = term.copy()
            renamed.labels = tuple(names[label] for label in term.labels)
            weights.append(renamed.weight_in(total.labels))
        total.weight, total.scale = self.emit.total(weights), None
        biases = [term.bias for term in terms if term.bias is not None]
        total.bias = self.emit.total(biases) if biases else None
        return total

    def _contract(self, element: Contract, before: Product) -> None:
        factor, labels = self.emit.exact(element.weight), before.placed(element)[0]
        if self.bias is not None:
            self.bias = self._through(factor, labels, before.result)
        if self.weight is None:
            self.weight, self.labels = factor, labels
            return
        left = tuple(
            label for label in dict.fromkeys((*self.labels, *labels)) if label in self.product.matrix
        )
        terms = equation((self.labels, labels), left)
        self.weight = self.emit(aten.einsum.default, terms, [self.weight, factor])
        self.labels = left

    def _through(self, factor: fx.Node, of_factor: Labels, before: Labels) -> fx.Node:
        """What a product makes of the bias."""
        assert self.bias is not None
        shape = val(self.bias).shape
        axes = [place for place, size in enumerate(shape) if size != 1]
        labels = tuple(before[place] for place in axes)
        bias = self.emit(aten.reshape.default, self.bias, [shape[place] for place in axes])
        known = {*labels, *of_factor}
        left = tuple(label for label in self.product.result if label in known)
        moved = self.emit(aten.einsum.default, equation((labels, of_factor), left), [bias, factor])
        sizes = dict(zip(left, val(moved).shape, strict=True))
        return self.emit(aten.reshape.default, moved, [sizes.get(label, 1) for label in self.product.result])

    def _shift(self, element: Shift) -> None:
        emit, rank = self.emit, len(self.product.result)
        if isinstance(element.value, fx.Node):
            value = emit.exact(element.value)
            value = value if element.factor == 1 else emit(aten.mul.Tensor, value, element.factor)
            if rank > val(value).dim():
                shape = [1] * (rank - val(value).dim()) + list(val(value).shape)
                value = emit(aten.reshape.default, value, shape)
        else:
            device = val(emit.anchor).device
            number = float(element.value) * element.factor
            value = emit(aten.full.default, [1] * rank, number, dtype=torch.float64, device=device)
        self.bias = value if self.bias is None else emit(aten.add.Tensor, self.bias, value)
