"""What the report says about a region: its site, what became of it, or why nothing did."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import fx

from ...graph.arguments import packet
from ...graph.nodes import source_line, val
from ...graph.weights import leaves, name_of
from ...refusal import Refusal
from ...site import Site, common_path
from ..algebra.bound import merge_bound
from ..algebra.elements import Convolve, Deviation, Scale, Shift, mixes, weights_of
from ..algebra.tree import Tree
from ..algebra.values import LABELLED, size_at
from ..plan.decide import Decision
from ..plan.flops import plan_flops
from ..plan.plan import TIE, Choice
from ..read.convolutions import CONVOLUTIONS

# As many maps of a chain are named one by one.
_NAMED = 8


class Subject:
    """A region and the plan for it, as sites describe them.

    Args:
        decision: the plan.
        pass_name: of the pass.
    """

    def __init__(self, decision: Decision, pass_name: str) -> None:
        self.decision = decision
        self.pass_name = pass_name
        self.tree = decision.tree
        self.maps = list({level.value.node: level for level in self.tree.maps()}.values())
        self.weights = leaves(self.tree.weights())

    def site(self) -> Site:
        """The region's site, refused until it is rewritten."""
        tree, plan = self.tree, self.decision.plan
        parameters = sum(val(node).numel() for node in self.weights)
        ordered = sorted(tree.nodes())
        return Site(
            pass_name=self.pass_name,
            target=self._target(),
            status="refused",
            module_path=common_path([level.value.node for level in self.maps], self.tree.weights()),
            source=source_line(min(level.value.node for level in self.maps)),
            nodes=tuple(node.name for node in ordered),
            params_before=parameters,
            params_after=parameters,
            flops_before=self.decision.flops,
            flops_after=plan_flops(plan) if self.decision.gains else self.decision.flops,
            seconds_before=self.decision.seconds_before,
            seconds_after=self.decision.seconds_after,
            inputs=tuple(node.name for node in self._inputs(ordered)),
            output=tree.value.node.name,
        )

    def rewritten(self, site: Site, read: Sequence[fx.Node]) -> Site:
        """The site once its region was rewritten, reading the given weights."""
        plan = self.decision.plan
        widths = [width for each in plan.maps() for width in _inner(each)]
        widths += [1 for each in plan.flat() if each.kind in ("move", "sum")]
        return replace(
            site,
            status="rewritten",
            reason=self._summary(),
            params_after=sum(val(node).numel() for node in read),
            replacement=site.output,
            bound=merge_bound(widths, val(self.tree.value.node).dtype),
        )

    def why_not(self) -> str:
        """Why the cost model leaves the region alone, with both costs."""
        decision = self.decision
        size = decision.worse_at
        before, after = decision.seconds_before, decision.seconds_after
        looks = decision.looks if before > after else 0.0
        verdict = "would be slower" if after > before * (1 + TIE) else "would be no faster"
        now = sum(val(node).numel() for node in dict.fromkeys(self.tree.weights()) if val(node).dim() > 1)
        merged = decision.plan.parameters
        rows = self._rows()
        where = f"at {rows} rows" if size is None else f"at {rows} rows, but slower where sizes are {size}"
        if decision.larger is not None:
            table, bytes_before, bytes_after = decision.larger
            return Refusal(
                "table_larger",
                table=name_of(table.value.node),
                rows=table.value.rows(),
                inputs=table.width,
                outputs=self.tree.width,
                before=bytes_before,
                after=bytes_after,
            )
        border = next(filter(None, (_border(level) for level in self.tree.walk())), "")
        if border:
            return border
        return Refusal(
            "no_faster",
            what=self._ways(),
            verdict=verdict,
            after=1e6 * (after + looks),
            before=1e6 * before,
            where=where,
            rows=rows,
            slower_at=size,
            merged=merged,
            weights=now,
            one=self._as_one_map(),
        )

    def _target(self) -> str:
        nodes = [level.value.node for level in self.maps]
        convolutions = [node for node in nodes if packet(node) in CONVOLUTIONS]
        if any(each.cut is not None for each in self.decision.plan.maps()):
            return "low_rank"
        if len(nodes) == 1 and self._has_batch_norm():
            return "batch_norm"
        return "conv_chain" if len(convolutions) == len(nodes) else "linear_chain"

    def _has_batch_norm(self) -> bool:
        elements = [element for level in self.tree.walk_parts() for element in level.elements]
        return any(isinstance(each, Scale) and isinstance(each.value, Deviation) for each in elements)

    def _inputs(self, ordered: Sequence[fx.Node]) -> list[fx.Node]:
        """What verification gives the region: its leaves, its weights, and sizes read from elsewhere."""
        given = self.tree.given()
        inside = set(ordered)
        # A value that a norm inside reads may be computed inside as well, and is then no input of its own.
        given = [node for node in given if node not in inside]
        sizes: list[fx.Node] = []
        stack = [operand for node in ordered for operand in node.all_input_nodes]
        while stack:
            node = stack.pop()
            if isinstance(node.meta.get("val"), torch.SymInt) and node not in sizes:
                if inside.isdisjoint(node.all_input_nodes):
                    sizes.append(node)
                else:
                    stack += [each for each in node.all_input_nodes if each not in inside]
        return list(dict.fromkeys([*given, *self.weights, *sizes]))

    def _summary(self) -> str:
        decision = self.decision
        before, after = 1e6 * decision.seconds_before, 1e6 * decision.seconds_after
        rows = self._rows()
        pieces = [_piece(each) for each in decision.plan.maps() if each.has_matrix]
        return (
            f"{self._ways()} became {_counted(pieces) or 'no map at all'}; "
            f"predicted {before:.3g} to {after:.3g} us at {rows} rows{self._as_one_map()}"
        )

    def _rows(self) -> int:
        """The feature vectors that the region is given, at the example sizes."""
        leaf = self.tree.leaves()[0]
        value = leaf.parent.value if leaf.fixed and leaf.parent is not None else leaf.value
        features = size_at(value.tensor.shape[-1], None) if value.axis == LABELLED else 1
        return value.rows() // max(features, 1)

    def _as_one_map(self) -> str:
        """What one dense map would have cost, where a chain keeps several."""
        decision = self.decision
        leaves = self.tree.leaves()
        kept = [each for each in decision.plan.maps() if each.has_matrix]
        if self.tree.value.axis == LABELLED:
            return ""
        several = len(kept) > 1 or any(each.cut is not None for each in kept)
        convolves = any(isinstance(each, Convolve) for level in self.tree.walk() for each in level.elements)
        if len(leaves) != 1 or not several or convolves:
            return ""
        inputs, outputs, costs = leaves[0].width, self.tree.width, decision.costs
        rows = min(costs.rows(leaves[0]), costs.rows(self.tree))
        return (
            f"; one map {inputs} -> {outputs} would take {1e6 * costs.linear(rows, inputs, outputs):.3g} us"
        )

    def _ways(self) -> str:
        """The widths of a chain, or of every map of a region that branches."""
        branches = len(self.tree.leaves()) > 1 or len(self.maps) > _NAMED
        if self.tree.value.axis == LABELLED:
            shapes = [str(list(val(_weight(level)).shape)) for level in self.maps]
            return _counted(shapes) if branches else " then ".join(shapes)
        if branches:
            sizes = [f"{level.children[0].width} -> {level.width}" for level in self.maps]
            return _counted(sizes)
        widths = [self.maps[0].children[0].width, *(level.width for level in self.maps)]
        return " -> ".join(map(str, widths))


