"""Which features a way through a region reads: a rewrite must not make a result depend on any other.

`0 * NaN` is NaN, so a matrix reads every feature that it has a column for, and every row of it reads all of them. A
selection, a permutation or a border of zeros written as a matrix would spread a NaN to where it never was. So one
matrix may stand for a way only if all that the way makes depends on all that it reads; the rest is cut off first.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Mapping

from .elements import Apply, Convolve, Element, Part, Pick, Scale, Shift, Structure, mixes
from .paths import path_between
from .tree import Tree
from .values import Value

# For each feature that a way makes those that it depends on, of the features that it starts from: bits of an integer.
Dependence = tuple[int, ...]


class Reads:
    """What a way reads, followed upward level by level.

    Args:
        width: the features that it starts from.
        found: what the lowest level depends on, of other features; by default it is what the way starts from.
    """

    def __init__(self, width: int, found: Dependence | None = None) -> None:
        self.width = width
        self.found = (
            found  # None while every feature made depends on all, or each on its own as `mixing` says
        )
        self._now = width if found is None else len(found)
        self._mixing = 0
        self._groups = found is None  # nothing but scales, shifts and convolutions so far

    def extend(self, parent: Tree, child: Tree) -> None:
        """Go on to the level above."""
        if parent.joins:  # the other features of the concatenation come from elsewhere
            behind = parent.width - child.offset - child.width
            self.found = (*(0,) * child.offset, *self._written_out(), *(0,) * behind)
            self._now, self._groups = parent.width, False
        for element in parent.elements:
            if self.found is not None or _selects(element):
                self.found = _behind(self._written_out(), element)
                self._now = len(self.found)
            elif mixes(element):
                self._now = parent.width
            self._mixing += mixes(element)
            self._groups = self._groups and isinstance(element, Scale | Shift | Convolve)

    def part(self) -> range | None:
        """The features that one map reads; None where no single map makes the same depend on the same."""
        if self.found is None or (self._groups and self._mixing == 1):  # it stays a convolution in groups
            return range(self.width)
        return _part(self.found, self.width)

    def _written_out(self) -> Dependence:
        if self.found is not None:
            return self.found
        return (_all(self.width),) * self._now if self._mixing else _identity(self.width)


def part_read(level: Tree, top: Tree) -> range | None:
    """The features of `level` that one map to `top` reads; None where no single map makes `top` depend on the same."""
    reads = Reads(level.width)
    for parent, child in path_between(level, top):
        reads.extend(parent, child)
    return reads.part()


def stays_as_it_is(level: Tree, top: Tree) -> bool:
    """Whether a way is one selection or other fixed map that the graph has, so that it can be emitted again."""
    return (
        level.parent is top
        and top.is_map
        and bool(top.elements)
        and all(isinstance(element, Pick | Structure) for element in top.elements)
    )


def of_source(level: Tree, width: int, known: Mapping[Value, Dependence] | None = None) -> Dependence:
    """What a branching level depends on of the one source that all of it comes from.

    Args:
        level: the level.
        width: the features of the source.
        known: what values below the level depend on; any other leaf is the source itself.
    """
    made: dict[Tree, Dependence] = {}
    for each in reversed(list(level.walk())):  # children first
        inner = [made.pop(child) for child in each.children]
        if each.is_leaf:
            made[each] = (known or {}).get(each.value) or _identity(width)
        elif each.is_sum:
            made[each] = tuple(map(_union, zip(*inner, strict=True)))
        else:  # one child, or a concatenation
            found = tuple(row for rows in inner for row in rows)
            for element in each.elements:
                found = _behind(found, element)
            made[each] = found
    return made[level]


_OF_PARTS: weakref.WeakKeyDictionary[Part, Dependence] = weakref.WeakKeyDictionary()


def _of_part(part: Part) -> Dependence:
    if part not in _OF_PARTS:
        known: dict[Value, Dependence] = {}
        for tree in part.trees:
            known[tree.value] = of_source(tree, part.inputs, known)
        _OF_PARTS[part] = known[part.trees[-1].value]
    return _OF_PARTS[part]


def _selects(element: Element) -> bool:
    if isinstance(element, Part):
        everything = _all(element.inputs)
        return any(row != everything for row in _of_part(element))
    return isinstance(element, Pick | Structure) or (isinstance(element, Convolve) and element.groups > 1)


def _part(found: Dependence, width: int) -> range | None:
    reads = found[0]
    if not reads or any(row != reads for row in found):
        return None
    if reads == _all(width):
        return range(width)
    places = [place for place in range(width) if reads >> place & 1]
    step = places[1] - places[0] if len(places) > 1 else 1
    part = range(places[0], places[-1] + 1, step)
    return part if list(part) == places else None


def _all(width: int) -> int:
    return (1 << width) - 1


@functools.lru_cache(maxsize=64)
def _identity(width: int) -> Dependence:
    return tuple(1 << place for place in range(width))


def _behind(found: Dependence, element: Element) -> Dependence:
    if isinstance(element, Shift | Scale):
        return found
    if isinstance(element, Pick | Structure):
        return tuple(_union(found[place] for place in places) for places in element.sources)
    if isinstance(element, Part):
        rows = _of_part(element)
        unions = {
            row: _union(found[place] for place in range(len(found)) if row >> place & 1) for row in set(rows)
        }
        return tuple(unions[row] for row in rows)
    if isinstance(element, Convolve):
        groups, outputs = element.groups, element.outputs
    else:
        assert isinstance(element, Apply), element
        groups, outputs = 1, element.matrix.outputs
    size = len(found) // groups
    merged = [_union(set(found[group * size : (group + 1) * size])) for group in range(groups)]
    return tuple(reads for reads in merged for _ in range(outputs // groups))


def _union(rows: Iterable[int]) -> int:
    total = 0
    for row in rows:
        total |= row
    return total
