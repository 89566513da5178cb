"""What weights take: a map is folded into a table only where they take no more bytes than before."""

from __future__ import annotations

from torch import fx

from ...graph.nodes import val
from ...graph.weights import leaves, name_of
from ..algebra.tree import Tree
from ..algebra.values import Value
from ..read.trees import Builder
from .plan import Choice
from .planner import Planner, Routes
from .price import Costs

Larger = tuple[Tree, int, int]  # a table, and the bytes of weights before and after


class Memory:
    """Plans regions within the memory of the weights that they free.

    Args:
        tree: the region, as the graph has it.
        builder: what the pass knows.
    """

    def __init__(self, tree: Tree, builder: Builder) -> None:
        stays = builder.reader.context.stays
        inside = set(tree.nodes())
        self.freed: set[fx.Node] = set()  # the weights that nothing but the region reads
        if stays is not None and tree.tables():
            self.freed = {
                leaf
                for leaf in leaves(tree.weights())
                if name_of(leaf) not in stays and _only_inside(leaf, inside, builder.reader.fixed)
            }
        self.before = sum(map(_bytes, self.freed))

    def plan(self, tree: Tree, costs: Costs, routes: Routes) -> tuple[Choice, Larger | None]:
        """The fastest plan whose weights take no more than before, and the first table that is kept for it."""
        kept: set[Value] = set()
        larger: Larger | None = None
        while True:
            plan = Planner(tree, costs, routes, kept).plan()
            folds = [each.level for each in plan.flat() if _folds(each) and each.level.value not in kept]
            after = self._after(plan) if folds else 0
            if after <= self.before:
                return plan, larger
            largest = max(folds, key=lambda leaf: (leaf.value.rows() * leaf.width, leaf.value.node.name))
            kept.add(largest.value)
            larger = larger or (largest, self.before, after)

    def _after(self, plan: Choice) -> int:
        """The bytes of the weights that a plan makes anew, and of those that it leaves to be freed by none."""
        total = 0
        for each in plan.flat():
            value = each.level.value
            if each.kind == "given" and each.level.fixed and each.parameters:
                total += sum(map(_bytes, self.freed.intersection(leaves([value.node]))))
            elif each.kind in ("map", "source"):
                own = each.parameters - sum(term.parameters for term in each.terms)
                total += max(own, 0) * value.tensor.itemsize
        return total


def _folds(choice: Choice) -> bool:
    """Whether a choice is a map that is folded into a table."""
    return choice.kind == "map" and choice.level.fixed and not (choice.way.idle or choice.way.picks)


def _only_inside(weight: fx.Node, inside: set[fx.Node], fixed: set[fx.Node]) -> bool:
    """Whether nothing but nodes of a region reads a weight, itself or what is computed from it alone."""
    stack, seen = [weight], {weight}
    while stack:
        for user in stack.pop().users:
            if user in fixed and user not in seen:
                seen.add(user)
                stack.append(user)
            elif user not in fixed and user not in inside:
                return False
    return True


def _bytes(node: fx.Node) -> int:
    return val(node).numel() * val(node).itemsize
