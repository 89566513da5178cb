"""Floating-point operations of the maps of a region, as it stands and as planned."""

from __future__ import annotations

from collections.abc import Sequence

from ..algebra.elements import Convolve, Element, Pick, Scale, Shift, Structure, mixes
from ..algebra.paths import elements_between
from ..algebra.tree import Tree
from .plan import Choice


def tree_flops(tree: Tree) -> int:
    """Operations of the maps of a region as the graph has it, each once."""
    levels = {level.value.node: level for level in tree.maps()}.values()
    return sum(
        flops_of(level.elements, level.value.rows(), level.children[0].width, level.width) for level in levels
    )


def plan_flops(plan: Choice) -> int:
    """Floating-point operations of the maps of a plan."""
    total = 0
    for each in plan.maps():
        path = elements_between(each.level, each.top)
        rows, inputs, outputs = each.level.value.rows(), each.inputs, each.top.width
        if each.cut is not None:
            total += 2 * rows * each.cut.width * (inputs + outputs)
        elif each.kind == "source":
            source = each.terms[0].level
            total += 2 * source.value.rows() * inputs * outputs
        elif any(isinstance(element, Convolve) for element in path):
            convolve = next(element for element in path if isinstance(element, Convolve))
            groups = convolve.groups if sum(map(mixes, path)) == 1 else 1
            made = each.top.value.rows()
            total += 2 * made * (inputs // groups) * convolve.volume * outputs
        elif each.reads is not None and any(map(mixes, path)):
            total += 2 * rows * inputs * outputs
    return total


def flops_of(elements: Sequence[Element], rows: int, inputs: int, outputs: int) -> int:
    """Floating-point operations of the maps among elements."""
    for element in elements:
        if isinstance(element, Convolve):
            return 2 * rows * inputs // element.groups * element.volume * outputs
    plain = all(isinstance(element, Shift | Scale | Pick | Structure) for element in elements)
    return 0 if plain else 2 * rows * inputs * outputs
