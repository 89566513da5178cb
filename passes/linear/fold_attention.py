"""Attention in affine algebra: what it does to its values, and when the key map may move into the query map.

`softmax(q k^T) v` is linear in `v` along the sequence, so a map of the features of one head commutes with it, and the
output map can be taken into the value map. The scores are `q_i . (W y_j + b) = (W^T q_i) . y_j + q_i . b`; the last
term is the same for every key `j`, and softmax does not see it, so that the key map can be taken into the query map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx

from ..graph.arguments import named_arguments, packet
from ..graph.effects import effects
from ..graph.emit import Emitter, Unrealizable
from ..graph.nodes import val
from ..graph.shapes import expression
from ..graph.weights import leaves
from ..refusal import PREDICTED, Refusal
from ..site import Context, Site, refused_site
from .algebra.bound import merge_bound
from .build.replace import erase_dead
from .plan.price import Costs
from .plan.projections import Projection, price_of_keys, price_of_values, projection
from .read.obstacles import trained
from .read.reader import Reader
from .read.regions import users
from .read.trees import Builder

aten = torch.ops.aten


class Attention:
    """Takes the key map of attention with one head into its query map; prices the same for several heads.

    With several heads each head would need a map as wide as the model, so that the sum of their work is larger than
    what is saved; such a site is reported with the figures. The value map meets the output map in `linear_chains`.
    """

    name = "attention"
    targets = ("attention",)

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite attention in place and return a site for every attention between linear maps."""
        facts = effects(module.graph)
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


def _visit(node: fx.Node, builder: Builder, context: Context) -> Site | None:
    given = named_arguments(node)
    query, key = (projection(given[name], builder) for name in ("query", "key"))
    if query is None or key is None:
        return None
    heads = query.matrix.outputs // int(expression(val(given["query"]).shape[-1]))
    costs = Costs.of(val(node), context)
    before, after = price_of_keys(node, given, query, key, heads, costs)
    after += costs.looks(_weights(query, key))
    site = replace(_site(node, query, key), seconds_before=before, seconds_after=after)
    told = {"after": 1e6 * after, "before": 1e6 * before}
    figures = PREDICTED.format(**told)
    width = key.matrix.inputs
    reason = context.denied.get(site.key) or (trained(_weights(query, key)) if context.grad else "")
    if not reason and heads == 1 and key.split:
        reason = Refusal("viewed_key")
    if not reason and heads > 1:
        values = price_of_values(node, given, builder, heads, costs)
        narrow = key.matrix.outputs // heads
        reason = Refusal("key_map_of_heads", heads=heads, width=width, narrow=narrow, values=values, **told)
    if not reason and any(len(builder.counted[each]) > 1 for each in _exclusive(given["key"], key)):
        reason = Refusal("shared_key")
    if not reason and width != key.matrix.outputs:
        reason = Refusal("key_width", inputs=width, outputs=key.matrix.outputs)
    if not reason and after > 0.98 * before:
        reason = Refusal("key_map_no_faster", **told)
    if reason:
        return replace(site, reason=reason)
    try:
        _rewrite(node, given, key)
    except Unrealizable as problem:
        return replace(site, reason=problem.refusal)
    return replace(
        site,
        status="rewritten",
        reason=f"the key map {width} -> {width} is applied to the query instead, next to the query map; {figures}",
        replacement=site.output,
        bound=2 * merge_bound([width, width], val(node).dtype),
    )


def _exclusive(node: fx.Node, projection: Projection) -> list[fx.Node]:
    return [projection.map_node, *(view.node for view in projection.views if view.node is not node), node]


def _rewrite(node: fx.Node, given: dict[str, Any], key: Projection) -> None:
    """`attention(q, W y + b, v)` becomes `attention(W^T q, y, v)`."""
    emit = Emitter(node, what="attention is")
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


def _weights(query: Projection, key: Projection) -> Sequence[fx.Node]:
    return [query.matrix.node, key.matrix.node]


def _site(node: fx.Node, query: Projection, key: Projection) -> Site:
    maps = [query.map_node, key.map_node]
    return refused_site(
        Attention.name,
        "attention",
        [*maps, node],
        leaves(weight for each in maps for weight in each.all_input_nodes[1:]),
        line=node,
        output=node,
        inputs=_between(node, {query.source.node, key.source.node}),
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
