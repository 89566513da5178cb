"""Fold expressions: what a way through a region does to the features, as nodes computed from weights alone.

With every element a step `y = W x`, `y = x + b` or `y = s * x`, a way is `y = W x + b`, accumulated in float64:

    apply V:  W <- V W,        b <- V b
    shift v:                   b <- b + v
    scale s:  W <- diag(s) W,  b <- s b

A convolution has one matrix for each place of its kernel; `W` is then `[out, in, places]`.

A constant that a carry `T` was taken below, `T(x + v) = T x + v T(1)`, is a vector for each such `T(1)`, beside `b`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

import torch
from torch import fx

from ...graph.emit import Emitter
from ...graph.nodes import val
from .elements import Apply, Convolve, Deviation, Element, Pick, Scale, Shift, Structure
from .groups import by_group, ungrouped, untransposed
from .readings import Carried

aten = torch.ops.aten


class Composition:
    """`y = W x + b` in float64, one element after another; nodes that nothing reads are swept up later.

    Args:
        emit: where the nodes go.
        width: the width of `x`.
        constants: whether shifts count; without them the linear part alone results.
    """

    def __init__(self, emit: Emitter, width: int, constants: bool = True) -> None:
        self.emit = emit
        self.inputs = self.width = width
        self.columns = range(width)  # the features of `x` that `weight` has columns for
        self.weight: fx.Node | None = None  # None: the identity, times `scale`
        self.scale: fx.Node | float | None = None
        self.bias: fx.Node | None = None
        # Constants that vary by position, as `T(1)` does for each key.
        self.carried: dict[Carried, fx.Node] = {}
        self.along: Carried = ()  # which of them, if any, is added next
        self.constants = constants
        self.convolve: Convolve | None = None
        self.grouped = False
        self._embedding: tuple[int, int] | None = (
            None  # rows of `weight` are these of the features, the rest 0
        )

    def add(self, element: Element) -> None:
        """Compose with one more element."""
        if isinstance(element, Apply):
            self._apply(element)
        elif isinstance(element, Structure):
            self._multiply(element.matrix(self.emit), element.outputs)
        elif isinstance(element, Convolve):
            self._convolve(element)
        elif isinstance(element, Shift):
            self._shift(element)
        elif isinstance(element, Scale):
            self._scale(element)
        elif isinstance(element, Pick):
            self._pick(element)

    def after(self, other: Composition) -> None:
        """Compose with what was composed already, of the features as they are now."""
        self._multiply(other.matrix(), other.width)
        if self.constants and other.bias is not None:
            self._plus(other.bias)

    def copy(self) -> Self:
        """The same, to be composed with something else."""
        return copy.copy(self)

    def embed(self, start: int, width: int) -> None:
        """The features so far become those from `start` on of `width` features, the others 0."""
        self._spread()
        pads = [start, width - start - self.width]
        self._change_constants(lambda bias: self.emit(aten.constant_pad_nd.default, bias, pads))
        self._embedding = (start, self.width)
        self.width = width

    def matrix(self, reads: range | None = None) -> fx.Node:
        """`W`: `[out, in]`, or `[out, in, places]` behind a convolution.

        Args:
            reads: the only features of `x` that the way reads, which get the columns; None for all.
        """
        self._spread()
        if self.weight is None:
            eye = self._eye(self.width)
            self.weight = self._rows_times(eye, self.scale) if self.scale is not None else eye
        reads = range(self.inputs) if reads is None else reads
        if reads == self.columns:
            return self.weight
        if len(self.columns) < self.inputs:
            self._widen()
        return self.emit(aten.slice.Tensor, self.weight, 1, reads.start, reads.stop, reads.step)

    def _widen(self) -> None:
        """Give the features that were not picked columns of zeros."""
        assert self.weight is not None
        places = self.columns
        picked = self.emit(
            aten.slice.Tensor, self._eye(self.inputs), 0, places.start, places.stop, places.step
        )
        if val(self.weight).dim() == 2:
            self.weight = self.emit(aten.mm.default, self.weight, picked)
        else:
            self.weight = self.emit(aten.einsum.default, "oip,ij->ojp", [self.weight, picked])
        self.columns = range(self.inputs)

    def _eye(self, width: int) -> fx.Node:
        return self.emit(aten.eye.default, width, dtype=torch.float64, device=val(self.emit.anchor).device)

    def _spread(self) -> None:
        """Write the zeros of an embedding out."""
        if self._embedding is None:
            return
        (start, width), self._embedding = self._embedding, None
        inner = self.weight
        if inner is None:
            eye = self._eye(width)
            inner = self._rows_times(eye, self.scale) if self.scale is not None else eye
        pads = [0, 0] * (val(inner).dim() - 1) + [start, self.width - start - width]
        self.weight, self.scale = self.emit(aten.constant_pad_nd.default, inner, pads), None

    def _apply(self, element: Apply) -> None:
        factor = self.emit.double(element.matrix.node)
        if val(factor).dim() > 2:
            factor = self.emit(aten.reshape.default, factor, list(val(factor).shape[:2]))
        if element.matrix.transposed:
            factor = self.emit(aten.t.default, factor)
        self._multiply(factor, element.matrix.outputs)

    def _multiply(self, factor: fx.Node, outputs: int) -> None:
        emit = self.emit
        whole = factor
        self._change_constants(lambda bias: emit(aten.mv.default, whole, bias))
        if self._embedding is not None:
            start, width = self._embedding
            factor = emit(aten.slice.Tensor, factor, 1, start, start + width)
            self._embedding = None
        if self.weight is not None:
            self._densify()
            held = self.weight
            shape = list(val(held).shape)
            flat = held if len(shape) == 2 else emit(aten.reshape.default, held, [shape[0], -1])
            self.weight = emit(aten.mm.default, factor, flat)
            if len(shape) > 2:
                self.weight = emit(aten.reshape.default, self.weight, [outputs, *shape[1:]])
        else:
            self.weight = self._columns_times(factor, self.scale) if self.scale is not None else factor
        self.scale = None
        self.width = outputs

    def _convolve(self, element: Convolve) -> None:
        """`[out, in / groups, places]`; behind a matrix, its groups are written out as one."""
        emit, volume = self.emit, element.volume
        kernel = emit.double(element.weight)
        shape = [int(size) for size in val(kernel).shape]
        kernel = emit(aten.reshape.default, kernel, [*shape[:2], volume])
        self._spread()
        if element.transposed:
            kernel = untransposed(emit, kernel, element)
        self.convolve, self.grouped = element, element.groups > 1
        matrix = self.weight
        if matrix is not None:
            kernel = ungrouped(emit, kernel, element)
            self.grouped = False
        if self.bias is not None:
            weights = emit(aten.sum.dim_IntList, kernel, [2])
            if self.grouped:
                weights = emit(aten.mul.Tensor, weights, by_group(emit, self.bias, element))
                self.bias = emit(aten.sum.dim_IntList, weights, [1])
            else:
                self.bias = emit(aten.mv.default, weights, self.bias)
        if matrix is not None:
            inputs = int(val(matrix).shape[1])
            rows = emit(
                aten.reshape.default, emit(aten.permute.default, kernel, [0, 2, 1]), [-1, element.inputs]
            )
            product = emit(aten.mm.default, rows, matrix)
            product = emit(aten.reshape.default, product, [element.outputs, volume, inputs])
            kernel = emit(aten.permute.default, product, [0, 2, 1])
        elif self.scale is not None:
            by = self.scale
            if isinstance(by, fx.Node) and val(by).numel() > 1:
                by = emit(aten.unsqueeze.default, by_group(emit, by, element), 2)
            kernel = emit(aten.mul.Tensor, kernel, by)
        self.weight, self.scale, self.width = kernel, None, element.outputs

    def _densify(self) -> None:
        if self.grouped:
            assert self.convolve is not None and self.weight is not None
            self.weight = ungrouped(self.emit, self.weight, self.convolve)
            self.grouped = False

    def _shift(self, element: Shift) -> None:
        if not self.constants:
            return
        emit = self.emit
        if isinstance(element.value, fx.Node):
            value = self._vector(element.value)
            if val(value).numel() != self.width:
                value = emit(aten.expand.default, value, [self.width])
            if element.factor != 1:
                value = emit(aten.mul.Tensor, value, element.factor)
        else:
            device = val(emit.anchor).device
            number = float(element.value) * element.factor
            value = emit(aten.full.default, [self.width], number, dtype=torch.float64, device=device)
        self._plus(value)

    def _plus(self, constant: fx.Node) -> None:
        """Add a constant, along what it varies with."""
        before = self.carried.get(self.along) if self.along else self.bias
        total = constant if before is None else self.emit(aten.add.Tensor, before, constant)
        if self.along:
            self.carried = {**self.carried, self.along: total}
        else:
            self.bias = total

    def _change_constants(self, change: Callable[[fx.Node], fx.Node]) -> None:
        self.bias = None if self.bias is None else change(self.bias)
        self.carried = {along: change(vector) for along, vector in self.carried.items()}

    def _scale(self, element: Scale) -> None:
        emit = self.emit
        if self._embedding is not None:
            self._spread()
        by: fx.Node | float
        if isinstance(element.value, Deviation):
            variance = self._vector(element.value.variance)
            by = emit(aten.sqrt.default, emit(aten.add.Tensor, variance, element.value.eps))
        elif isinstance(element.value, fx.Node):
            by = self._vector(element.value)
        else:
            by = float(element.value)
        operator = aten.div.Tensor if element.inverse else aten.mul.Tensor
        self._change_constants(lambda bias: emit(operator, bias, by))
        if self.weight is not None:
            self.weight = self._rows_times(self.weight, by, operator)
        elif self.scale is None:
            self.scale = self._inverted(by) if element.inverse else by
        elif isinstance(self.scale, fx.Node):
            self.scale = emit(operator, self.scale, by)
        elif isinstance(by, fx.Node):
            self.scale = emit(aten.mul.Tensor, self._inverted(by) if element.inverse else by, self.scale)
        else:
            self.scale = self.scale / by if element.inverse else self.scale * by

    def _inverted(self, by: fx.Node | float) -> fx.Node | float:
        return self.emit(aten.reciprocal.default, by) if isinstance(by, fx.Node) else 1.0 / by

    def _pick(self, element: Pick) -> None:
        emit = self.emit
        self._spread()
        chosen = range(element.start, element.stop, element.step)

        def part(node: fx.Node) -> fx.Node:
            return emit(aten.slice.Tensor, node, 0, element.start, element.stop, element.step)

        self._densify()
        if self.weight is not None:
            self.weight = part(self.weight)
        else:  # what is not picked is never read
            self.columns = self.columns[element.start : element.stop : element.step]
            if isinstance(self.scale, fx.Node) and val(self.scale).numel() > 1:
                self.scale = part(self.scale)
        self._change_constants(part)
        self.width = len(chosen)

    def _rows_times(self, matrix: fx.Node, by: fx.Node | float | None, operator: object = None) -> fx.Node:
        if isinstance(by, fx.Node) and val(by).numel() > 1:
            by = self.emit(aten.reshape.default, by, [-1] + [1] * (val(matrix).dim() - 1))
        return self.emit(operator or aten.mul.Tensor, matrix, by)

    def _columns_times(self, matrix: fx.Node, by: fx.Node | float | None) -> fx.Node:
        return self.emit(aten.mul.Tensor, matrix, by)

    def _vector(self, value: fx.Node) -> fx.Node:
        exact = self.emit.double(value)
        return exact if val(exact).dim() == 1 else self.emit(aten.reshape.default, exact, [-1])
