"""Reads each node of a graph as a step of a chain, with the reason why it must not be merged, if any."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from ..arguments import is_operator, named_arguments, packet
from ..regions import Regions, written_operands
from ..rewrite import Context, source_line, val
from ..shapes import same_sizes
from .affine import feature_value, read_affine
from .spellings import read_map
from .steps import Apply, Step
from .views import read_view
from .weights import is_leaf, leaves, name_of, weight_only_nodes

aten = torch.ops.aten
_FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_NORMS = (
    aten.layer_norm,
    aten.rms_norm,
    aten.batch_norm,
    aten.group_norm,
    aten.instance_norm,
    aten.native_layer_norm,
)
_DROPOUTS = (aten.dropout, aten.feature_dropout, aten.alpha_dropout, aten.feature_alpha_dropout)
_AFFINE_IN_PLACE = (aten.add_, aten.sub_, aten.mul_, aten.div_, aten.neg_)
_COPIES = (aten.alias, aten.clone, aten.contiguous, aten.to, aten._to_copy, aten.expand, aten.slice)


class Classifier:
    """Reads nodes as steps; a node is read once.

    Args:
        graph: the graph, as it is before anything is rewritten.
        facts: what the graph does around each node.
        context: what the pass was told.
    """

    def __init__(self, graph: fx.Graph, facts: Regions, context: Context) -> None:
        self.fixed = weight_only_nodes(graph)
        self.facts = facts
        self.context = context
        self._steps: dict[fx.Node, Step | None] = {}

    def step(self, node: fx.Node) -> Step | None:
        """The step that a node is; None where it is nothing that a chain can go through or stop at."""
        if node not in self._steps:
            self._steps[node] = self._read(node) if _is_tensor_operator(node) else None
        return self._steps[node]

    def _read(self, node: fx.Node) -> Step | None:
        step = read_map(node, self.fixed)
        if step is not None:
            return Step(node, step.operand, "map", step.terms, self._map_problem(step))
        step = read_affine(node, self.fixed)
        if step is not None:
            problem = self._value_problem(step) or self._numeric_problem(step)
            return Step(node, step.operand, "affine", step.terms, problem)
        return read_view(node) or self._read_same(node) or self._read_barrier(node)

    def _read_same(self, node: fx.Node) -> Step | None:
        if packet(node) in _DROPOUTS:
            given = named_arguments(node)
            operand = given["input"]
            if not given["train"] or given["p"] == 0:
                return Step(node, operand, "same")
            return _barrier(node, operand, f"dropout with p={given['p']} is active in between")
        if packet(node) is aten.detach and not self.context.grad:
            return Step(node, node.all_input_nodes[0], "same")
        if packet(node) in _COPIES and node.all_input_nodes:
            return _read_copy(node, node.all_input_nodes[0])
        return None

    def _read_barrier(self, node: fx.Node) -> Step | None:
        if packet(node) in _AFFINE_IN_PLACE:
            operand = written_operands(node)[0]
            return _barrier(node, operand, f"{_call(node)} changes the value between the maps in place")
        if packet(node) in _NORMS:
            operand = node.all_input_nodes[0]
            return _barrier(
                node, operand, f"{_call(node)} between the maps is not a fixed linear map of the features"
            )
        if packet(node) is aten.detach:
            return _barrier(node, node.all_input_nodes[0], f"{_call(node)} between the maps stops gradients")
        return None

    def _map_problem(self, step: Step) -> str:
        weight = step.matrix.node
        if weight not in self.fixed:
            return (
                f"the weight {weight.name!r} is computed at run time or is an input of the graph, "
                "not a parameter, so there is nothing to fold"
            )
        if not is_leaf(weight):
            names = ", ".join(name_of(leaf) for leaf in leaves([weight]))
            return (
                f"the weight is a parametrisation, computed by {_call(weight)} from {names}; "
                "remove it (torch.nn.utils.parametrize.remove_parametrizations) so that it can be merged"
            )
        for term in step.terms:
            if not isinstance(term, Apply) and not feature_value(term.value, val(step.node), self.fixed):
                return f"the term that {_call(step.node)} adds is not a bias: it is not one weight a feature"
        return self._value_problem(step) or self._numeric_problem(step, val(weight).dtype)

    def _value_problem(self, step: Step) -> str:
        for leaf in leaves(step.values()):
            writer = self.facts.writer(leaf)
            if writer is not None:
                at = f" at {source_line(writer)}" if source_line(writer) else ""
                return f"the weight {name_of(leaf)!r} is changed inside the graph by {_call(writer)}{at}"
        return ""

    def _numeric_problem(self, step: Step, weight_dtype: torch.dtype | None = None) -> str:
        operand, result = val(step.operand).dtype, val(step.node).dtype
        if step.node in self.facts.autocast:
            return (
                f"{_call(step.node)} runs under autocast ({_name(operand)} to {_name(result)}), where the dtype "
                "of each product is chosen at run time"
            )
        if result != operand or weight_dtype not in (None, operand):
            weight = f" with a {_name(weight_dtype)} weight" if weight_dtype else ""
            return f"{_call(step.node)} turns {_name(operand)}{weight} into {_name(result)}"
        if operand not in _FLOATING:
            return f"{_call(step.node)} computes in {_name(operand)}, not in a real floating-point dtype"
        return ""


def _read_copy(node: fx.Node, operand: fx.Node) -> Step | None:
    before, after = val(operand), val(node)
    if not same_sizes(before.shape, after.shape) or before.device != after.device:
        return None
    if before.dtype != after.dtype:
        reason = f"the dtype changes from {_name(before.dtype)} to {_name(after.dtype)} between the maps"
        return _barrier(node, operand, reason)
    return Step(node, operand, "same")


def _barrier(node: fx.Node, operand: fx.Node, reason: str) -> Step:
    return Step(node, operand, "barrier", problem=reason)


def _is_tensor_operator(node: fx.Node) -> bool:
    return is_operator(node) and isinstance(node.meta.get("val"), torch.Tensor)


def _call(node: fx.Node) -> str:
    target: Any = node.target
    return f"`{target.overloadpacket.__name__ if is_operator(node) else getattr(target, '__name__', target)}`"


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
