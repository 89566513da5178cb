"""Runs of products with weights and of what may stand between them, with one set of labels for all their axes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.nodes import val
from ...graph.shapes import same_size
from ..algebra.layout import permutation
from .contraction import Contraction, Labels, read_contraction

aten = torch.ops.aten


@dataclass(frozen=True)
class Permute:
    """The axes in another order; with the order they had, nothing at all."""

    node: fx.Node
    operand: fx.Node
    order: tuple[int, ...]


@dataclass(frozen=True)
class Scaled:
    """`scale * operand + factor * shift + number` with numbers and a weight that is broadcast, or None."""

    node: fx.Node
    operand: fx.Node
    scale: float = 1.0
    shift: fx.Node | None = None
    factor: float = 1.0
    number: float = 0.0


Step = Contraction | Permute | Scaled


def read_step(node: fx.Node, fixed: Collection[fx.Node]) -> Step | None:
    """Read a node that a run may hold; None for any other."""
    if not isinstance(node.meta.get("val"), torch.Tensor) or node in fixed:
        return None
    return read_contraction(node, fixed) or _read_permute(node) or _read_scaled(node, fixed)


def _read_permute(node: fx.Node) -> Permute | None:
    name, operands = packet(node), node.all_input_nodes
    if name is None or len(operands) != 1 or not isinstance(operands[0].meta.get("val"), torch.Tensor):
        return None
    rank = val(operands[0]).dim()
    if name in (aten.alias, aten.clone, aten.contiguous):
        return Permute(node, operands[0], tuple(range(rank)))
    if name is aten.dropout and not named_arguments(node)["train"]:
        return Permute(node, operands[0], tuple(range(rank)))
    order = permutation(node, rank)
    return None if order is None else Permute(node, operands[0], tuple(order))


def _read_scaled(node: fx.Node, fixed: Collection[fx.Node]) -> Scaled | None:
    """A sum or product of one value, and one number or weight."""
    name = packet(node)
    if name not in (aten.add, aten.sub, aten.rsub, aten.mul, aten.div, aten.neg):
        return None
    given = named_arguments(node)
    left, right, alpha = given["self"], given.get("other"), given.get("alpha", 1)
    if isinstance(alpha, fx.Node) or given.get("rounding_mode") is not None:
        return None
    if name is aten.neg:
        return Scaled(node, left, -1.0)
    if name in (aten.mul, aten.div):
        if not isinstance(right, int | float) or right == 0 or not isinstance(left, fx.Node) or left in fixed:
            return None
        return Scaled(node, left, 1.0 / right if name is aten.div else float(right))
    scale, other = {aten.sub: (1.0, -float(alpha)), aten.rsub: (-float(alpha), 1.0)}.get(
        name, (1.0, float(alpha))
    )
    return _sum(node, left, right, scale, other, fixed) or _sum(node, right, left, other, scale, fixed)


def _sum(
    node: fx.Node, value: Any, added: Any, scale: float, factor: float, fixed: Collection[fx.Node]
) -> Scaled | None:
    """`scale * value + factor * added`, where what is added is a number or a weight."""
    if not isinstance(value, fx.Node) or value in fixed:
        return None
    if isinstance(added, int | float):
        return Scaled(node, value, scale, number=factor * added)
    if isinstance(added, fx.Node) and added in fixed and _broadcasts(added, value):
        return Scaled(node, value, scale, added, factor)
    return None


def _broadcasts(weight: fx.Node, value: Any) -> bool:
    """Whether a weight may be added to a value without changing its shape."""
    if not isinstance(value, fx.Node) or not isinstance(value.meta.get("val"), torch.Tensor):
        return False
    small, large = val(weight).shape, val(value).shape
    behind = large[len(large) - len(small) :]
    return len(small) <= len(large) and all(
        size == 1 or same_size(size, other) for size, other in zip(small, behind, strict=True)
    )


@dataclass(frozen=True)
class Placed:
    """A step with the labels of the whole run."""

    step: Step
    weight: Labels
    result: Labels


@dataclass
class Run:
    """Steps in a row, and the one product that they amount to.

    `matrix` are the labels of the product of all weights: of each label that some weight has, without those that
    are summed between two of them.

    Args:
        steps: in order; the first is a `Contraction`, each reads the one before.
        shared: the last value, where only something else that reads it keeps the run from going on.
    """

    steps: Sequence[Step]
    shared: fx.Node | None = None
    source: Labels = ()
    matrix: Labels = ()
    result: Labels = ()
    placed: list[Placed] = field(default_factory=list)
    sizes: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.source = self.result = self._fresh(val(self.steps[0].operand).shape)
        for step in self.steps:
            if isinstance(step, Contraction):
                self._contract(step)
            else:
                if isinstance(step, Permute):
                    self.result = tuple(self.result[place] for place in step.order)
                self.placed.append(Placed(step, (), self.result))

    @property
    def contractions(self) -> list[Contraction]:
        """The products."""
        return [step for step in self.steps if isinstance(step, Contraction)]

    def weights(self) -> list[fx.Node]:
        """The weights that the steps read."""
        shifts = [
            step.shift for step in self.steps if not isinstance(step, Permute) and step.shift is not None
        ]
        return [*(step.weight for step in self.contractions), *shifts]

    @property
    def last(self) -> fx.Node:
        """The node that holds the result."""
        return self.steps[-1].node

    def _fresh(self, sizes: Sequence[Any]) -> Labels:
        start = len(self.sizes)
        self.sizes.update(enumerate(sizes, start))
        return tuple(range(start, start + len(sizes)))

    def _contract(self, step: Contraction) -> None:
        names = dict(zip(step.operand_labels, self.result, strict=True))
        for label, size in zip(step.weight_labels, val(step.weight).shape, strict=True):
            if label not in names:
                names[label] = self._fresh([size])[0]
        weight = tuple(names[label] for label in step.weight_labels)
        self.result = tuple(names[label] for label in step.result_labels)
        summed = set(weight) - set(self.result) - set(self.source)
        self.matrix = tuple(label for label in dict.fromkeys((*self.matrix, *weight)) if label not in summed)
        self.placed.append(Placed(step, weight, self.result))


def runs(graph: fx.Graph, fixed: Collection[fx.Node]) -> list[Run]:
    """The longest runs with two products or more, at least one of them with more than a matrix."""
    found: list[Run] = []
    seen: set[fx.Node] = set()
    for node in graph.nodes:
        first = read_contraction(node, fixed) if node not in seen else None
        if first is None:
            continue
        steps: list[Step] = [first]
        following = following_step(node, fixed)
        while following is not None and len(steps[-1].node.users) == 1:
            steps.append(following)
            following = following_step(following.node, fixed)
        seen.update(step.node for step in steps)
        products = [step for step in steps if isinstance(step, Contraction)]
        shared = steps[-1].node if isinstance(following, Contraction) else None
        if shared is not None:
            products.append(following)  # type: ignore[arg-type]
        while isinstance(steps[-1], Permute):
            steps.pop()
        run = Run(steps)
        if len(run.contractions) > 1 and any(each.batched for each in run.contractions):
            found.append(run)
        elif shared is not None and any(each.batched for each in products):
            found.append(Run(steps, shared))
    return found


def following_step(node: fx.Node, fixed: Collection[fx.Node]) -> Step | None:
    """The first step that reads a node."""
    for user in node.users:
        step = read_step(user, fixed)
        if step is not None and step.operand is node and _same_kind(step, node):
            return step
    return None


def _same_kind(step: Step, node: fx.Node) -> bool:
    read = [val(node), val(step.node)]
    for name in ("weight", "shift"):
        weight = getattr(step, name, None)
        if weight is not None:
            read.append(val(weight))
    return len({(each.dtype, each.device) for each in read}) == 1
