"""Which nodes to take as row vectors: what norms and inner products over the last dimension are taken of."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import fx

from ..graph.arguments import named_arguments
from ..graph.shapes import same_size
from .evaluate import operator_name
from .values import scalar_layout

NORMS = ("linalg_vector_norm", "norm", "linalg_norm", "frobenius_norm")
PRODUCTS = {"linalg_vecdot": ("x", "y"), "dot": ("self", "tensor"), "inner": ("self", "other")}
MOST_ALTERNATIVES = 3

Vectors = tuple[fx.Node, ...]


def candidates(graph: fx.Graph) -> Iterator[list[Vectors]]:
    """For every norm and inner product: the row vectors to try, one or a pair, the nearest first.

    A further alternative looks through a scaling, a negation or a cast of the nearer one.
    """
    seen: set[Vectors] = set()
    for node in graph.nodes:
        operands = _reduced(node)
        if not operands or not all(map(_is_row_vector, operands)) or operands in seen:
            continue
        if len(operands) == 2 and not _same_rows(*operands):
            continue
        seen.add(operands)
        yield list(_alternatives(operands))


def _reduced(node: fx.Node) -> Vectors:
    """The one or two distinct nodes whose squares or products a node sums up; none for other nodes."""
    name = operator_name(node)
    if not name:
        return ()
    given = named_arguments(node)
    if name in NORMS:
        return _nodes(given.get("self", given.get("A")))
    if name == "sum":
        return _squared(given["self"])
    if name == "einsum" and len(given["tensors"]) == 2:
        return _nodes(*given["tensors"])
    if name in PRODUCTS:
        return _nodes(*(given[argument] for argument in PRODUCTS[name]))
    return ()


def _squared(node: object) -> Vectors:
    if not isinstance(node, fx.Node):
        return ()
    name = operator_name(node)
    if name in ("mul", "multiply"):
        given = named_arguments(node)
        return _nodes(given["self"], given["other"])
    if name == "square" or (name == "pow" and node.args[1:2] == (2,)):
        return _nodes(node.args[0])
    return ()


def _nodes(*arguments: object) -> Vectors:
    return tuple(dict.fromkeys(a for a in arguments if isinstance(a, fx.Node)))


def _is_row_vector(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point() and scalar_layout(value) is None


def _same_rows(left: fx.Node, right: fx.Node) -> bool:
    return same_size(left.meta["val"].shape[-1], right.meta["val"].shape[-1])


def _alternatives(operands: Vectors) -> Iterator[Vectors]:
    chains = [list(_through(operand)) for operand in operands]
    if len(chains) == 1:
        yield from ((node,) for node in chains[0])
        return
    for left in chains[0]:
        for right in chains[1]:
            if left is not right:
                yield left, right


def _through(node: fx.Node) -> Iterator[fx.Node]:
    """The node, and what it is a multiple or a cast of."""
    yield node
    for _ in range(MOST_ALTERNATIVES - 1):
        name = operator_name(node)
        sources: Vectors = ()
        if name in ("neg", "negative", "to", "_to_copy", "div"):
            sources = _nodes(node.args[0])
        elif name in ("mul", "multiply"):
            sources = _nodes(*node.args)
        rows = [source for source in sources if _is_row_vector(source)]
        if len(rows) != 1:
            return
        node = rows[0]
        yield node
