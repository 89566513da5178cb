"""Ways through a region, composed element after element, and what branches of one source amount to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import fx

from ...graph.emit import Emitter
from ...graph.nodes import val
from .composition import Composition
from .elements import Element, Part, Scale
from .labelled import LabelledComposition
from .paths import path_between, stands_above
from .tree import Tree
from .values import LABELLED, Value

aten = torch.ops.aten


def begin(emit: Emitter, level: Tree) -> Composition:
    """What does nothing yet to a level."""
    if level.value.axis == LABELLED:
        return LabelledComposition(emit, level.value)
    return Composition(emit, level.width)


def compose(
    emit: Emitter,
    level: Tree,
    top: Tree,
    limit: Tree | None = None,
    before: Composition | None = None,
) -> Composition:
    """What happens on the way from `level` to `top`.

    Args:
        emit: where the nodes go.
        level, top: the ends.
        limit: shifts above it do not count.
        before: what makes `level`, whose constants are added to it first.
    """
    composition = begin(emit, level)
    if before is not None:
        composition.bias, composition.carried = before.bias, before.carried
    return follow(composition, level, top, limit)


def follow(composition: Composition, level: Tree, top: Tree, limit: Tree | None = None) -> Composition:
    """Compose further, with the way from `level` to `top`; shifts above `limit` do not count."""
    # A cut, where the second factor of a pair begins, may lie above the limit already.
    below = limit is None or stands_above(limit, level)
    for parent, child in path_between(level, top):
        if parent.joins:
            composition.embed(child.offset, parent.width)
        constants, composition.constants = composition.constants, composition.constants and below
        composition.along = parent.along
        _add(composition, parent.elements)
        composition.constants, composition.along = constants, ()
        if parent.is_sum and parent.factors[child.place] != 1:
            composition.add(Scale(parent.factors[child.place]))
        below = below and parent is not limit
    return composition


def _add(composition: Composition, elements: Sequence[Element]) -> None:
    for element in elements:
        if isinstance(element, Part):
            composition.after(compose_part(composition.emit, element))
        else:
            composition.add(element)


def compose_source(
    emit: Emitter, level: Tree, known: Mapping[Value, Composition] | None = None
) -> Composition:
    """What a branching level does to the one source that all of it comes from.

    Args:
        emit: where the nodes go.
        level: the level.
        known: what values below the level are, in terms of the source; any other leaf is the source itself.
    """
    made: dict[Tree, Composition] = {}
    for each in reversed(list(level.walk())):  # children first
        inner = [made.pop(child) for child in each.children]
        if each.is_leaf:
            found = (known or {}).get(each.value)
            made[each] = begin(emit, each) if found is None else found.copy()
        elif each.is_sum:
            for child, factor in zip(inner, each.factors, strict=True):
                if factor != 1:
                    child.add(Scale(factor))
            first, *others = inner
            if isinstance(first, LabelledComposition):
                made[each] = first.plus([other for other in others if isinstance(other, LabelledComposition)])
            else:
                made[each] = _combined(emit, inner, each, emit.total)
        elif each.joins:
            made[each] = _combined(
                emit, inner, each, lambda nodes: emit(aten.cat.default, nodes, 0), joins=True
            )
        else:  # a map, or a view that every way from the source takes
            (made[each],) = inner
            _add(made[each], each.elements)
    return made[level]


def compose_part(emit: Emitter, part: Part) -> Composition:
    """What a part does to the value that it comes from; composed once, however many maps take it in."""
    if part in emit.composed:
        return emit.composed[part]
    known: dict[Value, Composition] = {}
    for tree in part.trees:
        known[tree.value] = compose_source(emit, tree, known)
    emit.composed[part] = known[part.trees[-1].value]
    return emit.composed[part]


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
