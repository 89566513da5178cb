"""The pass `linear_contraction_sums`: products of one value with batches of matrices, added up, become one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import fx

from ..graph.effects import Effects, effects
from ..graph.emit import Emitter, Unrealizable
from ..graph.nodes import val
from ..graph.weights import leaves, weight_only_nodes
from ..refusal import PREDICTED, Refusal
from ..site import Context, Site, refused_site
from .algebra.bound import merge_bound
from .algebra.values import Value, size_at
from .build.replace import take_over
from .contraction.contraction import Contraction
from .contraction.fold import emit_run
from .contraction.obstacle import contraction_obstacle
from .contraction.price import contraction_flops, contraction_seconds, extents
from .contraction.steps import Run
from .contraction.terms import Sum, summed_weight, sums
from .plan.price import GAIN, SIZES_TRIED, Costs


class LinearContractionSums:
    """Merges `bmm(x, A) + bmm(x, B)` into `bmm(x, A + B)`, in every spelling that `linear_contractions` reads.

    What a sum of branches is to `linear_chains`, for one matrix a group. Terms that are no such products stay terms.
    """

    name = "linear_contraction_sums"
    targets = ("linear_chain",)

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite every sum of a graph in place and return the sites, rewritten and refused."""
        facts = effects(module.graph)
        fixed = weight_only_nodes(module.graph)
        sites = [_visit(found, fixed, facts, context) for found in sums(module.graph, fixed)]
        module.graph.lint()
        module.recompile()
        return sites


LINEAR_CONTRACTION_SUMS = LinearContractionSums()


def _visit(found: Sum, fixed: set[fx.Node], facts: Effects, context: Context) -> Site:
    costs = Costs.of(Value(found.root, 0), context.machine, context.inner)
    site = replace(_site(found), seconds_before=_before(found, costs), seconds_after=_after(found, costs))
    sources = [group[0].product.operand for group in found.groups]
    reason = (
        context.denied.get(site.key, "")
        or contraction_obstacle(
            found.nodes(),
            found.weights(),
            [*sources, *(node for node, _ in found.others)],
            fixed,
            facts,
            context,
        )
        or _loses(found, costs)
    )
    if not reason:
        try:
            return _rewrite(found, site, costs)
        except Unrealizable as problem:
            reason = problem.refusal
    return replace(site, reason=reason)


def _rewrite(found: Sum, site: Site, costs: Costs) -> Site:
    figures = PREDICTED.format(**_figures(found, costs))
    output = found.root
    emit = Emitter(output, what="the products are")
    try:
        result, read = _emit(emit, found)
    except Unrealizable:
        emit.sweep()
        raise
    take_over(output, result, emit, [node for node in found.nodes() if node is not output])
    count = sum(len(group) for group in found.groups)
    summed = max(extents(Run([group[0].product]))[2] for group in found.groups)
    return replace(
        site,
        status="rewritten",
        reason=f"{count} products became {len(found.groups)}, with {list(val(read[0]).shape)}; {figures}",
        params_after=sum(val(node).numel() for node in read),
        flops_after=sum(contraction_flops(Run([group[0].product])) for group in found.groups),
        replacement=site.output,
        bound=merge_bound([summed, summed, *[1] * len(found.inner)], val(output).dtype),
    )


def _emit(emit: Emitter, found: Sum) -> tuple[fx.Node, list[fx.Node]]:
    """Emit one product a group and what is added to them."""
    shift = found.emit_shift(emit)
    results, read = [], []
    for group in found.groups:
        base = group[0].product
        weight = summed_weight(emit, group)
        product = replace(base, node=found.root, weight=weight, scale=1.0, shift=shift, factor=1.0)
        result, weights = emit_run(emit, Run([product]))
        results.append(result)
        read += weights
        shift = None
    total = results[0]
    for node, factor in [*((each, 1.0) for each in results[1:]), *found.others]:
        total = emit.call_as(
            torch.ops.aten.add.Tensor, (total, node), {"alpha": factor} if factor != 1 else {}
        )
    return total, read


def _loses(found: Sum, costs: Costs) -> str:
    """Why the products had better stay apart; empty where one is faster, at every size that may come."""
    if _after(found, costs) > _before(found, costs) * (1 - GAIN):
        return Refusal("product_no_faster", **_figures(found, costs))
    for size in SIZES_TRIED if found.varies else ():
        at = replace(costs, symbols=size)
        if _after(found, at) > _before(found, at):
            return Refusal("product_slower_at", size=size, **_figures(found, costs))
    return ""


def _before(found: Sum, costs: Costs) -> float:
    products = [term.product for group in found.groups for term in group]
    return _seconds(products, costs) + len(found.inner) * _addition(found, costs)


def _after(found: Sum, costs: Costs) -> float:
    added = len(found.groups) - 1 + len(found.others) + bool(found.shifts)
    return _seconds([group[0].product for group in found.groups], costs) + added * _addition(found, costs)


def _seconds(products: Sequence[Contraction], costs: Costs) -> float:
    return sum(contraction_seconds(Run([product]), costs) for product in products)


def _addition(found: Sum, costs: Costs) -> float:
    entries = 1
    for size in val(found.root).shape:
        entries *= size_at(size, costs.symbols)
    return costs.elementwise(1, entries, 2)


def _figures(found: Sum, costs: Costs) -> dict[str, float]:
    """Microseconds of the products together and as they stand."""
    return {"after": 1e6 * _after(found, costs), "before": 1e6 * _before(found, costs)}


def _site(found: Sum) -> Site:
    nodes = found.nodes()
    sources = dict.fromkeys(
        [*(group[0].product.operand for group in found.groups), *(n for n, _ in found.others)]
    )
    products = [term.product for group in found.groups for term in group]
    return refused_site(
        LinearContractionSums.name,
        "linear_chain",
        nodes,
        found.weights(),
        line=products[0].node,
        output=found.root,
        inputs=[*sources, *leaves(found.weights())],
        flops=sum(contraction_flops(Run([product])) for product in products),
    )