def _border(level: Tree) -> str:
    """What keeps a constant from going through a convolution that pads."""
    pads = any(isinstance(element, Convolve) and element.pads for element in level.elements)
    if not pads:
        return ""
    child = level.children[0]
    while child.move is not None:
        child = child.children[0]
    if not any(isinstance(element, Shift) for element in child.elements):
        return ""
    return Refusal("border", value=child.value.node.name, convolution=level.value.node.name)


def _inner(choice: Choice) -> list[int]:
    """How many terms each product adds up that a map consists of."""
    product = choice.way.product
    if product is not None and product.matrix:
        return [product.extents()[2]] * 2  # the constant of an `einsum` is added by an operation of its own
    if product is not None:
        return [1] * (product.scales + product.shifts)
    return [choice.inputs] if choice.cut is None else [choice.cut.width, choice.inputs]


def _piece(choice: Choice) -> str:
    if choice.way.product is not None:
        return str([int(choice.way.product.sizes[label]) for label in choice.way.product.matrix])
    middle = [] if choice.cut is None else [choice.cut.width]
    return " -> ".join(map(str, [choice.inputs, *middle, choice.top.width]))


def _weight(level: Tree) -> fx.Node:
    return next(weights_of(element)[0] for element in level.elements if mixes(element))


def _counted(texts: Iterable[str]) -> str:
    """Join texts, with those that repeat counted."""
    counts: dict[str, int] = {}
    for text in texts:
        counts[text] = counts.get(text, 0) + 1
    return ", ".join(text if count == 1 else f"{count} x {text}" for text, count in counts.items())
