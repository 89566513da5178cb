"""Emits a run of products as one: its weights folded in float64 and rounded once, its constants as one bias."""

from __future__ import annotations

import string
from collections.abc import Iterable

import torch
from torch import fx

from ...graph.emit import Emitter, Unrealizable
from ...graph.nodes import val
from ...graph.shapes import memory_format, same_sizes
from ...graph.weights import merged_name
from ...refusal import Refusal
from .contraction import Contraction, Labels
from .steps import Permute, Placed, Run, Scaled

aten = torch.ops.aten


def emit_run(emit: Emitter, run: Run) -> tuple[fx.Node, list[fx.Node]]:
    """Emit what a run amounts to.

    Returns:
        The result and the weights that it reads.

    Raises:
        Unrealizable: an operator would fix a size that may vary, or the memory format cannot be kept.
    """
    fold = _Fold(emit, run)
    for placed in run.placed:
        fold.add(placed)
    names = [step.weight for step in run.contractions]
    source = run.steps[0].operand
    dtype = val(source).dtype
    bias = None
    if fold.bias is not None:
        bias = emit.fold(emit.rounded(fold.bias, dtype), merged_name(run.weights(), "bias"))
    order = _of_batched_product(run)
    weight = fold.weight(order or run.matrix)
    weight = emit.fold(emit.rounded(weight, dtype), merged_name(names, "weight"))
    read = [weight, *([bias] if bias is not None else [])]
    if order is not None:
        return _as_before(emit, _batched(emit, source, weight, bias), run), read
    equation = _equation((run.source, run.matrix), run.result)
    result = emit.call(aten.einsum.default, {"equation": equation, "tensors": [source, weight]})
    if bias is not None:
        result = emit.call(aten.add.Tensor, {"self": result, "other": bias})
    return _as_before(emit, result, run), read


def _of_batched_product(run: Run) -> Labels | None:
    """The labels `batch, in, out` of the weight where the run is a `bmm`, and None where it is not."""
    if not len(run.source) == len(run.result) == len(run.matrix) == 3:
        return None
    (batch, rows, inputs), outputs = run.source, run.result[2]
    if run.result[:2] != (batch, rows) or set(run.matrix) != {batch, inputs, outputs} or outputs == inputs:
        return None
    return (batch, inputs, outputs)


def _batched(emit: Emitter, source: fx.Node, weight: fx.Node, bias: fx.Node | None) -> fx.Node:
    """One product a group; its fake value needs no kernel, so that no size is fixed."""
    value = val(source).new_empty((*val(source).shape[:2], val(weight).shape[2]))
    if bias is None:
        return emit.insert(aten.bmm.default, (source, weight), {}, value)
    return emit.insert(aten.baddbmm.default, (bias, source, weight), {}, value)


def _as_before(emit: Emitter, result: fx.Node, run: Run) -> fx.Node:
    value, before = val(result), val(run.last)
    if not same_sizes(value.shape, before.shape):
        raise Unrealizable(
            Refusal("unknown_shape", came=str(list(value.shape)), expected=str(list(before.shape)))
        )
    wanted = memory_format(before)
    if same_sizes(value.stride(), before.stride()) or (wanted and memory_format(value) == wanted):
        return result
    if wanted is None:
        raise Unrealizable(Refusal("product_strides", strides=str(tuple(before.stride()))))
    return emit.call(aten.clone.default, {"self": result, "memory_format": wanted})


def _equation(terms: Iterable[Labels], result: Labels) -> str:
    def spell(labels: Labels) -> str:
        return "".join(string.ascii_letters[label] for label in labels)

    return f"{','.join(map(spell, terms))}->{spell(result)}"


class _Fold:
    """The weights of the steps so far as one tensor, and their constants as one, in float64.

    The bias has the rank of the result, with size 1 along the axes on which it does not depend.
    """

    def __init__(self, emit: Emitter, run: Run) -> None:
        self.emit = emit
        self.run = run
        self.labels: Labels = ()
        self.product: fx.Node | None = None
        self.number = 1.0
        self.bias: fx.Node | None = None
        self.result = run.source

    def add(self, placed: Placed) -> None:
        """Compose with one more step."""
        step = placed.step
        if isinstance(step, Contraction):
            self._contract(step, placed)
        elif isinstance(step, Permute) and self.bias is not None:
            self.bias = self.emit(aten.permute.default, self.bias, list(step.order))
        self.result = placed.result
        if not isinstance(step, Permute):
            self._scale(step)

    def weight(self, order: Labels) -> fx.Node:
        """The product of the weights with its axes in an order."""
        product = self.product
        assert product is not None
        if order != self.labels:
            product = self.emit(aten.permute.default, product, [self.labels.index(label) for label in order])
        return product if self.number == 1 else self.emit(aten.mul.Tensor, product, self.number)

    def _contract(self, step: Contraction, placed: Placed) -> None:
        factor = self.emit.exact(step.weight)
        if self.bias is not None:
            self.bias = self._through(factor, placed)
        if self.product is None:
            self.product, self.labels = factor, placed.weight
            return
        summed = set(placed.weight) - set(placed.result) - set(self.run.source)
        every = dict.fromkeys((*self.labels, *placed.weight))
        labels = tuple(label for label in every if label not in summed)
        equation = _equation((self.labels, placed.weight), labels)
        self.product = self.emit(aten.einsum.default, equation, [self.product, factor])
        self.labels = labels

    def _through(self, factor: fx.Node, placed: Placed) -> fx.Node:
        """What a product makes of the bias."""
        assert self.bias is not None
        shape = val(self.bias).shape
        axes = [place for place, size in enumerate(shape) if size != 1]
        labels = tuple(self.result[place] for place in axes)
        bias = self.emit(aten.reshape.default, self.bias, [shape[place] for place in axes])
        known = {*labels, *placed.weight}
        left = tuple(label for label in placed.result if label in known)
        moved = self.emit(aten.einsum.default, _equation((labels, placed.weight), left), [bias, factor])
        sizes = dict(zip(left, val(moved).shape, strict=True))
        return self.emit(aten.reshape.default, moved, [sizes.get(label, 1) for label in placed.result])

    def _scale(self, step: Contraction | Scaled) -> None:
        if step.scale != 1:
            self.number *= step.scale
            if self.bias is not None:
                self.bias = self.emit(aten.mul.Tensor, self.bias, step.scale)
        if isinstance(step, Scaled) and step.number:
            device = val(self.emit.anchor).device
            shape = [1] * len(self.result)
            self._add(self.emit(aten.full.default, shape, step.number, dtype=torch.float64, device=device))
        if step.shift is None:
            return
        value = self.emit.exact(step.shift)
        if step.factor != 1:
            value = self.emit(aten.mul.Tensor, value, step.factor)
        missing = len(self.result) - val(value).dim()
        if missing:
            value = self.emit(aten.reshape.default, value, [1] * missing + list(val(value).shape))
        self._add(value)

    def _add(self, value: fx.Node) -> None:
        self.bias = value if self.bias is None else self.emit(aten.add.Tensor, self.bias, value)
