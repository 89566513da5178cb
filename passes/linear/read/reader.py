"""Reads the nodes of a graph along a feature axis, with the reason where no merge may go on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from ...graph.arguments import DROPOUTS, is_operator, named_arguments, packet
from ...graph.effects import Effects, written_operands
from ...graph.nodes import val
from ...graph.shapes import same_sizes
from ...graph.sizes import is_size
from ...graph.weights import name_of, weight_only_nodes
from ...refusal import Refusal
from ...site import Context
from ..algebra.elements import (
    Apply,
    Contract,
    Convolve,
    Deviation,
    Element,
    Permute,
    Scale,
    Shift,
    feature_value,
    mixes,
    weights_of,
)
from ..algebra.layout import permutation
from ..algebra.readings import Adds, Joins, Maps, Moves, Reading, Stops, operands
from ..algebra.values import LABELLED, Value, readable
from .arithmetic import read_affine, read_batch_norm, read_table_sum
from .moves import read_move
from .norms import read_norm
from .obstacles import call, kept_or_changed, written_at
from .products import read_labelled, read_map
from .resampling import is_idle_pad, is_idle_upsample
from .selections import read_selection

aten = torch.ops.aten
FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NORMS = (
    aten.layer_norm,
    aten.rms_norm,
    aten.batch_norm,
    aten.group_norm,
    aten.instance_norm,
    aten.native_layer_norm,
)
_AFFINE_IN_PLACE = (aten.add_, aten.sub_, aten.mul_, aten.div_, aten.neg_)
_COPIES = (aten.alias, aten.clone, aten.contiguous, aten.to, aten._to_copy)


class Reader:
    """Reads nodes; each is read once for an axis.

    Args:
        graph: the graph, as it is before anything is rewritten.
        facts: what the graph does around each node.
        context: what the pass was told.
        labelled: read products that share any axes with their weights, with a label for each axis of their values,
            instead of maps of the features along one axis.
    """

    def __init__(self, graph: fx.Graph, facts: Effects, context: Context, labelled: bool = False) -> None:
        self.fixed = weight_only_nodes(graph)
        self.facts = facts
        self.context = context
        self.labelled = labelled
        self._maps: dict[fx.Node, tuple[Value, int, tuple[Element, ...]] | None] = {}
        self._readings: dict[Value, Reading | None] = {}

    def axes(self, node: fx.Node) -> Sequence[int]:
        """The feature axes that a node's value may be read along."""
        if not isinstance(node.meta.get("val"), torch.Tensor):
            return ()
        return (LABELLED,) if self.labelled else range(val(node).dim())

    def is_subject(self, node: fx.Node) -> bool:
        """Whether a map is one of those that this reader is for: those with labels, if they need them."""
        return not self.labelled or (self._map(node) is not None and read_map(node, self.fixed) is None)

    def map_axis(self, node: fx.Node) -> int | None:
        """The feature axis of the result of a node that is a linear map by itself; None for any other node."""
        found = self._map(node)
        return None if found is None else found[1]

    def map_elements(self, node: fx.Node) -> tuple[Element, ...]:
        """What a node that is a linear map by itself does to features; empty for any other node."""
        found = self._map(node)
        return () if found is None else found[2]

    def read(self, value: Value) -> Reading | None:
        """What a value means; None where it is nothing that a merge could go through or stop at."""
        if value not in self._readings:
            self._readings[value] = self._read(value) if readable(value.node, value.axis) else None
        return self._readings[value]

    def _map(self, node: fx.Node) -> tuple[Value, int, tuple[Element, ...]] | None:
        if node not in self._maps:
            tensor = is_operator(node) and isinstance(node.meta.get("val"), torch.Tensor)
            read = read_labelled if self.labelled else read_map
            found = read(node, self.fixed) if tensor else None
            self._maps[node] = None if found is not None and self._is_carry(node, found) else found
        return self._maps[node]

    def _is_carry(self, node: fx.Node, found: tuple[Value, int, tuple[Element, ...]]) -> bool:
        """Whether a product with a matrix that is computed at run time is better read as one from the other side."""
        operand, axis, elements = found
        if any(weight in self.fixed for element in elements[:1] for weight in weights_of(element)):
            return False
        move = read_move(node, axis)
        # A map that cannot be merged, as its weight is no weight, is reported where there is nothing else to say.
        return move is not None and (self.is_mapped(move.operand) or not self.is_mapped(operand))

    def is_mapped(self, value: Value) -> bool:
        """Whether a value comes from a map of its features."""
        stack, seen = [value], {value}
        while stack:
            reading = self.read(stack.pop())
            if isinstance(reading, Maps) and any(map(mixes, reading.elements)):
                return True
            if isinstance(reading, Stops) and reading.is_map:
                return True
            if reading is not None:
                single = isinstance(reading, Maps | Moves | Stops)
                further = {reading.operand} if single else set(reading.operands)  # type: ignore[union-attr]
                stack += further - seen
                seen |= further
        return False

    def is_table(self, value: Value) -> bool:
        """Whether a value comes from values that depend on weights alone: rows looked up in them, and sums of those."""
        stack = [value]
        while stack:
            current = stack.pop()
            if current.node in self.fixed:
                continue
            reading = self.read(current)
            if not isinstance(reading, Moves | Adds):
                return False
            stack += operands(reading)
        return True

    def _is_carried(self, value: Value) -> bool:
        """Whether a value comes from a carry that costs the less, the narrower its features are."""
        reading = self.read(value)
        while isinstance(reading, Moves) and reading.view:
            reading = self.read(reading.operand)
        return isinstance(reading, Moves) and bool(reading.beside)

    def _read(self, value: Value) -> Reading | None:
        node, axis = value.node, value.axis
        if node in self.fixed or node.op != "call_function":
            return None
        if value.bare:
            return self._read_stop(node, axis)
        found = self._map(node)
        if found is not None and found[1] == axis:
            problem = self._map_problem(node, *found)
            if problem:
                return Stops(node, found[0], problem, is_map=True)
            return Maps(node, found[0], found[2])
        affine = (
            read_batch_norm(node, axis)
            or read_norm(value, self.fixed)
            or read_affine(node, axis, self.fixed)
            or read_table_sum(node, axis, self.is_table)
        )
        if isinstance(affine, Maps):
            problem = self._problem(node, affine.operand, affine.elements)
            return Stops(node, affine.operand, problem) if problem else affine
        if affine is not None:
            problems = (self._numeric_problem(node, each) for each in affine.operands)
            tables = [each.node for each in affine.operands if each.node in self.fixed]
            problem = next(filter(None, problems), "") or kept_or_changed(tables, self.facts, self.context)
            return Stops(node, affine.operands[0], problem) if problem else affine
        if axis == LABELLED:
            return self._read_order(node) or self._read_same(node, axis) or self._read_stop(node, axis)
        joined = self._read_join(node, axis)
        return (
            joined
            or read_selection(node, axis)
            or self._read_same(node, axis)
            or self._read_carry(node, axis)
            or self._read_stop(node, axis)
        )

    def _read_order(self, node: fx.Node) -> Maps | None:
        """A permutation of axes that have labels."""
        operands = node.all_input_nodes
        if len(operands) != 1 or not readable(operands[0], LABELLED):
            return None
        order = permutation(node, val(operands[0]).dim()) if is_operator(node) else None
        return None if order is None else Maps(node, Value(operands[0], LABELLED), (Permute(tuple(order)),))

    def _read_carry(self, node: fx.Node, axis: int) -> Moves | Stops | None:
        move = read_move(node, axis)
        if move is None or move.view:
            return move
        if free_unbacked_symbols(val(node)) - free_unbacked_symbols(move.operand.tensor):
            return None  # the data decide how many rows there are, and what follows asks this value for it
        if move.scales and not self.is_mapped(move.operand) and not self._is_carried(move.operand):
            return None  # nothing is gained by going on
        if move.scales and any(self._comes_from(each, move.operand.node) for each in move.beside):
            return (
                None  # a norm, or a map of hyperbolic geometry: a formula of its own, which later passes read
            )
        again = next((each for each in move.through if each in self.facts.autocast), None)
        problem = (
            self._table_problem(move)
            or self._numeric_problem(node, move.operand)
            or (self._numeric_problem(again, Value(again, axis)) if again is not None else "")
        )
        if move.detached is not None and not problem and move.operand.node not in self.fixed:
            return None  # that row's gradient stops below what is computed from it, and not above
        is_map = move.looks_up and move.operand.node in self.fixed
        return Stops(node, move.operand, problem, is_map) if problem else move

    def _table_problem(self, move: Moves) -> str:
        """Why no map may be folded into what a look-up reads; empty for anything else."""
        table = move.operand.node
        if table not in self.fixed:
            return ""
        given = named_arguments(move.node) if packet(move.node) is aten.embedding else {}
        for name, kind in (("sparse", "sparse"), ("scale_grad_by_freq", "scaled by frequency")):
            if given.get(name):
                return Refusal("table_gradient", table=name_of(table), kind=kind)
        return kept_or_changed([table], self.facts, self.context)

    def _comes_from(self, node: fx.Node, source: fx.Node) -> bool:
        """Whether a value is computed from another one, through no linear map."""
        stack, seen = [node], {node}
        while stack:
            current = stack.pop()
            if current is source:
                return True
            if self._map(current) is None:
                read = [each for each in current.all_input_nodes if not is_size(current, each)]
                below = [each for each in read if each not in seen and not each < source]
                seen.update(below)
                stack += below
        return False

    def _read_join(self, node: fx.Node, axis: int) -> Joins | Stops | None:
        if packet(node) is not aten.cat:
            return None
        given = named_arguments(node)
        if given["dim"] % val(node).dim() != axis:
            return None
        operands = tuple(Value(operand, axis) for operand in given["tensors"])
        if not all(readable(operand.node, axis) and operand.width for operand in operands):
            return None
        problem = next((self._numeric_problem(node, operand) for operand in operands), "")
        return Stops(node, operands[0], problem) if problem else Joins(node, operands)

    def _read_same(self, node: fx.Node, axis: int) -> Maps | Stops | None:
        if packet(node) in DROPOUTS:
            given = named_arguments(node)
            operand = Value(given["input"], axis)
            if not given["train"] or given["p"] == 0:
                return Maps(node, operand)
            return Stops(node, operand, Refusal("dropout", p=given["p"]))
        if is_idle_upsample(node) or is_idle_pad(node):
            return Maps(node, Value(node.all_input_nodes[0], axis))
        if packet(node) in _COPIES and node.all_input_nodes:
            return _read_copy(node, node.all_input_nodes[0], axis)
        return None

    def _read_stop(self, node: fx.Node, axis: int) -> Stops | None:
        if packet(node) in _AFFINE_IN_PLACE:
            operand = written_operands(node)[0]
            return Stops(node, Value(operand, axis), Refusal("in_place", operator=call(node)))
        if packet(node) in _NORMS:
            operand = node.all_input_nodes[0]
            return Stops(node, Value(operand, axis), Refusal("norm", operator=call(node)))
        if packet(node) is aten.detach:
            operand = node.all_input_nodes[0]
            return Stops(node, Value(operand, axis), Refusal("detached", operator=call(node)))
        return None

    def _map_problem(self, node: fx.Node, operand: Value, axis: int, elements: tuple[Element, ...]) -> str:
        weight = next(
            weights_of(each)[0] for each in elements if isinstance(each, Apply | Contract | Convolve)
        )
        if weight not in self.fixed:
            return Refusal("run_time_weight", weight=weight.name, at=written_at(weight))
        for element in elements:
            if isinstance(element, Shift) and not self._adds_features(node, axis, element):
                return Refusal("no_bias", operator=call(node))
        return self._problem(node, operand, elements, val(weight).dtype)

    def _adds_features(self, node: fx.Node, axis: int, element: Shift) -> bool:
        value, last = element.value, val(node).dim() - 1
        along = axis not in (last, LABELLED)
        if isinstance(value, fx.Node) and along and val(value).dim() == 1 and _own_bias(node):
            return value in self.fixed
        return feature_value(value, val(node), axis, self.fixed)

    def _problem(
        self,
        node: fx.Node,
        operand: Value,
        elements: tuple[Element, ...],
        weight_dtype: torch.dtype | None = None,
    ) -> str:
        read = [weight for element in elements for weight in weights_of(element)]
        problem = kept_or_changed(read, self.facts, self.context)
        if problem:
            return problem
        if any(
            isinstance(each, Scale | Shift)
            and isinstance(each.value, Deviation)
            and each.value.variance not in self.fixed
            for each in elements
        ):
            return Refusal("statistics", operator=call(node))
        return self._numeric_problem(node, operand, weight_dtype)

    def _numeric_problem(self, node: fx.Node, value: Value, weight_dtype: torch.dtype | None = None) -> str:
        operand, result = value.tensor.dtype, val(node).dtype
        if node in self.facts.autocast:
            return Refusal("autocast", operator=call(node), before=_name(operand), after=_name(result))
        if result != operand or weight_dtype not in (None, operand):
            weight = f" with a {_name(weight_dtype)} weight" if weight_dtype else ""
            return Refusal(
                "converts", operator=call(node), before=_name(operand), weight=weight, after=_name(result)
            )
        if operand not in FLOATING:
            return Refusal("not_floating", operator=call(node), dtype=_name(operand))
        return ""


def _own_bias(node: fx.Node) -> bool:
    """Whether a node adds its bias along the features by itself, wherever they lie."""
    return packet(node) not in (aten.addmm,)


def _read_copy(node: fx.Node, operand: fx.Node, axis: int) -> Maps | Stops | None:
    before, after = val(operand), val(node)
    if not same_sizes(before.shape, after.shape) or before.device != after.device:
        return None
    value = Value(operand, axis)
    if before.dtype != after.dtype:
        reason = Refusal("dtype_changes", before=_name(before.dtype), after=_name(after.dtype))
        return Stops(node, value, reason)
    return Maps(node, value)


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
