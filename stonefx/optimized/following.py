"""Folds by what becomes of their weights: those that go, and those that stay in a model, which their folds follow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from ..passes.hoist import FoldSplit, some_folds


@dataclass(frozen=True)
class Folds:
    """Some of the folds of a graph.

    Args:
        graph: computes them; None where there are none, and in a model from a file, which has their values.
        read: names of the weights that it takes, in order.
        operands: the placeholders of the program's graph that take its results.
    """

    graph: fx.GraphModule | None = None
    read: list[str] = field(default_factory=list)
    operands: list[str] = field(default_factory=list)


class _Following(torch.autograd.Function):
    """Known values of folds going forward; going back the folds are computed, with their gradients."""

    @staticmethod
    def forward(ctx: Any, folds: fx.GraphModule, values: Sequence[Tensor], *weights: Tensor) -> Any:
        ctx.folds = folds
        ctx.save_for_backward(*weights)
        # Tensors of their own: the ones that are kept must not get a history.
        return tuple(value.detach() for value in values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        weights, further = ctx.saved_tensors, torch.is_grad_enabled()
        wanted = [weight for weight, needed in zip(weights, ctx.needs_input_grad[2:], strict=True) if needed]
        with torch.enable_grad():
            values = [
                (value, grad)
                for value, grad in zip(ctx.folds(*weights), grads, strict=True)
                if value.requires_grad
            ]
            found = iter(
                torch.autograd.grad(
                    [value for value, _ in values],
                    wanted,
                    [grad for _, grad in values],
                    create_graph=further,
                    allow_unused=True,
                )
            )
        return None, None, *(next(found) if needed else None for needed in ctx.needs_input_grad[2:])


def following(
    folds: fx.GraphModule, values: Sequence[Tensor], weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """The values of folds, whose gradients are those of the weights that they were computed from.

    Args:
        folds: the graph that computes them.
        values: what it gives for these weights.
        weights: in the order of its placeholders.
    """
    result: tuple[Tensor, ...] = _Following.apply(folds, values, *weights)
    return result


def owned_and_followed(
    sources: list[set[str]],
    results: list[int],
    weights: Mapping[str, int],
    live: Collection[str],
    shown: Collection[str],
    release: bool,
) -> tuple[list[int], list[int], set[str]]:
    """Which folds are all that is left of their weights, and which have their weights beside them.

    A weight that stays can still be changed, in training say, and then every fold of it must change. So where a fold
    shares a weight with the graph, all that it reads stays and it follows; or, where that would keep more than the
    folds and what the graph reads anyway, the weight goes too: the graph reads it under a new name.

    Args:
        sources: of each fold, the weights that it reads.
        results: the bytes of each fold.
        weights: the bytes of each weight.
        live: the weights that the graph itself reads.
        shown: the weights that somebody else can change.
        release: weights may go.

    Returns:
        The folds that own their values, those that follow, and the live weights that go under a new name.
    """
    owned: list[int] = []
    followed: list[int] = []
    moved: set[str] = set()
    for folds in _connected(sources):
        read = set().union(*(sources[fold] for fold in folds))
        beside = read.intersection(live)
        more = sum(weights.get(name, 0) for name in read - beside)
        most = sum(results[fold] for fold in folds) + sum(weights[name] for name in beside)
        if not release or not read.isdisjoint(shown) or (beside and more <= most):
            followed += folds
        else:
            owned += folds
            moved |= beside
    return sorted(owned), sorted(followed), moved


def _connected(sources: list[set[str]]) -> list[list[int]]:
    """The folds that share weights, directly or by others, together."""
    readers: dict[str, list[int]] = {}
    for fold, names in enumerate(sources):
        for name in names:
            readers.setdefault(name, []).append(fold)
    groups: list[list[int]] = []
    left = dict.fromkeys(range(len(sources)))
    while left:
        stack, group = [left.popitem()[0]], []
        while stack:
            fold = stack.pop()
            group.append(fold)
            for name in sources[fold]:
                for other in readers.pop(name, ()):
                    if other in left:
                        del left[other]
                        stack.append(other)
        groups.append(group)
    return groups


def bytes_of(value: Tensor) -> int:
    """What the entries of a tensor take."""
    return value.numel() * value.itemsize


def folds_at(split: FoldSplit, read: list[str], operands: Sequence[fx.Node], chosen: Sequence[int]) -> Folds:
    """Some of the folds that were hoisted.

    Args:
        split: all of them.
        read: the names of the weights that they take.
        operands: the placeholders that take their results.
        chosen: the positions of those wanted.
    """
    graph, weights = some_folds(split.folds, chosen)
    return Folds(graph, [read[index] for index in weights], [operands[position].name for position in chosen])
