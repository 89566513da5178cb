"""Floating-point operations of the maps of a region, as it stands and as planned."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..algebra.elements import Convolve, Element, Pick, Scale, Shift, Structure
from ..algebra.paths import way_between
from ..algebra.tree import Tree
from .plan import Choice


def tree_flops(tree: Tree) -> int:
    """Operations of the maps of a region as the graph has it, each once."""
    levels = {level.value.node: level for level in tree.maps()}.values()
    return sum(map(_level_flops, levels))


def _level_flops(level: Tree) -> int:
    product = way_between(level.children[0], level).product
    if product is not None:
        return 2 * math.prod(product.extents()) if product.matrix else 0
    return flops_of(level.elements, level.value.rows(), level.children[0].width, level.width)


def plan_flops(plan: Choice) -> int:
    """Floating-point operations of the maps of a plan."""
    total = 0
    for each in plan.maps():
        rows, inputs, outputs = each.level.value.rows(), each.inputs, each.top.width
        convolve, product = each.way.convolve, each.way.product
        if product is not None:
            total += 2 * math.prod(product.extents()) if product.matrix else 0
        elif each.cut is not None:
            total += 2 * rows * each.cut.width * (inputs + outputs)
        elif each.kind == "source":
            total += 2 * each.terms[0].level.value.rows() * inputs * outputs
        elif convolve is not None:
            groups = convolve.groups if each.way.mixing == 1 else 1
            total += 2 * each.top.value.rows() * (inputs // groups) * convolve.volume * outputs
        elif each.reads is not None and each.way.mixing:
            total += 2 * rows * inputs * outputs
    return total


def flops_of(elements: Sequence[Element], rows: int, inputs: int, outputs: int) -> int:
    """Floating-point operations of the maps among elements."""
    for element in elements:
        if isinstance(element, Convolve):
            return 2 * rows * inputs // element.groups * element.volume * outputs
    plain = all(isinstance(element, Shift | Scale | Pick | Structure) for element in elements)
    return 0 if plain else 2 * rows * inputs * outputs
