"""Attention in affine algebra: what it does to its values, and when the key map may move into the query map.

`softmax(q k^T) v` is linear in `v` along the sequence, so a map of the features of one head commutes with it, and the
output map can be taken into the value map. The scores are `q_i . (W y_j + b) = (W^T q_i) . y_j + q_i . b`; the last
term is the same for every key `j`, and softmax does not see it, so that the key map can be taken into the query map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from ..arguments import named_arguments, packet
from ..regions import regions as graph_facts
from ..rewrite import Context, Site, source_line, val
from ..shapes import expression
from .bound import merge_bound
from .costs import Costs
from .describe import common_path
from .elements import Apply
from .emit import Emitter, Unrealizable
from .obstacles import trained
from .reader import Reader
from .readings import Maps, Moves
from .realize import erase_dead
from .regions import users
from .tree import Builder
from .values import Value, size_at
from .weights import Matrix, leaves

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


class Attention:
    """Takes the key map of attention with one head into its query map; prices the same for several heads.

    With several heads each head would need a map as wide as the model, so that the sum of their work is larger than
    what is saved; such a site is reported with the figures. The value map meets the output map in `linear_chains`.
    """

    name = "attention"
    targets = ("attention",)

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite attention in place and return a site for every attention between linear maps."""
        facts = graph_facts(module.graph)
        reader = Reader(module.graph, facts, context)
        builder = Builder(reader, users(module.graph))
        sites = []
        for node in list(module.graph.nodes):
            if packet(node) is aten.scaled_dot_product_attention and node not in facts.autocast:
                site = _visit(node, builder, context)
                if site is not None:
                    sites.append(site)
        module.graph.lint()
        module.recompile()
        return sites


ATTENTION = Attention()


@dataclass(frozen=True)
class _Projection:
    """The linear map that an operand of attention comes from: `map_node` reads `source`, `views` lie between.

    With `split` the features are cut into heads on the way, which `views` does not tell.
    """

    map_node: fx.Node
    matrix: Matrix
    source: Value
    views: tuple[Moves, ...]
    split: bool = False


def _visit(node: fx.Node, builder: Builder, context: Context) -> Site | None:
    given = named_arguments(node)
    query, key = (_projection(given[name], builder) for name in ("query", "key"))
    if query is None or key is None:
        return None
    heads = query.matrix.outputs // int(expression(val(given["query"]).shape[-1]))
    costs = Costs.of(Value(node, val(node).dim() - 1), context.machine, context.inner)
    before, after = _price(node, given, query, key, heads, costs)
    site = _site(node, query, key)
    figures = f"predicted {1e6 * after:.3g} us against {1e6 * before:.3g} us as it stands"
    width = key.matrix.inputs
    reason = context.denied.get(site.key) or (trained(_weights(query, key)) if context.grad else "")
    if not reason and heads == 1 and key.split:
        reason = "the features of the key are viewed in a way that its map does not commute with"
    if not reason and heads > 1:
        reason = (
            f"taking the key map into the query map would make each of {heads} heads {width} features wide instead "
            f"of {key.matrix.outputs // heads}: {figures}{_price_of_values(node, given, builder, heads, costs)}"
        )
    if not reason and any(len(builder.counted[each]) > 1 for each in _exclusive(given["key"], key)):
        reason = "the key map is read by something else too, so it has to be computed"
    if not reason and width != key.matrix.outputs:
        reason = (
            f"the key map changes the width, {width} -> {key.matrix.outputs}, which query and value share"
        )
    if not reason and after > 0.98 * before:
        reason = f"taking the key map into the query map would be no faster: {figures}"
    if reason:
        return replace(site, reason=reason)
    try:
        _rewrite(node, given, key)
    except Unrealizable as problem:
        return replace(site, reason=f"{problem}, so attention is left as it is")
    return replace(
        site,
        status="rewritten",
        reason=f"the key map {width} -> {width} is applied to the query instead, next to the query map; {figures}",
        replacement=site.output,
        bound=2 * merge_bound([width, width], val(node).dtype),
    )


def _projection(node: Any, builder: Builder) -> _Projection | None:
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
            return _Projection(value.node, matrix, reading.operand, tuple(views), heads_seen)
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


def _exclusive(node: fx.Node, projection: _Projection) -> list[fx.Node]:
    return [projection.map_node, *(view.node for view in projection.views if view.node is not node), node]


