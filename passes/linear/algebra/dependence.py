"""Which features a way through a region reads: a rewrite must not make a result depend on any other.

`0 * NaN` is NaN, so a matrix reads every feature that it has a column for, and every row of it reads all of them. A
selection, a permutation or a border of zeros written as a matrix would spread a NaN to where it never was. So one
matrix may stand for a way only if all that the way makes depends on all that it reads; the rest is cut off first.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from .elements import Convolve, Element, Pick, Scale, Shift, Structure, mixes
from .paths import path_between
from .tree import Tree

# For each feature that a way makes those that it depends on, of the features that it starts from: bits of an integer.
Dependence = tuple[int, ...]


def part_read(level: Tree, top: Tree) -> range | None:
    """The features of `level` that one map to `top` reads; None where no single map makes `top` depend on the same."""
    path = path_between(level, top)
    if not any(parent.joins or any(map(_selects, parent.elements)) for parent, _ in path):
        return range(level.width)
    elements = [element for parent, _ in path for element in parent.elements]
    plain = all(isinstance(each, Scale | Shift | Convolve) for each in elements)
    if plain and not any(parent.joins for parent, _ in path) and sum(map(mixes, elements)) == 1:
        return range(level.width)  # it stays a convolution in groups
    return _part(_follow(_identity(level.width), level, top), level.width)


def part_of_source(level: Tree, top: Tree, source: Tree) -> range | None:
    """As `part_read`, of the one source that all of a branching level comes from."""
    return _part(_follow(_of_source(level, source), level, top), source.width)


def stays_as_it_is(level: Tree, top: Tree) -> bool:
    """Whether a way is one selection or other fixed map that the graph has, so that it can be emitted again."""
    return (
        level.parent is top
        and top.is_map
        and bool(top.elements)
        and all(isinstance(element, Pick | Structure) for element in top.elements)
    )


def _selects(element: Element) -> bool:
    return isinstance(element, Pick | Structure) or (isinstance(element, Convolve) and element.groups > 1)


def _part(found: Dependence, width: int) -> range | None:
    reads = found[0]
    if not reads or any(row != reads for row in found):
        return None
    if reads == (1 << width) - 1:
        return range(width)
    places = [place for place in range(width) if reads >> place & 1]
    step = places[1] - places[0] if len(places) > 1 else 1
    part = range(places[0], places[-1] + 1, step)
    return part if list(part) == places else None


@functools.lru_cache(maxsize=64)
def _identity(width: int) -> Dependence:
    return tuple(1 << place for place in range(width))


def _follow(found: Dependence, level: Tree, top: Tree) -> Dependence:
    for parent, child in path_between(level, top):
        if parent.joins:  # the other features of the concatenation come from elsewhere
            found = (*(0,) * child.offset, *found, *(0,) * (parent.width - child.offset - child.width))
        for element in parent.elements:
            found = _behind(found, element)
    return found


def _of_source(level: Tree, source: Tree) -> Dependence:
    if level.is_leaf:
        return _identity(source.width)
    inner = [_of_source(child, source) for child in level.children]
    if level.is_sum:
        return tuple(map(_union, zip(*inner, strict=True)))
    found = tuple(row for each in inner for row in each)  # one child, or a concatenation
    for element in level.elements:
        found = _behind(found, element)
    return found


def _behind(found: Dependence, element: Element) -> Dependence:
    if isinstance(element, Shift | Scale):
        return found
    if isinstance(element, Pick | Structure):
        return tuple(_union(found[place] for place in places) for places in element.sources)
    if isinstance(element, Convolve):
        groups, outputs = element.groups, element.outputs
    else:
        groups, outputs = 1, element.matrix.outputs
    size = len(found) // groups
    unions = [_union(set(found[group * size : (group + 1) * size])) for group in range(groups)]
    return tuple(reads for reads in unions for _ in range(outputs // groups))


def _union(rows: Iterable[int]) -> int:
    total = 0
    for row in rows:
        total |= row
    return total
