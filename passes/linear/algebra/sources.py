"""What a branching level does to the one source that all of it comes from, as one matrix."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import fx

from ...graph.emit import Emitter
from ...graph.nodes import val
from .compose import Composition
from .elements import Scale
from .tree import Tree

aten = torch.ops.aten


def compose_source(emit: Emitter, level: Tree, source: Tree) -> Composition:
    """What a branching level does to the one source that all of it comes from."""
    if level.is_leaf:
        return Composition(emit, source.width)
    inner = [compose_source(emit, child, source) for child in level.children]
    if level.is_sum:
        terms = []
        for child, factor in zip(inner, level.factors, strict=True):
            if factor != 1:
                child.add(Scale(factor))
            terms.append(child)
        return _combined(emit, terms, level, lambda nodes: _total(emit, nodes))
    if level.joins:
        return _combined(emit, inner, level, lambda nodes: emit(aten.cat.default, nodes, 0), joins=True)
    (child,) = inner
    for element in level.elements:
        child.add(element)
    return child


def _combined(
    emit: Emitter,
    terms: Sequence[Composition],
    level: Tree,
    combine: Callable[[list[fx.Node]], fx.Node],
    joins: bool = False,
) -> Composition:
    result = Composition(emit, terms[0].inputs)
    result.weight = combine([term.matrix() for term in terms])
    result.width = level.width
    biases = [term.bias for term in terms]
    if joins and any(biases):
        device = val(emit.anchor).device
        biases = [
            bias or emit(aten.zeros.default, [term.width], dtype=torch.float64, device=device)
            for bias, term in zip(biases, terms, strict=True)
        ]
    known = [bias for bias in biases if bias is not None]
    result.bias = combine(known) if known else None
    return result


def _total(emit: Emitter, nodes: list[fx.Node]) -> fx.Node:
    total = nodes[0]
    for node in nodes[1:]:
        total = emit(aten.add.Tensor, total, node)
    return total
