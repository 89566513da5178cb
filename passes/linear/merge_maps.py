"""The passes `linear_chains` and `linear_contractions`: affine regions become fewer, cheaper maps."""

from __future__ import annotations

from dataclasses import replace

from torch import fx

from ..graph.effects import Effects, effects
from ..graph.emit import Unrealizable
from ..refusal import Refusal
from ..site import Context, Site
from .algebra.values import Value
from .build.breaks import breaks
from .build.describe import Subject
from .build.replace import realize
from .plan.decide import Decision, decide, decide_together
from .plan.price import Costs
from .read.obstacles import obstacle
from .read.reader import Reader
from .read.regions import roots, users
from .read.selects import Selects, as_selects, join_selects, slice_selects
from .read.trees import Builder


class LinearMaps:
    """Merges maps of features where the cost model says that this is cheaper.

    A region is a maximal part of the graph in which every value is affine in what the region is given, along a feature
    axis: linear maps and convolutions in any spelling, shifts and scales, batch norms with stored statistics, sums,
    concatenations and selections of features, and operations on the other axes that such maps commute with. It
    becomes what `plan.Planner` finds to be fastest; weights are folded in float64 and rounded once.

    Where a weight has more axes than two, such as one matrix for each expert or head, or shares more than one with a
    value, every axis of the values has a label (`labelled`), and each product says which of them it sums.

    Args:
        name, targets: of the pass.
        labelled: whether its regions are those of values whose axes all have labels.
    """

    def __init__(self, name: str, targets: tuple[str, ...], labelled: bool = False) -> None:
        self.name = name
        self.targets = targets
        self.labelled = labelled

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Rewrite every region of a graph in place and return the sites, rewritten and refused."""
        facts = effects(module.graph)
        reader = Reader(module.graph, facts, context, self.labelled)
        slices = {} if self.labelled else slice_selects(module.graph, reader)
        if slices:
            facts = effects(module.graph)
            reader = Reader(module.graph, facts, context)
        builder = Builder(reader, users(module.graph))

        def costs(value: Value) -> Costs:
            return Costs.of(value.tensor, context)

        trees = reversed(list(roots(module.graph, reader, builder)))
        decisions = [decide(tree, builder, costs(tree.value)) for tree in trees]
        decide_together(decisions, builder, costs)
        # A value that some plan still reads is what breaks the regions off there.
        broken = breaks(self.name, module.graph, decisions, reader, builder)
        sites = [(facts.position[node], site) for node, site in broken]
        # From the end: a region is read as it was, though one that it shares values with is rewritten too.
        best = _best_axes(decisions)
        for decision in reversed(decisions):
            node = decision.tree.value.node
            other = best[node] if best[node] is not decision else None
            site = None if node._erased else self._visit(decision, other, slices, facts, context)
            if site is not None:
                sites.append((facts.position[node], site))
        join_selects(slices)
        module.graph.lint()
        module.recompile()
        return [site for _, site in sorted(sites, key=lambda item: item[0])]

    def _visit(
        self, decision: Decision, other: Decision | None, slices: Selects, facts: Effects, context: Context
    ) -> Site | None:
        """Rewrite one region, or say why not; None where there is nothing to say about it.

        Args:
            decision: the region and its plan.
            other: the region that is rewritten in its place, or None.
            slices, facts, context: what the pass knows.
        """
        if not decision.is_worth_telling:
            return None
        subject = Subject(decision, self.name)
        site = as_selects(subject.site(), slices)
        reason = (
            context.denied.get(site.key)
            or obstacle(decision.tree, facts, context)
            or ("" if decision.gains else subject.why_not())
            or (_instead(other) if other is not None else "")
        )
        if reason:
            return replace(site, reason=reason)
        try:
            read = realize(decision)
        except Unrealizable as problem:
            return replace(site, reason=problem.refusal)
        return subject.rewritten(site, read)


LINEAR_CHAINS = LinearMaps("linear_chains", ("linear_chain", "low_rank", "conv_chain", "batch_norm"))
LINEAR_CONTRACTIONS = LinearMaps("linear_contractions", ("linear_chain",), labelled=True)


def _best_axes(decisions: list[Decision]) -> dict[fx.Node, Decision]:
    """Of the regions that end at one node, with their features along different axes, the one that spares the most."""
    best: dict[fx.Node, Decision] = {}
    for decision in decisions:
        chosen = best.setdefault(decision.tree.value.node, decision)
        if (decision.gains, decision.saved) > (chosen.gains, chosen.saved):
            best[decision.tree.value.node] = decision
    return best


def _instead(other: Decision) -> str:
    value = other.tree.value
    return Refusal("other_axis", value=value.node.name, axis=value.axis)
