"""Walks a graph and gives each node its normal form, or the reason why it has none."""

from __future__ import annotations

import heapq
import operator
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

import torch
from torch import fx

from ...graph.arguments import is_operator, named_arguments
from ...graph.shapes import same_size
from ..rows.algebra import Algebra
from ..rows.forms import Form, TooLarge, constant
from .operators import CONSTANTS, HANDLERS, NONNEGATIVE
from .values import Axes, NotRowwise, Value, has_time, number_axes

SPLITS = ("split_with_sizes", "split")
DEEPEST = 100
LARGEST_CONE = 500


def operator_name(node: fx.Node) -> str:
    """`mul` of `aten.mul.Tensor` and of `aten.mul_.Tensor`; empty for what is no ATen operator."""
    if not is_operator(node):
        return ""
    namespace, _, name = node.target._schema.name.partition("::")  # type: ignore[union-attr]
    return name.rstrip("_") if namespace == "aten" else ""


class Evaluator:
    """Normal forms of the nodes that are computed, row by row, from given row vectors.

    Args:
        algebra: the table of atoms.
        vectors: the nodes to take as row vectors, with their axes; everything that is not computed from them row by row
            is a row scalar, where its shape is that of one, or opaque.
        order: position of every node of the graph.
        ends: nodes that are maps of their own already: nothing is seen through them.
        curvatures: of rows that begin with their time, those that are points of the hyperboloid, with its curvature.
    """

    def __init__(
        self,
        algebra: Algebra,
        vectors: Mapping[fx.Node, Axes],
        order: Mapping[fx.Node, int],
        ends: Iterable[fx.Node] = (),
        curvatures: Mapping[fx.Node, Form] | None = None,
    ) -> None:
        self.algebra = algebra
        self.order = order
        self.curvatures = dict(curvatures or {})
        self.vectors: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Value] = {}
        for node, axes in vectors.items():
            parts = (node, "space") if has_time(axes) else (node,)
            self.vectors[node] = algebra.index("vector", *parts)
            form = algebra.atom("vector", *parts)
            if has_time(axes):
                time = algebra.atom("time", node)
                if (c := self.curvatures.get(node)) is not None:
                    time = time_of(algebra, form, c)
                form = algebra.add(algebra.multiply(algebra.time_axis, time), form)
            self.values[node] = Value(form, axes)
        self.across = next((s for n, a in vectors.items() for s in _across(n, a)), None)
        self.leaves: set[fx.Node] = set()
        self.opaque: dict[fx.Node, str] = {}
        for node in ends:
            if node not in self.vectors:
                self.cut(node)
        self._depth = 0

    def cone(self) -> Iterator[tuple[fx.Node, Value]]:
        """Every node computed row by row from the vectors, in order; `cut` a node to go no further there."""
        pending = [(self.order[user], user) for node in self.vectors for user in node.users]
        heapq.heapify(pending)
        seen: set[fx.Node] = set()
        while pending and len(seen) < LARGEST_CONE:
            _, node = heapq.heappop(pending)
            if node in seen or node in self.opaque:
                continue
            seen.add(node)
            try:
                value = self._evaluate(node)
            except NotRowwise:
                if operator_name(node) in SPLITS:  # its parts are values, itself is none
                    for user in node.users:
                        heapq.heappush(pending, (self.order[user], user))
                continue
            if node in self.leaves:
                continue
            yield node, value
            if node not in self.opaque:
                for user in node.users:
                    heapq.heappush(pending, (self.order[user], user))

    def cut(self, node: fx.Node) -> None:
        """Let nothing be seen through this node."""
        self.values.pop(node, None)
        self.opaque[node] = f"{node.name} is a map of its own"

    def value(self, argument: Any) -> Value:
        """The value of an argument, number or node; `NotRowwise` where it has none."""
        if isinstance(argument, bool) or not isinstance(argument, fx.Node | int | float):
            raise NotRowwise(f"an argument of type {type(argument).__name__}")
        if not isinstance(argument, fx.Node):
            return Value(constant(argument))
        if argument in self.values:
            return self.values[argument]
        if argument in self.opaque:
            raise NotRowwise(self.opaque[argument])
        if not isinstance(argument.meta.get("val"), torch.Tensor):
            raise NotRowwise("a size or another non-tensor that is not known")
        if self._axes(argument.meta["val"]) is None and operator_name(argument) not in CONSTANTS:
            raise NotRowwise(f"{argument.name} is not computed from the rows alone")
        return self._evaluate(argument)

    def number(self, argument: Any) -> float | None:
        """The number that an argument is, None for None; `NotRowwise` for what is not known."""
        if argument is None:
            return None
        number = self.value(argument).form.number
        if number is None:
            raise NotRowwise("a bound that is not a constant")
        return number

    def _evaluate(self, node: fx.Node) -> Value:
        if node in self.values:
            return self.values[node]
        is_part = node.op == "call_function" and node.target is operator.getitem
        handler = HANDLERS.get("getitem" if is_part else operator_name(node))
        try:
            if handler is None or self._depth > DEEPEST:
                raise NotRowwise(f"{node.target} is not part of the row algebra")
            self._depth += 1
            try:
                result = handler(self, node, {} if is_part else named_arguments(node))
            finally:
                self._depth -= 1
        except (NotRowwise, TooLarge, ValueError, ZeroDivisionError, OverflowError) as error:
            leaf = self._leaf(node)
            if leaf is None:
                self.opaque[node] = str(error)
                raise NotRowwise(str(error)) from error
            result = leaf
        self.values[node] = result
        return result

    def _leaf(self, node: fx.Node) -> Value | None:
        """The node as a row scalar of its own, where it has the shape and dtype of one."""
        tensor = node.meta.get("val")
        if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
            return None
        axes = self._axes(tensor)
        if axes is None:
            return None
        self.leaves.add(node)
        nonnegative = operator_name(node) in NONNEGATIVE
        return Value(self.algebra.atom("scalar", node, nonnegative=nonnegative), axes)

    def _axes(self, tensor: torch.Tensor) -> Axes | None:
        """The axes of a number for each row, or for each row of the second side of pairs; None for another tensor."""
        axes = number_axes(tensor)
        if axes is None and self.across is not None and tensor.ndim == 1:
            return ("right",) if same_size(tensor.shape[0], self.across) else None
        return axes


def _across(node: fx.Node, axes: Axes) -> Iterator[int | torch.SymInt]:
    """How many rows the second side of pairs has."""
    shape = node.meta["val"].shape
    yield from (size for size, label in zip(shape, axes, strict=True) if label == "right")


def time_of(algebra: Algebra, space: Form, c: Form) -> Form:
    """`sqrt(1 / c + ||x||^2)`, the time of a point of the hyperboloid."""
    return algebra.power(algebra.add(algebra.power(c, -1), algebra.inner(space, space)), Fraction(1, 2))
