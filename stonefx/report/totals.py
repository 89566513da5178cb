"""Parameters, floating-point operations and memory traffic of a graph, from the shapes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx

from stonefx.report.structure import (
    hidden_by_folds,
    is_fold,
    is_stored,
    numel_hint,
    size_hint,
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
            parameters += sum(numel_hint(value) for value in values if value.is_floating_point())
        elif node.op == "call_function" and not is_fold(node) and not _is_view(node.target):
            flops += _flops(node)
            touched = [*node.all_input_nodes, node]
            values = [value for one in touched for value in tensors_in(one.meta.get("val"))]
            moved += sum(numel_hint(value) * value.element_size() for value in values)
    return Totals(parameters=parameters, flops=flops, bytes=moved)


def _is_view(target: object) -> bool:
    """Whether an operator returns its input's memory, by its schema; callables without one move nothing."""
    if not isinstance(target, torch._ops.OpOverload):
        return True
    aliases = [argument.alias_info for argument in target._schema.arguments]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _flops(node: fx.Node) -> int:
    operands = [tensors_in(value.meta.get("val")) for value in node.all_input_nodes]
    inputs = [value for group in operands for value in group]
    outputs = tensors_in(node.meta.get("val"))
    if not outputs:
        return 0
    name = node.target._schema.name if isinstance(node.target, torch._ops.OpOverload) else ""
    count = _FLOPS.get(name)
    if count is not None:
        return count(inputs, outputs[0])
    return max(numel_hint(value) for value in [*inputs, *outputs])


def _product(inner: torch.Tensor) -> Callable[[torch.Tensor], int]:
    return lambda output: 2 * numel_hint(output) * size_hint(inner.shape[-1])


def _attention(inputs: list[torch.Tensor], output: torch.Tensor) -> int:
    query, key = inputs[0], inputs[1]
    return 4 * numel_hint(query) * size_hint(key.shape[-2])


def _convolution(inputs: list[torch.Tensor], output: torch.Tensor) -> int:
    weight = inputs[1]
    return 2 * numel_hint(output) * numel_hint(weight) // max(size_hint(weight.shape[0]), 1)


def _low_rank(inputs: list[torch.Tensor], output: torch.Tensor) -> int:
    x, a, b = inputs[0], inputs[1], inputs[2]
    rows = numel_hint(x) // max(size_hint(x.shape[-1]), 1)
    return 2 * rows * (numel_hint(a) + numel_hint(b))


# The fused row maps count the norm (two an element) and the scaling (one); the addition has three inner
# products and a combination of two rows.
_FLOPS: dict[str, Callable[[list[torch.Tensor], torch.Tensor], int]] = {
    **dict.fromkeys(
        ("aten::linear", "aten::mm", "aten::matmul", "aten::bmm"),
        lambda inputs, output: _product(inputs[0])(output),
    ),
    **dict.fromkeys(("aten::addmm", "aten::baddbmm"), lambda inputs, output: _product(inputs[1])(output)),
    **dict.fromkeys(("aten::conv1d", "aten::conv2d", "aten::conv3d", "aten::convolution"), _convolution),
    "aten::scaled_dot_product_attention": _attention,
    **dict.fromkeys(
        (
            f"stone::{name}{suffix}"
            for name in ("low_rank_linear", "pifa_linear")
            for suffix in ("", "_forward")
        ),
        _low_rank,
    ),
    **dict.fromkeys(
        ("stone::expmap0", "stone::expmap0_forward", "stone::logmap0", "stone::logmap0_forward"),
        lambda inputs, output: 3 * numel_hint(output),
    ),
    **dict.fromkeys(
        ("stone::mobius_add", "stone::mobius_add_forward"), lambda inputs, output: 9 * numel_hint(output)
    ),
}
