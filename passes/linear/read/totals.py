"""Weighted sums over places as products of matrices: the values are read once, and never written scaled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import fx

from ...graph.arguments import named_arguments, packet
from ...graph.emit import Emitter
from ...graph.nodes import val
from ...graph.shapes import same_size, same_sizes
from ..algebra.readings import Moves
from ..algebra.simplify import copied
from ..algebra.tree import Tree

aten = torch.ops.aten


def with_products(tree: Tree) -> Tree | None:
    """The same region with each sum over scaled places as one product with their factors; None if there is none.

    `sum over t of w[t] x[t]` is `w^T x`. What is not a number comes out alike: a factor of 0 makes no 0 of it.
    """
    if not any(_product(level) for level in tree.walk()):
        return None
    copy = copied(tree)
    for level in copy.walk():
        product = _product(level)
        if product is not None:
            scaled = level.children[0]
            level.move, level.children = product, scaled.children
            level.dropped = [*level.dropped, scaled.value.node, *scaled.dropped]
            level.adopt()
    return copy


def _product(level: Tree) -> Moves | None:
    """A level and the one below it as one operation, where they are such a sum."""
    move = level.move
    if move is None or packet(move.node) is not aten.sum or len(named_arguments(move.node)["dim"]) != 1:
        return None
    scale = level.children[0].move
    if scale is None or scale.factor is None or not _fits(move, scale):
        return None
    return replace(
        scale,
        node=move.node,
        replay=_replay(move, scale),
        scales=False,
        factor=None,
        summed=val(scale.node).shape[_dim(move)],
    )


def _dim(move: Moves) -> int:
    """The axis that a move sums over."""
    return int(named_arguments(move.node)["dim"][0]) % val(move.operand.node).dim()


def _fits(move: Moves, scale: Moves) -> bool:
    """Whether the features and the places lie along the last two axes, and each place has a factor."""
    assert scale.factor is not None
    operand, shape = scale.operand, scale.factor.shape
    rank, dim = operand.tensor.dim(), _dim(move)
    return (
        move.operand.node is scale.node
        and sorted((operand.axis, dim)) == [rank - 2, rank - 1]
        and same_sizes(operand.tensor.shape, val(scale.node).shape)
        and len(shape) > rank - dim - 1
        and len(shape) > 1
        and same_size(shape[dim - rank], operand.tensor.shape[dim])
    )


def _replay(move: Moves, scale: Moves) -> Any:
    factor, features_last = scale.factor, scale.operand.axis == val(scale.node).dim() - 1
    assert factor is not None
    keeps, dim = bool(named_arguments(move.node)["keepdim"]), _dim(move)

    def replay(emit: Emitter, tensor: fx.Node, width: int) -> fx.Node:
        by, dtype = factor.emit(emit), val(tensor).dtype
        if val(by).dtype != dtype:  # as a product of scalars converts it
            by = emit.call_sized(aten._to_copy.default, {"self": by, "dtype": dtype}, factor.shape)
        turned = emit.insert(aten.mT.default, (by,), {}, val(by).mT)
        left, right = (turned, tensor) if features_last else (tensor, turned)
        shape = list(val(tensor).shape)
        shape[dim] = 1
        product = emit.call_sized(aten.matmul.default, {"self": left, "other": right}, shape)
        return (
            product if keeps else emit.insert(aten.squeeze.dim, (product, dim), {}, val(product).squeeze(dim))
        )

    return replay
