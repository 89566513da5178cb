"""The pass `linear_contractions`: products with batches of matrices, one behind the other, become one product."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from ..graph.effects import Effects, effects
from ..graph.emit import Emitter, Unrealizable
from ..graph.nodes import val
from ..graph.shapes import expression
from ..graph.weights import leaves, weight_only_nodes
from ..refusal import PREDICTED, Refusal
from ..site import Context, Site, refused_site
from .algebra.bound import merge_bound
from .algebra.values import Value
from .build.replace import take_over
from .contraction.contraction import Contraction
from .contraction.fold import emit_run
from .contraction.obstacle import contraction_obstacle
from .contraction.price import contraction_flops, contraction_seconds, extents, seconds_apart
from .contraction.steps import Permute, Run, runs
from .plan.price import GAIN, SIZES_TRIED, Costs


class LinearContractions:
    """Merges runs of `bmm`, `baddbmm`, `matmul`, `tensordot` and `einsum` with weights of three axes or more.

    What `linear_chains` does for a matrix a map, for one matrix a group, such as an expert or a head. How a run is cut
    into products is the fastest of all ways under the cost model.
    """

    name = "linear_contractions"
    targets = ("linear_chain",)

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite every run of a graph in place and return the sites, rewritten and refused."""
        facts = effects(module.graph)
        fixed = weight_only_nodes(module.graph)
        found = runs(module.graph, fixed)
        sites = [site for run in found for site in _visit(run, fixed, facts, context)]
        module.graph.lint()
        module.recompile()
        return sites


LINEAR_CONTRACTIONS = LinearContractions()


def _visit(run: Run, fixed: set[fx.Node], facts: Effects, context: Context) -> list[Site]:
    costs = Costs.of(Value(run.last, 0), context.machine, context.inner)
    whole = _site(run, run, costs)
    nodes, source = [step.node for step in run.steps], run.steps[0].operand
    reason = contraction_obstacle(nodes, run.weights(), [source], fixed, facts, context)
    if not reason and run.shared is not None:
        reason = Refusal("shared_product", value=run.shared.name)
    if reason:
        return [replace(whole, reason=reason)]
    parts = _cut(run, costs)
    if all(len(part.contractions) == 1 for part in parts):
        return [replace(whole, reason=Refusal("product_no_faster", **_figures(run, costs)))]
    sites = []
    for part in parts:
        if len(part.contractions) == 1:
            continue
        site = _site(part, part, costs)
        reason = context.denied.get(site.key, "") or _loses(part, costs)
        if not reason:
            try:
                sites.append(_rewrite(part, site, costs))
                continue
            except Unrealizable as problem:
                reason = problem.refusal
        sites.append(replace(site, reason=reason))
    return sites


def _rewrite(run: Run, site: Site, costs: Costs) -> Site:
    figures = PREDICTED.format(**_figures(run, costs))
    widths = " then ".join(_spelled(step) for step in run.contractions)
    output = run.last
    emit = Emitter(output, what="the products are")
    try:
        result, read = emit_run(emit, run)
    except Unrealizable:
        emit.sweep()
        raise
    take_over(output, result, emit, [step.node for step in run.steps[:-1]])
    summed = extents(run)[2]
    return replace(
        site,
        status="rewritten",
        reason=f"{widths} became {list(val(read[0]).shape)}; {figures}",
        params_after=sum(val(node).numel() for node in read),
        flops_after=contraction_flops(run),
        replacement=site.output,
        bound=merge_bound([summed] * 2, val(output).dtype),
    )


def _cut(run: Run, costs: Costs) -> list[Run]:
    """The fastest way to cut a run into products, by dynamic programming over where the cuts are."""
    starts = [place for place, step in enumerate(run.steps) if isinstance(step, Contraction)]
    ends = [*starts[1:], len(run.steps)]
    best: list[tuple[float, list[Run]]] = [(0.0, [])]
    for end in range(1, len(starts) + 1):
        ways = []
        for start in range(end):
            part = _part(run, starts[start], ends[end - 1])
            ways.append((best[start][0] + contraction_seconds(part, costs), [*best[start][1], part]))
        best.append(min(ways, key=lambda way: way[0]))
    return best[-1][1]


def _part(run: Run, start: int, end: int) -> Run:
    """Steps `start` to `end`, without the permutations at their end, which stay as they are."""
    steps = list(run.steps[start:end])
    while isinstance(steps[-1], Permute):
        steps.pop()
    return Run(steps)


def _loses(run: Run, costs: Costs) -> str:
    """Why a run had better not become one product; empty where that is faster, at every size that may come."""
    before, after = seconds_apart(run, costs), contraction_seconds(run, costs)
    lighter = contraction_flops(run) <= sum(contraction_flops(Run([step])) for step in run.contractions)
    if after > before * (1 if lighter else 1 - GAIN):
        return Refusal("product_no_faster", **_figures(run, costs))
    varying = not all(isinstance(expression(size), int) for size in run.sizes.values())
    for size in SIZES_TRIED if varying else ():
        at = replace(costs, symbols=size)
        if contraction_seconds(run, at) > seconds_apart(run, at):
            return Refusal("product_slower_at", size=size, **_figures(run, costs))
    return ""


def _figures(run: Run, costs: Costs) -> dict[str, float]:
    """Microseconds of one product and of the run as it stands."""
    return {"after": 1e6 * contraction_seconds(run, costs), "before": 1e6 * seconds_apart(run, costs)}


def _spelled(step: Contraction) -> str:
    return str(list(val(step.weight).shape))


def _site(run: Run, whole: Run, costs: Costs) -> Site:
    nodes = [step.node for step in run.steps]
    site = refused_site(
        LinearContractions.name,
        "linear_chain",
        nodes,
        run.weights(),
        line=nodes[0],
        output=run.last,
        inputs=[run.steps[0].operand, *leaves(run.weights())],
        flops=sum(contraction_flops(Run([step])) for step in whole.contractions),
    )
    return replace(
        site, seconds_before=seconds_apart(run, costs), seconds_after=contraction_seconds(run, costs)
    )
