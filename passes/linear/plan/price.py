"""What every level of a region costs, as it stands or with features of another width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import fx

from ...cost.flops import product_flops
from ...cost.machine import Machine
from ...graph.arguments import aliases, is_operator
from ...graph.shapes import expression
from ...graph.weights import leaves
from ...site import Context
from ..algebra.elements import Convolve, Element, Pick, Scale, Shift, Structure
from ..algebra.paths import way_between
from ..algebra.product import Product
from ..algebra.readings import Carried, Moves
from ..algebra.tree import Tree
from ..algebra.values import LABELLED, Value, size_at

# What the scale and shift of a norm cost, as a part of an elementwise operation of their own.
_OF_A_NORM = 0.1
# Where sizes vary from call to call, a plan must not lose when every symbol is one of these.
SIZES_TRIED = (1, 16, 1024)
# A plan must promise more than the cost model can be wrong by.
GAIN = 0.02
# Where scales and shifts are computed along with something else, sparing them alone is worth less than what may follow:
# maps that read one value, and are one wider map, would read several.
FUSED_GAIN = 0.05


@dataclass(frozen=True)
class Costs:
    """Predicts seconds and counts operations.

    Args:
        machine: the cost model.
        itemsize: bytes of an element.
        symbols: what every symbolic size counts as; None for its example value.
        fuses: what runs the graph computes elementwise work and views for nothing beside a map, as inductor does.
        look: seconds that a call spends on each weight that is folded.
    """

    machine: Machine
    itemsize: int
    symbols: int | None = None
    fuses: bool = False
    look: float = 0.0
    _counted: dict[tuple[Value, int | None], int] = field(default_factory=dict, compare=False, repr=False)
    _timed: dict[tuple[int, ...], float] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, tensor: torch.Tensor, context: Context) -> Costs:
        """The costs of a region whose values are like a tensor."""
        chosen = context.machine or Machine.of(tensor.device)
        fuses = context.inner == "inductor"
        # There `lower` spells a pair as two linear maps; on CUDA the operator starts two kernels as well.
        if fuses or tensor.device.type == "cuda":
            chosen = replace(chosen, pair_launches=2)
        return cls(chosen, tensor.itemsize, fuses=fuses, look=context.look)

    def looks(self, weights: Iterable[fx.Node]) -> float:
        """Seconds that a call spends on folds of weights or of expressions over them."""
        return self.look * len(leaves(weights)) if self.look else 0.0

    def rows(self, level: Tree) -> int:
        """Feature vectors of a level."""
        return self.count(level.value)

    def count(self, value: Value) -> int:
        """Feature vectors of a value; counted once, since plans ask for few of them again and again."""
        key = (value, self.symbols)
        if key not in self._counted:
            self._counted[key] = value.rows(self.symbols)
        return self._counted[key]

    def elementwise(self, rows: int, width: int, reads: int = 1) -> float:
        """Seconds of one elementwise operation on `[rows, width]`."""
        traffic = self.itemsize * rows * width * (reads + 1) / self.machine.bandwidth
        return 0.25 * traffic if self.fuses else traffic + self.machine.launch

    def view(self) -> float:
        """Seconds of one view."""
        return 0.0 if self.fuses else 0.5 * self.machine.launch

    def move(self, level: Tree, width: int) -> float:
        """Seconds of a move on features of some width."""
        assert level.move is not None
        return self.carry(level.move, level.value, width)

    def ones(self, along: Iterable[Carried]) -> float:
        """Seconds of what carries make of a constant 1."""
        moves = {move.node: (move, value) for each in along for move, value in each}
        starts = {each[0][0].node: each[0][0].operand for each in along}
        made = sum(self.elementwise(self.count(value), 1) for value in starts.values())
        return made + sum(self.carry(move, value, 1) for move, value in moves.values())

    def carry(self, move: Moves, result: Value, width: int) -> float:
        """Seconds of a move with the given result on features of some width."""
        node = move.node
        if move.view or not is_operator(node) or aliases(node.target):
            return self.view()
        before, after = self.count(move.operand), self.count(result)
        if move.looks_up:
            before = min(before, after)
        if move.rigid:  # it costs the same wherever the maps go
            return self.machine.launch
        traffic = self.itemsize * (before + after) * width / self.machine.bandwidth
        if expression(move.summed) != 1:  # a matrix from the other side
            return max(self.linear(after, size_at(move.summed, self.symbols), width), traffic)
        return 0.5 * traffic if self.fuses else traffic + self.machine.launch

    def linear(self, rows: int, inputs: int, outputs: int) -> float:
        """Seconds of one dense map; plans ask for few of them again and again."""
        key = (rows, inputs, outputs)
        if key not in self._timed:
            self._timed[key] = self.machine.linear_seconds(rows, inputs, outputs, self.itemsize)
        return self._timed[key]

    def pair(self, rows: int, inputs: int, rank: int, outputs: int) -> float:
        """Seconds of one low-rank pair."""
        key = (rows, inputs, rank, outputs)
        if key not in self._timed:
            self._timed[key] = self.machine.pair_seconds(rows, inputs, rank, outputs, self.itemsize)
        return self._timed[key]

    def product(self, product: Product) -> float:
        """Seconds of a product of values whose axes have labels, or of what is left of it where there is no weight."""
        made = math.prod(size_at(product.sizes[label], self.symbols) for label in product.result)
        if not product.matrix:
            moved = self.view() if product.source != product.result else 0.0
            return moved + (self.elementwise(made, 1) if product.shifts or product.scales else 0.0)
        groups, rows, inputs, outputs = product.extents(self.symbols)
        added = self.elementwise(made, 1) if product.shifts and product.spelling is None else 0.0
        machine = self.machine
        work = groups * machine.work_seconds(rows, inputs, outputs, self.itemsize)
        return work + machine.launch_seconds(self.itemsize) + added

    def convolution(self, convolve: Convolve, rows: int, inputs: int, outputs: int, groups: int = 1) -> float:
        """Seconds of a convolution that makes `rows` feature vectors."""
        window = inputs // groups * convolve.volume
        work = product_flops(rows, window, outputs) / self.machine.flop_rate
        size = window * outputs + rows * (outputs + inputs)
        return max(work, self.itemsize * size / self.machine.bandwidth) + self.machine.launch

    def elements(self, elements: Sequence[Element], rows: int, inputs: int, outputs: int) -> float:
        """Seconds of a level's elements as the graph has them."""
        for element in elements:
            if isinstance(element, Convolve):
                return self.convolution(element, rows, inputs, outputs, element.groups)
        if not elements:
            return 0.0
        if all(isinstance(element, Shift | Scale) for element in elements):
            return self.elementwise(rows, outputs)
        if all(isinstance(element, Pick) for element in elements):
            return self.view()
        if all(isinstance(element, Structure) for element in elements):
            return self.elementwise(rows, outputs)
        return self.linear(rows, inputs, outputs)

    def as_it_stands(self, tree: Tree) -> float:
        """Seconds of a region as the graph has it, each node once."""
        total, seen = 0.0, set()
        for level in tree.walk_parts():
            if level.is_leaf or level.part is not None or level.value.node in seen:
                continue
            seen.add(level.value.node)
            total += self.level(level)
        return total

    def level(self, level: Tree) -> float:
        """Seconds of one level as the graph has it, its children given."""
        rows, width = self.rows(level), level.width
        if level.move is not None:
            return self.move(level, width)
        if level.is_sum:
            groups = [child for child in level.children if child.is_sum and child.value == level.value]
            terms = len(level.children) + sum(len(group.children) - 1 for group in groups)
            return (terms - 1) * self.elementwise(rows, width, 2)
        if level.joins:
            return self.elementwise(rows, width)
        if level.value.axis == LABELLED:
            return self.product(way_between(level.children[0], level).product or Product.of(level.value))
        if level.children[0].value.bare:  # done in the same breath as the norm
            return _OF_A_NORM * self.elementwise(rows, width)
        return self.elements(level.elements, rows, level.children[0].width, width)
