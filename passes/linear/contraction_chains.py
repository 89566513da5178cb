"""The pass `linear_contractions`: products with batches of matrices, one behind the other, become one product."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import fx

from ..regions import Regions
from ..regions import regions as graph_facts
from ..rewrite import Context, Site, source_line, val
from ..shapes import expression
from .bound import merge_bound
from .contraction import Contraction
from .contraction_fold import emit_run
from .contraction_steps import Permute, Run, Scaled, runs
from .costs import GAIN, SIZES_TRIED, Costs
from .describe import common_path
from .emit import Emitter, Unrealizable
from .obstacles import trained
from .realize import erase_dead
from .values import Value, size_at
from .weights import is_view_of_leaf, leaves, name_of, weight_only_nodes


class LinearContractions:
    """Merges runs of `bmm`, `baddbmm`, `matmul`, `tensordot` and `einsum` with weights of three axes or more.

    What `linear_chains` does for a matrix a map, for one matrix a group, such as an expert or a head. How a run is cut
    into products is the fastest of all ways under the cost model.
    """

    name = "linear_contractions"
    targets = ("linear_chain",)

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite every run of a graph in place and return the sites, rewritten and refused."""
        facts = graph_facts(module.graph)
        fixed = weight_only_nodes(module.graph)
        found = runs(module.graph, fixed)
        sites = [site for run in found for site in _visit(run, fixed, facts, context)]
        module.graph.lint()
        module.recompile()
        return sites


LINEAR_CONTRACTIONS = LinearContractions()


def _visit(run: Run, fixed: set[fx.Node], facts: Regions, context: Context) -> list[Site]:
    costs = Costs.of(Value(run.last, 0), context.machine, context.inner)
    whole = _site(run, run)
    reason = _obstacle(run, fixed, facts, context)
    if not reason and run.shared is not None:
        reason = f"the value {run.shared.name!r} between the products is read by something else too"
    if reason:
        return [replace(whole, reason=reason)]
    parts = _cut(run, costs)
    if all(len(part.contractions) == 1 for part in parts):
        return [replace(whole, reason=f"one product would be no faster: {_figures(run, [run], costs)}")]
    sites = []
    for part in parts:
        if len(part.contractions) == 1:
            continue
        site = _site(part, part)
        reason = context.denied.get(site.key, "") or _loses(part, costs)
        if not reason:
            try:
                sites.append(_rewrite(part, site, costs))
                continue
            except Unrealizable as problem:
                reason = f"{problem}, so the products are left as they are"
        sites.append(replace(site, reason=reason))
    return sites


