"""Why a region must stay as it is, whatever it costs."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx

from ...graph.arguments import is_operator, packet
from ...graph.effects import Effects
from ...graph.nodes import short_line, val
from ...graph.shapes import memory_format
from ...graph.weights import expressions, is_leaf, is_view, leaves, name_of
from ...refusal import Refusal
from ...site import Context
from ..algebra.tree import Tree
from ..algebra.values import LABELLED

aten = torch.ops.aten


def obstacle(tree: Tree, facts: Effects, context: Context) -> str:
    """Why a region must not be rewritten; empty if it may be."""
    if context.grad:
        problem = trained(tree.weights())
        if problem:
            return problem
    if len({node in facts.no_grad for node in [*tree.nodes(), *_differentiable(tree)]}) > 1:
        return Refusal("gradient_mode", what="maps")
    written = _written(tree, facts)
    if written is not None:
        return written
    output = tree.value.node
    labelled = tree.value.axis == LABELLED  # then the strides may come out as they were
    if memory_format(val(output)) is None and not is_part(output) and not labelled:
        return Refusal("strides", strides=str(tuple(val(output).stride())))
    return ""


def trained(weights: Iterable[fx.Node]) -> str:
    """What is said of weights whose gradients are wanted; empty if there are none."""
    names = [name_of(leaf) for leaf in sorted(leaves(weights)) if val(leaf).requires_grad]
    if not names:
        return ""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return Refusal("trained", names=", ".join(names[:4]) + more)


def kept_or_changed(weights: Iterable[fx.Node], facts: Effects, context: Context) -> str:
    """What is said of weights, or expressions over weights, that must not be folded; empty if there are none."""
    nodes = expressions(weights)
    for leaf in filter(is_leaf, nodes):
        if context.keeps(name_of(leaf)):
            return Refusal("kept", weight=name_of(leaf))
        if reason := context.untraced.get(name_of(leaf)):
            return Refusal("untraced", weight=name_of(leaf), why=reason)
        writer = facts.writer(leaf)
        if writer is not None:
            return Refusal(
                "weight_changed", weight=name_of(leaf), operator=call(writer), at=written_at(writer)
            )
    for node in nodes:
        # What was computed may be written as well, through another view, before it is used.
        writer = facts.writer(node)
        if writer is not None:
            return Refusal(
                "expression_changed", value=node.name, operator=call(writer), at=written_at(writer)
            )
        if node in facts.autocast and not (is_leaf(node) or is_view(node)):
            return Refusal("autocast_weight", weight=name_of(node), operator=call(node))
    return ""


def call(node: fx.Node) -> str:
    """The operator of a node as a user would look it up, in backticks."""
    target: Any = node.target
    if target is operator.getitem:
        return "indexing"
    return f"`{target.overloadpacket.__name__ if is_operator(node) else getattr(target, '__name__', target)}`"


def is_part(node: fx.Node) -> bool:
    """Whether a value is a view of part of a larger one; later views accept it just as well when it comes alone."""
    return node.target is operator.getitem or packet(node) in (aten.slice, aten.select, aten.narrow)


def _differentiable(tree: Tree) -> list[fx.Node]:
    """What would be computed again, if gradients may go through it."""
    may = any(val(node).is_floating_point() for node in tree.beside())
    return [node for node in tree.through() if may]


def _written(tree: Tree, facts: Effects) -> str | None:
    """What is said where a value that the region is given, or one in it, is changed before its end."""
    nodes = [*tree.nodes(), *tree.through()]
    first = min(nodes, key=facts.position.__getitem__)
    last = tree.value.node
    for node in tree.given():
        writer = facts.written_between(node, first, last)
        if writer is not None:
            return Refusal("input_changed", value=node.name, at=written_at(writer))
    for node in nodes:
        writer = facts.writer(node)
        if writer is not None and node is not last:
            return Refusal("value_changed", role="intermediate", value=node.name, at=written_at(writer))
    return None


def written_at(node: fx.Node) -> str:
    """The line of the user's code that a value comes from, as the end of a sentence; empty where none is known."""
    return f" at {short_line(node)}" if short_line(node) else ""
