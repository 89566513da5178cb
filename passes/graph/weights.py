"""Expressions over weights: what a fold may read, and how it is named."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import fx

from .arguments import is_operator, named_arguments, packet
from .nodes import is_weight, val

aten = torch.ops.aten


@dataclass(frozen=True)
class Matrix:
    """A weight matrix as a graph spells it.

    Args:
        node: the node that holds the values, behind any transposition.
        transposed: `node` is laid out `[in, out]`; otherwise `[out, in]`.
    """

    node: fx.Node
    transposed: bool

    @property
    def inputs(self) -> int:
        """The width that the map reads."""
        return int(val(self.node).shape[0 if self.transposed else 1])

    @property
    def outputs(self) -> int:
        """The width that the map makes."""
        return int(val(self.node).shape[1 if self.transposed else 0])

    @property
    def entries(self) -> int:
        """Number of entries."""
        return self.inputs * self.outputs


def matrix(node: fx.Node, transposed: bool) -> Matrix:
    """Follow transpositions and aliases back to the node that holds a matrix."""
    while is_operator(node):
        if packet(node) in (aten.t, aten.numpy_T, aten.mT) or _swaps_two_axes(node):
            transposed = not transposed
        elif packet(node) not in (aten.alias, aten.detach):
            break
        node = node.all_input_nodes[0]
    return Matrix(node, transposed)


def _swaps_two_axes(node: fx.Node) -> bool:
    if val(node).dim() != 2:
        return False
    given = named_arguments(node)
    if packet(node) in (aten.transpose, aten.swapaxes):
        axes = [value for name, value in given.items() if name != "self"]
        return len(axes) == 2 and {axis % 2 for axis in axes} == {0, 1}
    return packet(node) is aten.permute and [axis % 2 for axis in given["dims"]] == [1, 0]


_OWNED = ("weight", "bias", "running_mean", "running_var", "weight_g", "weight_v", "weight_orig")
# `layer.parametrizations.weight.original0` is what `layer.weight` is computed from.
_PARAMETRISED = re.compile(r"\.parametrizations\.(\w+)\.\w+$")
_VIEWS = (
    aten.t,
    aten.mT,
    aten.numpy_T,
    aten.transpose,
    aten.permute,
    aten.view,
    aten.reshape,
    aten.slice,
    aten.select,
    aten.unsqueeze,
    aten.squeeze,
    aten.split,
    aten.split_with_sizes,
    aten.chunk,
    aten.alias,
    aten.detach,
)


def is_view(node: fx.Node) -> bool:
    """Whether a node only shows entries of its operand."""
    return packet(node) in _VIEWS or node.target is operator.getitem


def is_view_of_leaf(node: fx.Node) -> bool:
    """Whether a node shows entries of one parameter, buffer or constant as they are."""
    while not is_leaf(node):
        if not is_view(node):
            return False
        node = node.all_input_nodes[0]
    return True


def is_leaf(node: fx.Node) -> bool:
    """Whether a node is a parameter, a buffer or a constant of the graph."""
    return is_weight(node) or (node.op == "get_attr" and isinstance(node.meta.get("val"), torch.Tensor))


def weight_only_nodes(graph: fx.Graph) -> set[fx.Node]:
    """The nodes whose values depend on parameters, buffers and constants alone, and repeatably so.

    What is folded already is such a value, though it may be computed from an identity matrix as well.
    """
    found = set(expressions(node for node in graph.nodes if "fold" in node.meta))
    for node in graph.nodes:
        operands = node.all_input_nodes
        repeatable = _repeatable(node) if is_operator(node) else node.target is operator.getitem
        computed = repeatable and operands and found.issuperset(operands)
        if computed or is_leaf(node):
            found.add(node)
    return found


def _repeatable(node: fx.Node) -> bool:
    target = node.target
    random = torch.Tag.nondeterministic_seeded in target.tags  # type: ignore[union-attr]
    return not target._schema.is_mutable and not random  # type: ignore[union-attr]


def leaves(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """The parameters, buffers and constants that some weight-only nodes are computed from, each once."""
    return [node for node in expressions(nodes) if node.op in ("placeholder", "get_attr")]


def expressions(nodes: Iterable[fx.Node]) -> list[fx.Node]:
    """Some nodes and all that they are computed from, each once."""
    seen: dict[fx.Node, None] = {}
    stack = list(nodes)[::-1]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen[node] = None
            stack += list(node.all_input_nodes)[::-1]
    return list(seen)


def name_of(node: fx.Node) -> str:
    """The qualified name of a weight, or of the first weight of an expression over weights."""
    first = leaves([node])
    leaf = first[0] if first else node
    return str(leaf.meta.get("weight", leaf.target))


def owner(node: fx.Node) -> str:
    """The module that owns a weight: its qualified name without `.weight` and the like."""
    full = _PARAMETRISED.sub(r".\1", name_of(node))
    name, _, last = full.rpartition(".")
    return name if name and last in _OWNED else full


def merged_name(nodes: Iterable[fx.Node], kind: str) -> str:
    """Name a fold after the owners of its weights, in the order of the chain, such as `head.0+head.2.weight`.

    Args:
        nodes: the weights.
        kind: what the fold is, `weight` or `bias`.
    """
    return f"{'+'.join(dict.fromkeys(map(owner, nodes)))}.{kind}"