def _rewrite(run: Run, site: Site, costs: Costs) -> Site:
    figures = _figures(run, [run], costs)
    widths = " then ".join(_spelled(step) for step in run.contractions)
    output = run.last
    emit = Emitter(output)
    try:
        result, read = emit_run(emit, run)
    except Unrealizable:
        emit.sweep()
        raise
    inner = [step.node for step in run.steps[:-1]]
    replaced = [output.all_input_nodes, *([node] for node in inner)]
    output.target, output.args, output.kwargs = result.target, result.args, result.kwargs
    output.meta["val"] = val(result)
    emit.sweep()
    erase_dead(node for nodes in replaced for node in nodes)
    summed = _extents(run)[2]
    return replace(
        site,
        status="rewritten",
        reason=f"{widths} became {list(val(read[0]).shape)}; {figures}",
        params_after=sum(val(node).numel() for node in read),
        flops_after=_flops(run),
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
            ways.append((best[start][0] + _seconds(part, costs), [*best[start][1], part]))
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
    before, after = _apart(run, costs), _seconds(run, costs)
    lighter = _flops(run) <= sum(_flops(Run([step])) for step in run.contractions)
    if after > before * (1 if lighter else 1 - GAIN):
        return f"one product would be no faster: {_figures(run, [run], costs)}"
    varying = not all(isinstance(expression(size), int) for size in run.sizes.values())
    for size in SIZES_TRIED if varying else ():
        at = replace(costs, symbols=size)
        if _seconds(run, at) > _apart(run, at):
            return (
                f"one product would be slower where varying sizes are {size}: {_figures(run, [run], costs)}"
            )
    return ""


def _apart(run: Run, costs: Costs) -> float:
    """Seconds of a run as the graph has it."""
    total = 0.0
    for step in run.steps:
        if isinstance(step, Contraction):
            total += _seconds(Run([step]), costs)
        elif isinstance(step, Scaled):
            total += costs.elementwise(
                1, int(math.prod(size_at(n, costs.symbols) for n in val(step.node).shape))
            )
        else:
            total += costs.view()
    return total


def _seconds(run: Run, costs: Costs) -> float:
    """Seconds of a run as one product."""
    groups, rows, inputs, outputs = _extents(run, costs.symbols)
    machine = costs.machine
    return groups * machine.work_seconds(rows, inputs, outputs, costs.itemsize) + machine.launch_seconds(
        costs.itemsize
    )


def _extents(run: Run, symbols: int | None = None) -> tuple[int, int, int, int]:
    """How many matrices, rows of each, and their widths."""

    def extent(labels: Iterable[int]) -> int:
        return math.prod(size_at(run.sizes[label], symbols) for label in labels)

    source, matrix, result = set(run.source), set(run.matrix), set(run.result)
    return (
        extent(source & matrix & result),
        extent(source - matrix),
        extent((source & matrix) - result),
        extent(matrix - source),
    )


def _flops(run: Run) -> int:
    return 2 * math.prod(_extents(run))


def _figures(run: Run, parts: Sequence[Run], costs: Costs) -> str:
    after = sum(_seconds(part, costs) for part in parts)
    return f"predicted {1e6 * after:.3g} us against {1e6 * _apart(run, costs):.3g} us as it stands"


def _spelled(step: Contraction) -> str:
    return str(list(val(step.weight).shape))


def _obstacle(run: Run, fixed: set[fx.Node], facts: Regions, context: Context) -> str:
    nodes = [step.node for step in run.steps]
    weights = run.weights()
    problem = trained(weights) if context.grad else ""
    if problem:
        return problem
    if any(node in facts.autocast for node in nodes):
        return "a product runs under autocast, where its dtype is chosen at run time"
    if len({node in facts.no_grad for node in nodes}) > 1:
        return "a no_grad region begins or ends between the products"
    if not val(run.last).dtype.is_floating_point:
        return f"the products compute in {str(val(run.last).dtype).removeprefix('torch.')}"
    for weight in weights:
        if weight not in fixed or not is_view_of_leaf(weight):
            names = ", ".join(name_of(leaf) for leaf in leaves([weight]))
            return f"the weight is a parametrisation, computed from {names}"
    for leaf in leaves(weights):
        if context.keeps(name_of(leaf)):
            return f"the weight {name_of(leaf)!r} is to be kept as it is"
        if facts.writer(leaf) is not None:
            return f"the weight {name_of(leaf)!r} is changed inside the graph"
    for node in nodes:
        if facts.writer(node) is not None:
            return f"the value {node.name!r} is changed in place"
    if facts.written_between(run.steps[0].operand, nodes[0], nodes[-1]) is not None:
        return f"the value {run.steps[0].operand.name!r} that the products read is changed before their end"
    return ""


def _site(run: Run, whole: Run) -> Site:
    nodes = [step.node for step in run.steps]
    found = leaves(run.weights())
    parameters = sum(val(node).numel() for node in found)
    flops = sum(_flops(Run([step])) for step in whole.contractions)
    return Site(
        pass_name=LinearContractions.name,
        target="linear_chain",
        status="refused",
        module_path=common_path(nodes, run.weights()),
        source=source_line(nodes[0]),
        nodes=tuple(node.name for node in nodes),
        params_before=parameters,
        params_after=parameters,
        flops_before=flops,
        flops_after=flops,
        inputs=tuple(node.name for node in [run.steps[0].operand, *found]),
        output=run.last.name,
    )
