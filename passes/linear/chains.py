"""The pass `linear_chains`: chains of linear maps become fewer, cheaper ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from typing import Any

import torch
from torch import fx

from ..regions import Regions, regions
from ..rewrite import Context, Site, module_path, source_line, val
from ..shapes import hint, is_row_major
from .bound import merge_bound
from .classify import Classifier
from .cost import Machine
from .merge import merge
from .plan import Decision, Plan, decide, unmerged
from .search import Break, Chain, search
from .weights import leaves, name_of, owner

# Stands for a number of rows that only the data decides.
_UNKNOWN_ROWS = 64


class LinearChains:
    """Merges chains of linear maps along the last axis where the cost model says that this is cheaper.

    A chain is two or more maps, in any spelling, with nothing between them but shifts and scales of features,
    reshapes of leading dimensions, and operations that do nothing. It becomes dense `aten.linear` nodes and
    `stone.low_rank_linear` pairs, as `plan.decide` says; weights are folded in float64 and rounded once.
    """

    name = "linear_chains"
    targets = ("linear_chain", "low_rank")

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite every chain of a graph in place and return the sites, rewritten and refused."""
        facts = regions(module.graph)
        found = list(search(module.graph, Classifier(module.graph, facts, context), context))
        sites = [
            _refused_break(item) if isinstance(item, Break) else _visit(item, facts, context)
            for item in found
        ]
        module.graph.lint()
        module.recompile()
        return sites


LINEAR_CHAINS = LinearChains()


def _visit(chain: Chain, facts: Regions, context: Context) -> Site:
    """Rewrite one chain, or say why not."""
    rows = 1
    for size in val(chain.operand).shape[:-1]:
        rows *= hint(size, _UNKNOWN_ROWS)
    decision = _decide(chain, rows, context)
    site = _site(chain, decision.plan, rows)
    reason = context.denied.get(site.key) or _obstacle(chain, facts, context) or decision.reason
    if reason:
        return replace(site, reason=reason)
    read = merge(chain, decision.plan)
    inner = [chain.widths[start] for start, _ in decision.plan.factors()]
    return replace(
        site,
        status="rewritten",
        reason=_summary(decision, chain, rows),
        params_after=sum(val(node).numel() for node in read),
        replacement=chain.output.name,
        bound=merge_bound(inner, val(chain.operand).dtype),
    )


def _decide(chain: Chain, rows: int, context: Context) -> Decision:
    operand = val(chain.operand)
    machine = context.machine or Machine.of(operand.device)
    if context.inner == "inductor":  # there `lower` spells a pair as two linear maps
        machine = replace(machine, pair_launches=2)
    vary = any(isinstance(size, torch.SymInt) for size in operand.shape[:-1])
    return decide(chain.widths, rows, operand.itemsize, machine, rows_vary=vary)


def _obstacle(chain: Chain, facts: Regions, context: Context) -> str:
    """Why a chain must stay as it is, whatever it costs; empty if it need not."""
    if context.grad:
        weights = leaves(node for step in chain.steps for node in step.values())
        trained = [name_of(leaf) for leaf in weights if val(leaf).requires_grad]
        if trained:
            more = f" and {len(trained) - 4} more" if len(trained) > 4 else ""
            return (
                f"gradients are wanted of {', '.join(trained[:4])}{more}: merging would train another parametrisation; "
                "call the model under torch.no_grad(), or use stonefx.optimize"
            )
    first, last = chain.steps[0].node, chain.output
    writer = facts.written_between(chain.operand, first, last)
    if writer is not None:
        at = f" at {source_line(writer)}" if source_line(writer) else ""
        return f"the chain's input {chain.operand.name!r} is changed in place before its end{at}"
    if not is_row_major(val(last)):
        return (
            f"the result has strides {tuple(val(last).stride())}, not the row-major ones of a merged map, and "
            "later views may rely on them"
        )
    return ""


def _site(chain: Chain, plan: Plan, rows: int) -> Site:
    """A chain's site, refused until it is rewritten."""
    values = [node for step in chain.steps for node in step.values()]
    weights = leaves(values)
    widths = chain.widths
    parameters = sum(val(node).numel() for node in weights)
    plan = plan if plan.merges else unmerged(widths)
    return Site(
        pass_name=LinearChains.name,
        target="low_rank" if plan.low_rank else "linear_chain",
        status="refused",
        module_path=_path(chain),
        source=source_line(chain.steps[0].node),
        nodes=chain.nodes(),
        params_before=parameters,
        params_after=parameters,
        flops_before=unmerged(widths).flops(widths, rows),
        flops_after=plan.flops(widths, rows),
        inputs=tuple(node.name for node in [chain.operand, *weights, *_sizes(chain)]),
        output=chain.output.name,
    )


def _refused_break(broken: Break) -> Site:
    weights = leaves(node for step in broken.before.steps for node in step.values())
    parameters = sum(val(node).numel() for node in weights)
    return Site(
        pass_name=LinearChains.name,
        target="linear_chain",
        status="refused",
        reason=broken.reason,
        module_path=_path(broken.before),
        source=source_line(broken.after),
        nodes=(*broken.before.nodes(), broken.after.name),
        params_before=parameters,
        params_after=parameters,
        output=broken.after.name,
    )


def _sizes(chain: Chain) -> list[fx.Node]:
    """The size nodes that the chain's reshapes read, other than sizes of the chain itself."""
    inside = {step.node for step in chain.steps}
    read: dict[fx.Node, None] = {}
    for step in chain.steps:
        if step.kind == "view":
            for node in step.node.all_input_nodes:
                if node is not step.operand and not inside & set(node.all_input_nodes):
                    read[node] = None
    return list(read)


def _path(chain: Chain) -> str:
    """The innermost module that holds all maps of a chain, by module stack or else by weight names."""
    nodes = [step.node for step in chain.maps]
    paths: list[Any] = [module_path(node) for node in nodes]
    if not all(paths):
        paths = [owner(matrix.node) for matrix in chain.matrices]
    if len(set(paths)) == 1:
        return paths[0]
    levels = zip(*(path.split(".") for path in paths), strict=False)
    return ".".join(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _summary(decision: Decision, chain: Chain, rows: int) -> str:
    pieces = []
    for part in decision.plan.parts:
        stops = [chain.widths[part.start], *(chain.widths[stop] for _, stop in part.factors())]
        pieces.append(" -> ".join(map(str, stops)))
    before, after = 1e6 * decision.seconds_before, 1e6 * decision.seconds_after
    chain_text = " -> ".join(map(str, chain.widths))
    return f"{chain_text} became {', '.join(pieces)}; predicted {before:.3g} to {after:.3g} us at {rows} rows"
