"""Parameters, floating-point operations and memory traffic of a graph, from the shapes alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import fx

from stonefx.passes.cost.flops import node_flops
from stonefx.passes.graph.shapes import entries
from stonefx.passes.hyperbolic.formulas import FORMULAS
from stonefx.passes.hyperbolic.price import operator_flops
from stonefx.report.structure import (
    hidden_by_folds,
    is_fold,
    is_stored,
    stored_behind,
    tensors_in,
)


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What one call of a graph needs; sums with `+`.

    Args:
        parameters: elements of the floating-point weights and buffers that are read.
        flops: floating-point operations, a multiply-add counted as two.
        bytes: bytes read and written, every operand and every result of every node that computes something.

    >>> Totals(parameters=1, flops=2, bytes=3) + Totals(parameters=10, flops=20, bytes=30)
    Totals(parameters=11, flops=22, bytes=33)
    """

    parameters: int = 0
    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            parameters=self.parameters + other.parameters,
            flops=self.flops + other.flops,
            bytes=self.bytes + other.bytes,
        )


def graph_totals(module: fx.GraphModule) -> Totals:
    """Count a graph's parameters, FLOPs and bytes; symbolic sizes count as the hint they were traced with.

    Weights that only feed a fold are not counted, the folded value is.

    >>> graph_totals(fx.symbolic_trace(torch.nn.Identity()))
    Totals(parameters=0, flops=0, bytes=0)
    """
    hidden = hidden_by_folds(module.graph)
    parameters = flops = moved = 0
    for node in module.graph.nodes:
        if node in hidden:
            continue
        if is_stored(node) or (is_fold(node) and stored_behind(node)):
            values = tensors_in(node.meta.get("val"))
            parameters += sum(entries(value) for value in values if value.is_floating_point())
        elif node.op == "call_function" and not is_fold(node) and not _is_view(node.target):
            flops += _flops(node)
            touched = [*node.all_input_nodes, node]
            values = [value for one in touched for value in tensors_in(one.meta.get("val"))]
            moved += sum(entries(value) * value.element_size() for value in values)
    return Totals(parameters=parameters, flops=flops, bytes=moved)


def _is_view(target: object) -> bool:
    """Whether an operator returns its input's memory, by its schema; callables without one move nothing."""
    if not isinstance(target, torch._ops.OpOverload):
        return True
    aliases = [argument.alias_info for argument in target._schema.arguments]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _flops(node: fx.Node) -> int:
    """The operations of a node, of our operators those that their formulas state."""
    name = node.target._schema.name if isinstance(node.target, torch._ops.OpOverload) else ""
    formula = name.removeprefix("stone::").removesuffix("_forward")
    operands = [value for each in node.all_input_nodes for value in tensors_in(each.meta.get("val"))]
    if name.startswith("stone::") and formula in FORMULAS:
        return operator_flops(formula, operands[0], tensors_in(node.meta["val"])[0])
    return node_flops(node)
