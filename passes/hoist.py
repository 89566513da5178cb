"""Fold expressions, hoisted out of a graph, so that they are computed once and not at every call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from .graph.nodes import is_weight


@dataclass
class FoldSplit:
    """A graph whose fold expressions were hoisted.

    Args:
        folds: the graph that computes every fold from weights; None where nothing is folded.
        weights: positions, among the original inputs, of the weights that `folds` reads.
        kept: positions, among the original inputs, of the inputs that the remaining graph reads first.
        names: names of the folds, which the remaining graph reads after those.
    """

    folds: fx.GraphModule | None
    weights: list[int]
    kept: list[int]
    names: list[str]


def split_folds(module: fx.GraphModule) -> FoldSplit:
    """Hoist every node marked `meta["fold"]`, with all that it needs, out of a graph.

    In place: each fold becomes a placeholder behind the others, and weights that only folds read go.

    Raises:
        ValueError: a fold reads something that is neither a weight nor a constant.
    """
    graph = module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    marked = [node for node in graph.nodes if "fold" in node.meta]
    within = _closure(marked)
    # A fold that only other folds read is a step on the way to them, and not kept.
    roots = [node for node in marked if not node.users or any(user not in within for user in node.users)]
    if not roots:
        return FoldSplit(None, [], list(range(len(placeholders))), [])
    needed = _closure(roots)
    weights = [index for index, node in enumerate(placeholders) if node in needed]
    unique = _without_copies(module, needed, roots)
    folds = _fold_graph(module, _closure(list(unique)), list(unique))
    names = []
    for root, copies in unique.items():
        names.append(copies[0].meta["fold"])
        with graph.inserting_before(_first_operation(graph)):
            operand = graph.placeholder(f"fold_{root.name}")
        operand.meta = {"val": root.meta["val"], "fold_input": names[-1]}
        for copy in copies:
            copy.replace_all_uses_with(operand)
    for node in reversed(list(graph.nodes)):
        if node in needed and not node.users and node.op != "placeholder":
            graph.erase_node(node)
    unread = {index for index in weights if not placeholders[index].users}
    for index in unread:
        graph.erase_node(placeholders[index])
    graph.lint()
    module.recompile()
    return FoldSplit(folds, weights, [i for i in range(len(placeholders)) if i not in unread], names)


def _first_operation(graph: fx.Graph) -> fx.Node:
    return next(node for node in graph.nodes if node.op != "placeholder")


def _closure(roots: Sequence[fx.Node]) -> dict[fx.Node, None]:
    needed: dict[fx.Node, None] = {}
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node not in needed:
            if node.op == "placeholder" and not is_weight(node):
                raise ValueError(f"a fold reads {node.name!r}, which is not a weight")
            needed[node] = None
            stack.extend(node.all_input_nodes)
    return needed


def _without_copies(
    module: fx.GraphModule, needed: Mapping[fx.Node, None], roots: Sequence[fx.Node]
) -> dict[fx.Node, list[fx.Node]]:
    """The folds that differ, each with all that compute the same: a layer applied twice is folded once."""
    numbers: dict[Hashable, fx.Node] = {}
    first: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node in needed:
            args = fx.node.map_arg((node.args, node.kwargs), first.__getitem__)
            own = node.name if node.op == "placeholder" else repr(args)
            first[node] = numbers.setdefault((node.op, node.target, own), node)
    unique: dict[fx.Node, list[fx.Node]] = {}
    for root in roots:
        unique.setdefault(first[root], []).append(root)
    return unique


def _fold_graph(
    module: fx.GraphModule, needed: dict[fx.Node, None], roots: Sequence[fx.Node]
) -> fx.GraphModule:
    graph = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node in needed:
            env[node] = graph.node_copy(node, env.__getitem__)
    graph.output(tuple(env[root] for root in roots))
    return fx.GraphModule(module, graph)


def fold_sources(folds: fx.GraphModule | None) -> list[list[int]]:
    """For each fold, the positions of the weights that it reads among those that the graph of folds takes."""
    if folds is None:
        return []
    placeholders = folds.graph.find_nodes(op="placeholder")
    roots: Any = folds.graph.output_node().args[0]
    needed = [_closure([root]) for root in roots]
    return [[index for index, node in enumerate(placeholders) if node in each] for each in needed]


def some_folds(
    folds: fx.GraphModule | None, outputs: Sequence[int]
) -> tuple[fx.GraphModule | None, list[int]]:
    """The part of a graph of folds that computes some of them, and the positions of the weights that it reads."""
    if folds is None or not outputs:
        return None, []
    results: Any = folds.graph.output_node().args[0]
    roots = [results[position] for position in outputs]
    needed = _closure(roots)
    placeholders = folds.graph.find_nodes(op="placeholder")
    positions = [position for position, node in enumerate(placeholders) if node in needed]
    return _fold_graph(folds, needed, roots), positions


def evaluate_folds(folds: fx.GraphModule, weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Compute every fold from the weights, without gradients, as ordinary tensors also in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return folds(*(weight.detach() for weight in weights))
