"""Folded weights, kept fresh: hoisted out of a graph, evaluated once, and again whenever a weight changed."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim.optimizer import register_optimizer_step_post_hook

from .passes.rewrite import is_weight


class _Epoch:
    """A process-wide count of changes that no tensor's version counter shows."""

    number = 0

    @classmethod
    def advance(cls, *_: Any) -> None:
        cls.number += 1


# Fused optimisers write the weights without touching their version counters.
register_optimizer_step_post_hook(_Epoch.advance)


def invalidate(model: torch.nn.Module | None = None) -> None:
    """Say that weights were changed in a way that no counter shows; the next call folds them again.

    Needed after `weight.data.mul_(...)`, a write through NumPy, or a write by foreign code through a raw
    pointer. Not needed after in-place operations, `load_state_dict`, `.data = ...`, `.to(...)`, a new
    Parameter, or a step of any `torch.optim` optimizer: these are seen.

    Args:
        model: the model whose weights changed, compiled with `torch.compile(backend="stone")`.

    Raises:
        TypeError: `model` came out of `stonefx.optimize`: it owns a folded copy of its weights, so there is
            nothing to fold again; call `stonefx.optimize` on the changed original instead.

    >>> layer = torch.nn.Linear(2, 2)
    >>> _ = layer.weight.data.mul_(2.0)
    >>> invalidate(layer)
    """
    if getattr(model, "_stone_owns_weights", False) and not getattr(model, "_stone_follows_weights", False):
        raise TypeError(
            "this model came out of stonefx.optimize and owns a folded copy of its weights; expected the model "
            "given to torch.compile(backend='stone'). Call stonefx.optimize again on the changed original."
        )
    _Epoch.advance()


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
    roots = [node for node in graph.nodes if "fold" in node.meta]
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


def fold_sources(split: FoldSplit) -> list[list[int]]:
    """For each fold, the positions in `split.weights` of the weights that it reads."""
    if split.folds is None:
        return []
    placeholders = split.folds.graph.find_nodes(op="placeholder")
    roots: Any = split.folds.graph.output_node().args[0]
    return [[index for index, node in enumerate(placeholders) if node in _closure([root])] for root in roots]


def evaluate_folds(folds: fx.GraphModule, weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Compute every fold from the weights, without gradients, as ordinary tensors also in inference mode."""
    with torch.inference_mode(False), torch.no_grad():
        return folds(*(weight.detach() for weight in weights))


class _Snapshot:
    """Folds, and what the weights looked like when these were computed."""

    __slots__ = ("epoch", "facts", "folds", "references", "storages")

    def __init__(
        self, weights: Sequence[torch.Tensor], folds: tuple[torch.Tensor, ...], epoch: int, drop: Any
    ):
        self.epoch = epoch
        self.references = [weakref.ref(weight, drop) for weight in weights]
        # A weak reference keeps the storage's address from being used again, but not its memory.
        self.storages = [StorageWeakRef(weight.untyped_storage()) for weight in weights]
        self.facts = [_facts(weight) for weight in weights]
        self.folds = folds

    def is_fresh(self, weights: Sequence[torch.Tensor]) -> bool:
        if self.epoch != _Epoch.number:
            return False
        for weight, reference, facts in zip(weights, self.references, self.facts, strict=True):
            if reference() is not weight or _facts(weight) != facts:
                return False
        return True


def _facts(weight: torch.Tensor) -> tuple[Any, ...]:
    """What changes when a weight is written or its data replaced: see `invalidate` for what does not show."""
    return (
        weight._version,
        weight.untyped_storage()._cdata,
        weight.data_ptr(),
        weight.dtype,
        weight.shape,
        weight.stride(),
    )


class FreshFolds:
    """The folds of one compiled graph, for every set of weights that it is called with.

    One graph serves many instances of a module, so the folds are kept by the identity of the weights passed.
    Evaluating is serialised; a reader sees the old folds or the new ones, never a mixture.
    """

    def __init__(self, folds: fx.GraphModule) -> None:
        self.evaluate: Callable[[Sequence[torch.Tensor]], tuple[torch.Tensor, ...]]
        self.evaluate = lambda weights: evaluate_folds(folds, weights)
        self.snapshots: dict[tuple[int, ...], _Snapshot] = {}
        self.lock = threading.Lock()

    def __call__(self, weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The folds of these weights as they are now."""
        key = tuple(map(id, weights))
        snapshot = self.snapshots.get(key)
        if snapshot is not None and snapshot.is_fresh(weights):
            return snapshot.folds
        return self.refresh(key, weights)

    def refresh(self, key: tuple[int, ...], weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Evaluate the folds and keep them, unless the weights have no counter to tell when they change."""
        if any(weight.is_inference() for weight in weights):
            return self.evaluate(weights)
        with self.lock:
            epoch = _Epoch.number
            snapshot = _Snapshot(weights, (), epoch, lambda _, key=key: self.snapshots.pop(key, None))
            folds = self.evaluate(weights)
            # A write by another thread while the folds were computed shows here; then nothing is kept.
            snapshot.folds = folds
            if snapshot.is_fresh(weights):
                self.snapshots[key] = snapshot
            return folds