def _price(
    node: fx.Node, given: dict[str, Any], query: _Projection, key: _Projection, heads: int, costs: Costs
) -> tuple[float, float]:
    """Predicted seconds of both maps and the scores, now and with the key map taken into the query map."""
    wide, narrow = key.matrix.inputs, key.matrix.outputs // heads
    queries, keys = (size_at(val(given[name]).shape[-2], None) for name in ("query", "key"))
    batch = 1
    for size in val(given["query"]).shape[:-2]:
        batch *= size_at(size, None)
    scores = 2 * batch * queries * keys / costs.machine.flop_rate
    rows, key_rows = query.source.rows(), key.source.rows()
    before = costs.linear(rows, query.matrix.inputs, query.matrix.outputs)
    before += costs.linear(key_rows, key.matrix.inputs, key.matrix.outputs) + scores * narrow
    after = costs.linear(rows, query.matrix.inputs, heads * wide) + scores * wide
    return before, after


def _price_of_values(node: fx.Node, given: dict[str, Any], builder: Builder, heads: int, costs: Costs) -> str:
    """What taking the output map into the value map of every head would cost, against both maps as they are."""
    value, output = _projection(given["value"], builder), _output_map(node, builder)
    if value is None or output is None:
        return ""
    narrow, wide = value.matrix.outputs // heads, output.matrix.outputs
    queries, keys = (size_at(val(given[name]).shape[-2], None) for name in ("query", "key"))
    rows = value.source.rows()
    before = costs.linear(rows, value.matrix.inputs, value.matrix.outputs)
    before += costs.linear(rows, output.matrix.inputs, wide)
    average = 2 * rows * heads * queries * (wide - narrow) / costs.machine.flop_rate
    after = costs.linear(rows, value.matrix.inputs, heads * wide) + average
    after += (heads - 1) * costs.elementwise(rows // max(keys, 1) * queries, wide, 2)
    return (
        f"; taking the output map into the value map would make each head {wide} wide instead of {narrow}: "
        f"predicted {1e6 * after:.3g} us against {1e6 * before:.3g} us"
    )


def _output_map(node: fx.Node, builder: Builder) -> _Projection | None:
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
            return _Projection(current, elements[0].matrix, source, ())
        if packet(current) not in _VIEWS:
            return None
    return None


def _rewrite(node: fx.Node, given: dict[str, Any], key: _Projection) -> None:
    """`attention(q, W y + b, v)` becomes `attention(W^T q, y, v)`."""
    emit = Emitter(node)
    weight = key.matrix.node
    if val(weight).dim() > 2:  # of a convolution that looks at a single place
        weight = emit(aten.reshape.default, weight, list(val(weight).shape[:2]))
    if not key.matrix.transposed:
        weight = emit(aten.t.default, weight)
    query = given["query"]
    shape = val(query).shape
    value = val(query).new_empty(shape)
    moved = emit.insert(aten.linear.default, (query, weight, None), {}, value)
    try:
        current = key.source.node
        for view in reversed(key.views):
            current = view.replay(emit, current, key.matrix.inputs)
    except Unrealizable:
        emit.sweep()
        raise
    arguments = {**given, "query": moved, "key": current}
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    node.args = tuple(arguments[a.name] for a in schema if not a.kwarg_only and a.name in arguments)
    node.kwargs = {a.name: arguments[a.name] for a in schema if a.kwarg_only and a.name in arguments}
    erase_dead([given["key"]])


def _weights(query: _Projection, key: _Projection) -> Sequence[fx.Node]:
    return [query.matrix.node, key.matrix.node]


def _site(node: fx.Node, query: _Projection, key: _Projection) -> Site:
    maps = [query.map_node, key.map_node]
    weights = leaves(weight for each in maps for weight in each.all_input_nodes[1:])
    parameters = sum(val(weight).numel() for weight in weights)
    region = _between(node, {query.source.node, key.source.node})
    return Site(
        pass_name=Attention.name,
        target="attention",
        status="refused",
        module_path=common_path([*maps, node], weights),
        source=source_line(node),
        nodes=tuple(each.name for each in [*maps, node]),
        params_before=parameters,
        params_after=parameters,
        inputs=tuple(each.name for each in region),
        output=node.name,
    )


def _between(node: fx.Node, sources: set[fx.Node]) -> list[fx.Node]:
    """What attention is computed from: the sources of its maps, its other operands, weights, and sizes."""
    found: dict[fx.Node, None] = dict.fromkeys(sources)
    stack = list(node.all_input_nodes)
    operands = named_arguments(node)
    apart = {operands["value"], operands.get("attn_mask")} - {None}
    seen: set[fx.Node] = set()
    while stack:
        current = stack.pop()
        if current in seen or current in found:
            continue
        seen.add(current)
        plain = current.op != "call_function" or current in apart
        if plain or not isinstance(current.meta.get("val"), torch.Tensor):
            found[current] = None
        else:
            stack += current.all_input_nodes
    return list(found)
