"""Why products with batches of matrices must stay as they are, whatever they cost."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx

from ...graph.effects import Effects
from ...graph.nodes import val
from ...refusal import Refusal
from ...site import Context
from ..read.obstacles import kept_or_changed, trained


def contraction_obstacle(
    nodes: Sequence[fx.Node],
    weights: Sequence[fx.Node],
    sources: Sequence[fx.Node],
    fixed: set[fx.Node],
    facts: Effects,
    context: Context,
) -> str:
    """Why some products must not become one; empty if they may.

    Args:
        nodes: what would be replaced, in the order of the graph.
        weights: what they read of weights.
        sources: the values that they read.
        fixed: the nodes that depend on weights alone.
        facts: what the graph does around each node.
        context: what the pass was told.
    """
    problem = trained(weights) if context.grad else ""
    if problem:
        return problem
    if any(node in facts.autocast for node in nodes):
        return Refusal("autocast_product")
    if len({node in facts.no_grad for node in nodes}) > 1:
        return Refusal("gradient_mode", what="products")
    if not val(nodes[-1]).dtype.is_floating_point:
        return Refusal("product_dtype", dtype=str(val(nodes[-1]).dtype).removeprefix("torch."))
    for weight in weights:
        if weight not in fixed:
            return Refusal("run_time_product", weight=weight.name)
    problem = kept_or_changed(weights, facts, context)
    if problem:
        return problem
    for node in nodes:
        if facts.writer(node) is not None:
            return Refusal("value_changed", role="value", value=node.name, at="")
    for source in sources:
        if facts.written_between(source, nodes[0], nodes[-1]) is not None:
            return Refusal(
                "read_value_changed", value=source.name, readers="the products", when="before their end"
            )
    return ""
