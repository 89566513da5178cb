"""The pass `weight_expressions`: what a graph computes from weights alone is computed once, not at every call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx

from .cost.flops import is_product, passed
from .graph.arguments import aliases, is_operator
from .graph.effects import Effects, effects, storage, storages
from .graph.nodes import val
from .graph.shapes import entries
from .graph.weights import expressions, is_leaf, leaves, owner, weight_only_nodes
from .linear.plan.price import Costs
from .linear.read.obstacles import call, kept_or_changed, trained
from .refusal import Refusal
from .site import Context, Site, refused_site

# A value may be so many times as large as the weights that it is computed from, or have so many entries.
_GROWTH, _SMALL = 16, 2**16


class WeightExpressions:
    """Folds `weight_norm`, `exp(scale)`, dequantised weights and the like, where they are not part of a merged map.

    The value is the one that the graph computes: every operation in its own dtype, in the same order.
    """

    name = "weight_expressions"
    targets = ("weight_expression",)

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Mark every expression of a graph as a fold and return the sites, folded and refused."""
        graph = module.graph
        facts = effects(graph)
        returned: set[int] = set()
        for node in graph.output_node().all_input_nodes:
            returned |= storages(node)
        found = [
            node for node in _found(graph) if storage(node) not in returned
        ]  # a caller may write to those
        return [_visit(node, facts, context) for node in found]


WEIGHT_EXPRESSIONS = WeightExpressions()


def _found(graph: fx.Graph) -> list[fx.Node]:
    """The values computed from weights alone that something else reads, below the views that it reads them through."""
    fixed = weight_only_nodes(graph)
    folded: set[fx.Node] = set()  # computed once already
    for node in reversed(list(graph.nodes)):
        if "fold" in node.meta or (node.users and folded.issuperset(node.users)):
            folded.add(node)
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node in fixed and node not in folded and any(user not in fixed for user in node.users):
            while _shows(node):
                node = node.all_input_nodes[0]
            if not is_leaf(node) and node not in folded and _fits(node):
                found[node] = None
    return list(found)


def _shows(node: fx.Node) -> bool:
    """Whether a node only shows entries of its operand."""
    if is_leaf(node) or len(node.all_input_nodes) != 1:
        return False
    operand = node.all_input_nodes[0].meta.get("val")
    if not isinstance(node.meta.get("val"), torch.Tensor):
        return False
    if isinstance(operand, torch.Tensor):
        # What may be a view, such as `contiguous` or `to`, is one only where it has the memory of its operand.
        strided = operand.layout == val(node).layout == torch.strided
        if not strided or storage(node.all_input_nodes[0]) != storage(node):
            return False
    return not is_operator(node) or aliases(node.target)


def _fits(node: fx.Node) -> bool:
    """Whether a value is a real tensor of a fixed size that is not much larger than what it comes from."""
    tensor = node.meta.get("val")
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or "fold" in node.meta:
        return False
    if tensor.layout != torch.strided or not all(isinstance(size, int) for size in tensor.shape):
        return False
    # A parameter of one number spares next to nothing, and FSDP takes none without dimensions.
    if tensor.numel() == 1:
        return False
    known = sum(val(leaf).numel() * val(leaf).itemsize for leaf in leaves([node]))
    return tensor.numel() <= _SMALL or tensor.numel() * tensor.itemsize <= _GROWTH * known


def _visit(node: fx.Node, facts: Effects, context: Context) -> Site:
    read = leaves([node])
    computed = sorted(each for each in expressions([node]) if not is_leaf(each))
    site = refused_site(
        WeightExpressions.name, "weight_expression", computed, [node], line=node, output=node, inputs=read
    )
    costs = Costs.of(val(node), context)
    steps = [each for each in computed if not _shows(each)]
    spared = _spared(node, steps, costs)
    looks = costs.looks([node])
    what = ", ".join(dict.fromkeys(map(call, steps)))
    site = replace(site, seconds_before=spared, seconds_after=looks)
    reason = (
        context.denied.get(site.key, "")
        or (trained(read) if context.grad else "")
        or kept_or_changed([node], facts, context)
        or (
            Refusal("expression_no_faster", what=what, cost=1e6 * spared, looks=1e6 * looks)
            if spared <= looks
            else ""
        )
    )
    if reason:
        return replace(site, reason=reason)
    names = "+".join(dict.fromkeys(owner(leaf) for leaf in read))
    node.meta["fold"] = f"{names}.{node.name}"
    node.meta["as_it_was"] = True  # nothing is composed and rounded, so that there is no range to watch
    return replace(
        site,
        status="rewritten",
        reason=f"{what} of weights alone: computed once",
        params_after=val(node).numel(),
        replacement=site.output,
        bound=0.0,
    )


def _spared(node: fx.Node, steps: Sequence[fx.Node], costs: Costs) -> float:
    """Predicted seconds of the steps that compute a value, where they are not done along with what reads it."""
    seconds = sum(costs.elementwise(passed(each), 1) for each in steps)
    fused = costs.fuses and not any(is_product(user) for user in _readers(node))
    return seconds - costs.elementwise(entries(val(node)), 1) if fused else seconds


def _readers(node: fx.Node) -> list[fx.Node]:
    """What reads a value, itself or entries of it that a view shows."""
    return [
        reader
        for user in node.users
        for reader in (_readers(user) if is_operator(user) and aliases(user.target) else [user])
    ]
