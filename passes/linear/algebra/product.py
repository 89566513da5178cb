"""Ways through values whose axes all have labels: each amounts to one product of the value and a weight.

Which entries of the result depend on which of the value follows from the labels alone: a label that value, weight and
result have in common keeps its places apart, in one product as in the run of products that it stands for.
"""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...graph.nodes import val
from .elements import Contract, Element, Labels, Permute, Scale, Shift
from .tree import Tree
from .values import Value, size_at


@dataclass(frozen=True, eq=False)
class Product:
    """The labels of one product of a value and a weight.

    Args:
        source, matrix, result: labels of the value, of the weight, which has none where there is no product, and of
            the result.
        sizes: of each label.
        shifts: a constant is added.
        scales: a number is multiplied with.
    """

    source: Labels
    matrix: Labels
    result: Labels
    sizes: tuple[Any, ...]
    shifts: bool = False
    scales: bool = False

    @classmethod
    def of(cls, value: Value) -> Product:
        """What does nothing to a value."""
        labels = tuple(range(value.tensor.dim()))
        return cls(labels, (), labels, tuple(value.tensor.shape))

    def then(self, element: Element) -> Product:
        """Followed by one more element."""
        if isinstance(element, Contract):
            return self.placed(element)[1]
        if isinstance(element, Permute):
            return replace(self, result=tuple(self.result[place] for place in element.order))
        shifts, scales = isinstance(element, Shift), isinstance(element, Scale)
        return replace(self, shifts=self.shifts or shifts, scales=self.scales or scales)

    def placed(self, element: Contract) -> tuple[Labels, Product]:
        """The labels of a further weight among those of all, and the product with it."""
        names = dict(zip(element.operand, self.result, strict=True))
        sizes = list(self.sizes)
        for label, size in zip(element.factor, val(element.weight).shape, strict=True):
            if label not in names:
                names[label] = len(sizes)
                sizes.append(size)
        factor = tuple(names[label] for label in element.factor)
        result = tuple(names[label] for label in element.result)
        summed = set(factor) - set(result) - set(self.source)
        matrix = tuple(label for label in dict.fromkeys((*self.matrix, *factor)) if label not in summed)
        return factor, replace(self, matrix=matrix, result=result, sizes=tuple(sizes))

    def extents(self, symbols: int | None = None) -> tuple[int, int, int, int]:
        """How many matrices, rows of each, and their widths."""
        source, matrix, result = set(self.source), set(self.matrix), set(self.result)

        def extent(labels: Iterable[int]) -> int:
            return math.prod(size_at(self.sizes[label], symbols) for label in labels)

        return (
            extent(source & matrix & result),
            extent(source - matrix),
            extent((source & matrix) - result),
            extent(matrix - source),
        )

    @property
    def entries(self) -> int:
        """Entries of the weight."""
        return math.prod(int(self.sizes[label]) for label in self.matrix) if self.matrix else 0

    @property
    def spelling(self) -> str | None:
        """The operator that computes it with its constant, `linear` or `bmm`; None where that takes an `einsum`."""
        source, matrix, result = self.source, set(self.matrix), self.result
        if len(source) != len(result) or len(source) < 2 or source[:-1] != result[:-1]:
            return None
        if source[-1] == result[-1] or len(self.matrix) not in (2, 3):
            return None
        if matrix == {source[-1], result[-1]}:
            return "linear"
        return "bmm" if len(source) == 3 and matrix == {source[0], source[-1], result[-1]} else None

    def names_in(self, base: Product) -> dict[int, int] | None:
        """For each label that of `base`, if one product of the same value can make the sum of both; else None."""
        if len(self.result) != len(base.result):
            return None
        names: dict[int, int] = {}
        pairs = zip((*self.source, *self.result), (*base.source, *base.result), strict=True)
        for label, wanted in pairs:
            if names.setdefault(label, wanted) != wanted:
                return None
        if len(set(names.values())) != len(names) or not self.matrix:
            return None
        return names if {names[label] for label in self.matrix} <= set(base.matrix) else None


def largest(products: Sequence[Product]) -> int | None:
    """Which of some products of one value can make the sum of all, with a sum of weights; None if there is none."""
    place = max(range(len(products)), key=lambda place: len(products[place].matrix))
    return place if all(each.names_in(products[place]) is not None for each in products) else None


def product_of_source(level: Tree) -> Product | None:
    """The one product that a branching level is of the one value that all of it comes from; None if it is none."""
    made: dict[Tree, Product | None] = {}
    for each in reversed(list(level.walk())):  # children first
        inner = [made.pop(child) for child in each.children]
        found = inner[0] if inner else Product.of(each.value)
        if each.is_sum:
            known = [product for product in inner if product is not None]
            place = largest(known) if len(known) == len(inner) else None
            shifts = any(product.shifts for product in known)
            found = None if place is None else replace(known[place], shifts=shifts)
        for element in each.elements:
            found = found and found.then(element)
        made[each] = found
    return made[level]


def equation(terms: Iterable[Labels], result: Labels) -> str:
    """What `einsum` is told about labels.

    >>> equation([(7, 2), (2, 9)], (7, 9))
    'ab,bc->ac'
    """
    letters: dict[int, str] = {}

    def spell(labels: Labels) -> str:
        return "".join(letters.setdefault(label, string.ascii_letters[len(letters)]) for label in labels)

    left = ",".join(map(spell, terms))
    return f"{left}->{spell(result)}"
