"""The linear maps around attention: where they are, and what taking one into another would cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from ...cost.flops import product_flops
from ...graph.arguments import packet
from ...graph.nodes import val
from ...graph.weights import Matrix
from ..algebra.elements import Apply
from ..algebra.readings import Maps, Moves
from ..algebra.values import Value, size_at
from ..read.trees import Builder
from .price import Costs

aten = torch.ops.aten
_VIEWS = (
    aten.transpose,
    aten.permute,
    aten.reshape,
    aten.view,
    aten.flatten,
    aten.contiguous,
    aten.clone,
)


@dataclass(frozen=True)
class Projection:
    """The linear map that an operand of attention comes from: `map_node` reads `source`, `views` lie between.

    With `split` the features are cut into heads on the way, which `views` does not tell.
    """

    map_node: fx.Node
    matrix: Matrix
    source: Value
    views: tuple[Moves, ...]
    split: bool = False


def projection(node: Any, builder: Builder) -> Projection | None:
    """Follow views along the last axis down to a plain linear map."""
    if not isinstance(node, fx.Node):
        return None
    value = Value(node, val(node).dim() - 1)
    views: list[Moves] = []
    heads_seen = False
    while True:
        reading = builder.reader.read(value)
        if isinstance(reading, Moves) and reading.view:
            views.append(reading)
            value = reading.operand
            continue
        if isinstance(reading, Maps) and reading.elements and isinstance(reading.elements[0], Apply):
            matrix = reading.elements[0].matrix
            return Projection(value.node, matrix, reading.operand, tuple(views), heads_seen)
        if isinstance(reading, Maps) and not reading.elements:
            value = reading.operand
            continue
        below = None if heads_seen else _split_into_heads(value.node)
        if below is None:
            return None
        heads_seen, value = True, Value(below, val(below).dim() - 1)


def _split_into_heads(node: fx.Node) -> fx.Node | None:
    """What a view that splits features into heads was taken of."""
    if packet(node) in (aten.transpose, aten.permute):
        return _split_into_heads(node.all_input_nodes[0])
    if packet(node) not in (aten.view, aten.reshape, aten.unflatten):
        return None
    source = node.all_input_nodes[0]
    return source if isinstance(source.meta.get("val"), torch.Tensor) and val(source).dim() else None


def price_of_keys(
    node: fx.Node, given: dict[str, Any], query: Projection, key: Projection, heads: int, costs: Costs
) -> tuple[float, float]:
    """Predicted seconds of both maps and the scores, now and with the key map taken into the query map."""
    wide, narrow = key.matrix.inputs, key.matrix.outputs // heads
    queries, keys = (size_at(val(given[name]).shape[-2], None) for name in ("query", "key"))
    batch = 1
    for size in val(given["query"]).shape[:-2]:
        batch *= size_at(size, None)
    scores = product_flops(batch, queries, keys) / costs.machine.flop_rate
    rows, key_rows = query.source.rows(), key.source.rows()
    before = costs.linear(rows, query.matrix.inputs, query.matrix.outputs)
    before += costs.linear(key_rows, key.matrix.inputs, key.matrix.outputs) + scores * narrow
    after = costs.linear(rows, query.matrix.inputs, heads * wide) + scores * wide
    return before, after


def price_of_values(node: fx.Node, given: dict[str, Any], builder: Builder, heads: int, costs: Costs) -> str:
    """What taking the output map into the value map of every head would cost, against both maps as they are."""
    value, output = projection(given["value"], builder), _output_map(node, builder)
    if value is None or output is None:
        return ""
    narrow, wide = value.matrix.outputs // heads, output.matrix.outputs
    queries, keys = (size_at(val(given[name]).shape[-2], None) for name in ("query", "key"))
    rows = value.source.rows()
    before = costs.linear(rows, value.matrix.inputs, value.matrix.outputs)
    before += costs.linear(rows, output.matrix.inputs, wide)
    average = product_flops(rows, heads, queries, wide - narrow) / costs.machine.flop_rate
    after = costs.linear(rows, value.matrix.inputs, heads * wide) + average
    after += (heads - 1) * costs.elementwise(rows // max(keys, 1) * queries, wide, 2)
    return (
        f"; taking the output map into the value map would make each head {wide} wide instead of {narrow}: "
        f"predicted {1e6 * after:.3g} us against {1e6 * before:.3g} us"
    )


def _output_map(node: fx.Node, builder: Builder) -> Projection | None:
    """The linear map that reads the result of attention, through nothing but views and copies."""
    current = node
    while len(builder.counted[current]) == 1:
        current = builder.counted[current][0]
        axis = builder.reader.map_axis(current)
        if axis is not None:
            elements = builder.reader.map_elements(current)
            if not isinstance(elements[0], Apply):
                return None
            source = Value(current.all_input_nodes[0], axis)
            return Projection(current, elements[0].matrix, source, ())
        if packet(current) not in _VIEWS:
            return None
    return None
