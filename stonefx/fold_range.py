"""Whether folds keep their values when they are rounded to the dtype that they are used in."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from .passes.graph.weights import is_view_of_leaf

aten = torch.ops.aten
# A row of fewer entries may be small by chance, where the products that it sums cancel.
_ENTRIES = 16


@dataclass(frozen=True)
class Range:
    """What the largest magnitudes of the rows of a fold must lie in, for its dtype to hold them.

    Args:
        name: of the fold.
        dtype: that it is rounded to.
    """

    name: str
    dtype: torch.dtype

    @property
    def is_bias(self) -> bool:
        """Whether the fold is added to a result that is rounded as coarsely, so that it may be as small as it likes."""
        return self.name.endswith(".bias")

    @property
    def least(self) -> float:
        """From here on, rounding to a multiple of the smallest number changes a row by two units at most."""
        return 0.0 if self.is_bias else torch.finfo(self.dtype).tiny / 4

    @property
    def most(self) -> float:
        """The largest number of the dtype."""
        return torch.finfo(self.dtype).max

    def leaves(self, largest: torch.Tensor) -> torch.Tensor:
        """Whether some magnitude lies outside, NaN included: one bool, on the device of the magnitudes."""
        inside = (largest >= self.least) & (largest <= self.most)
        # In float64 nothing tells a zero from a product that vanished.
        if self.dtype != torch.float64:
            inside |= largest == 0
        return ~inside.all()

    def describe(self, largest: torch.Tensor) -> str:
        """What is said of a fold with such magnitudes."""
        dtype = str(self.dtype).removeprefix("torch.")
        if not bool(largest.isfinite().all()):
            return f"the fold {self.name!r} is not finite"
        if bool((largest > self.most).any()):
            return f"the fold {self.name!r} reaches {float(largest.max()):.2g}, and {dtype} ends at {self.most:.2g}"
        return (
            f"the fold {self.name!r} has a row or column of at most {float(largest.min()):.2g}, where {dtype} loses "
            "its precision"
        )


def with_magnitudes(folds: fx.GraphModule) -> tuple[fx.GraphModule, list[Range]]:
    """Let a graph of folds return, behind the folds, the largest magnitudes of their rows and columns.

    The magnitudes are taken before a fold is rounded to its dtype, so that a product which overflows or vanishes there
    shows. The rows of every axis count, since the entries of an input may be as far apart as those of a weight.

    Returns:
        The graph, and the range of each tensor of magnitudes.
    """
    graph = fx.Graph()
    copied: dict[fx.Node, fx.Node] = {}
    graph.graph_copy(folds.graph, copied)
    roots: Sequence[fx.Node] = folds.graph.output_node().args[0]  # type: ignore[assignment]
    ranges, magnitudes = [], []
    for root in roots:
        for exact, dtype in _roundings(root):
            each = Range(root.meta["fold"], dtype)
            for node in _largest(graph, copied[exact], tuple(exact.meta["val"].shape), each.is_bias):
                ranges.append(each)
                magnitudes.append(node)
    graph.output((*(copied[root] for root in roots), *magnitudes))
    return fx.GraphModule(folds, graph), ranges


def outside(ranges: Sequence[Range], magnitudes: Sequence[torch.Tensor]) -> tuple[str, str]:
    """The first fold that must not be used with these magnitudes, and why; empty if all may."""
    pairs = [(each, largest) for each, largest in zip(ranges, magnitudes, strict=True) if not largest.is_meta]
    answers = [each.leaves(largest) for each, largest in pairs]
    # One answer for all of a device, since asking a GPU makes the program wait.
    devices = {answer.device for answer in answers}
    if not any(bool(torch.stack([a for a in answers if a.device == d]).any()) for d in devices):
        return "", ""
    return next(
        (each.name, each.describe(largest))
        for (each, largest), answer in zip(pairs, answers, strict=True)
        if bool(answer)
    )


def _roundings(root: fx.Node) -> Iterator[tuple[fx.Node, torch.dtype]]:
    """The float64 values that a fold is rounded from, with the dtypes that they are rounded to."""
    dtype = root.meta["val"].dtype
    if "as_it_was" in root.meta:
        return
    if dtype == torch.float64:
        if not is_view_of_leaf(root):
            yield root, dtype
        return
    seen: set[fx.Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen or not isinstance(node.meta.get("val"), torch.Tensor):
            continue
        seen.add(node)
        dtype, operands = node.meta["val"].dtype, node.all_input_nodes
        wide = [each for each in operands if each.meta["val"].dtype == torch.float64]
        if dtype.is_floating_point and dtype != torch.float64 and wide:
            yield wide[0], dtype
        else:
            stack += operands


def _largest(graph: fx.Graph, node: fx.Node, shape: tuple[int, ...], whole: bool) -> list[fx.Node]:
    """The magnitudes that count: each entry of a scale, else the largest of each row that is not short."""
    entries = math.prod(shape)
    if not entries:
        return []
    if len(shape) == 1 and not whole:
        return [graph.call_function(aten.abs.default, (node,))]
    long = [axis for axis, size in enumerate(shape) if entries >= size * _ENTRIES and not whole]
    kept = [[other for other in range(len(shape)) if other != axis] for axis in long] or [
        [*range(len(shape))]
    ]
    return [_largest_along(graph, node, axes) for axes in kept]


def _largest_along(graph: fx.Graph, node: fx.Node, axes: list[int]) -> fx.Node:
    # A norm would say the same, several times slower.
    most = graph.call_function(aten.amax.default, (node, axes))
    least = graph.call_function(aten.amin.default, (node, axes))
    return graph.call_function(aten.maximum.default, (most, graph.call_function(aten.neg.default, (least,))))
