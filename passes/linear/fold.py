"""Fold expressions: what a run of steps does to the features, as nodes computed from weights alone.

With every step a term `y = W x`, `y = x + b` or `y = s * x`, a run of steps is `y = W x + b`, accumulated in
float64 and rounded once to the dtype of the weights:

    apply V:  W <- V W,        b <- V b
    shift v:                   b <- b + v
    scale s:  W <- diag(s) W,  b <- s b
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx

from ..rewrite import val
from .emit import Emitter
from .steps import Apply, Scale, Shift, Step, Term
from .weights import Matrix, merged_name

aten = torch.ops.aten


def fold(
    emit: Emitter, steps: Sequence[Step], dtype: torch.dtype, *, ahead: fx.Node | None = None
) -> tuple[fx.Node, fx.Node | None, fx.Node | None]:
    """Emit the weight `[out, in]` and the bias `[out]` (or None) of a run of steps that begins with a map.

    A run that is one map is not computed anew: its own weight and bias are returned as they are.

    Args:
        emit: where the nodes go.
        steps: the steps; the first holds a matrix.
        dtype: what the results are rounded to.
        ahead: a bias in float64, `[in]`, that is added before the first map.

    Returns:
        The weight, the bias, and the bias before rounding, in float64.
    """
    terms = [term for step in steps for term in step.terms]
    matrices = [term.matrix for term in terms if isinstance(term, Apply)]
    state = _Accumulator(emit, ahead)
    for term in terms:
        state.add(term)
    nodes = [matrix.node for matrix in matrices]
    untouched = len(matrices) == 1 and not any(isinstance(term, Scale) for term in terms)
    if untouched:
        weight = _as_it_is(emit, matrices[0])
    else:
        weight = emit.fold(emit.rounded(state.weight, dtype), merged_name(nodes, "weight"))
    bias = _own_bias(terms, dtype) if untouched and ahead is None else None
    if bias is None and state.bias is not None:
        bias = emit.fold(emit.rounded(state.bias, dtype), merged_name(nodes, "bias"))
    return weight, bias, state.bias


def _as_it_is(emit: Emitter, matrix: Matrix) -> fx.Node:
    if not matrix.transposed:
        return matrix.node
    return emit.fold(emit(aten.t.default, matrix.node), merged_name([matrix.node], "weight"))


def _own_bias(terms: Sequence[Term], dtype: torch.dtype) -> fx.Node | None:
    """The only shift's value, where it is a bias vector already."""
    shifts = [term for term in terms if isinstance(term, Shift)]
    if len(shifts) != 1 or shifts[0].factor != 1 or not isinstance(shifts[0].value, fx.Node):
        return None
    value, outputs = shifts[0].value, next(t.matrix.outputs for t in terms if isinstance(t, Apply))
    fits = val(value).dtype == dtype and tuple(val(value).shape) == (outputs,)
    return value if fits else None


class _Accumulator:
    """`W` and `b` in float64, one term after another; emitted nodes that nothing reads are swept up later."""

    def __init__(self, emit: Emitter, ahead: fx.Node | None) -> None:
        self.emit = emit
        self.weight: fx.Node | None = None
        self.bias = ahead

    def add(self, term: Term) -> None:
        if isinstance(term, Apply):
            self._apply(term)
        elif isinstance(term, Shift):
            self._shift(term)
        else:
            self._scale(term)

    def _apply(self, term: Apply) -> None:
        emit = self.emit
        factor = emit.double(term.matrix.node)
        if term.matrix.transposed:
            factor = emit(aten.t.default, factor)
        self.weight = factor if self.weight is None else emit(aten.mm.default, factor, self.weight)
        if self.bias is not None:
            self.bias = emit(aten.mv.default, factor, self.bias)

    def _shift(self, term: Shift) -> None:
        emit = self.emit
        width = self._width()
        if isinstance(term.value, fx.Node):
            value = self._vector(term.value)
            if val(value).numel() != width:
                value = emit(aten.expand.default, value, [width])
            if term.factor != 1:
                value = emit(aten.mul.Tensor, value, term.factor)
        else:
            device = val(self._held()).device
            number = float(term.value) * term.factor
            value = emit(aten.full.default, [width], number, dtype=torch.float64, device=device)
        self.bias = value if self.bias is None else emit(aten.add.Tensor, self.bias, value)

    def _scale(self, term: Scale) -> None:
        emit = self.emit
        operator = aten.div.Tensor if term.inverse else aten.mul.Tensor
        by = self._vector(term.value) if isinstance(term.value, fx.Node) else float(term.value)
        column = emit(aten.unsqueeze.default, by, 1) if isinstance(by, fx.Node) else by
        self.weight = emit(operator, self._held(), column)
        if self.bias is not None:
            self.bias = emit(operator, self.bias, by)

    def _vector(self, value: fx.Node) -> fx.Node:
        exact = self.emit.double(value)
        return exact if val(exact).dim() == 1 else self.emit(aten.reshape.default, exact, [-1])

    def _held(self) -> fx.Node:
        assert self.weight is not None, "a run of steps begins with a map"
        return self.weight

    def _width(self) -> int:
        return int(val(self._held()).shape[0])
