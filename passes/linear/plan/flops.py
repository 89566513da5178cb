"""Floating-point operations of the maps of a region, as it stands and as planned."""

from __future__ import annotations

from ...cost.flops import node_flops, product_flops
from ..algebra.elements import Structure
from ..algebra.tree import Tree
from .plan import Choice


def tree_flops(tree: Tree) -> int:
    """Operations of the maps of a region as the graph has it, each once."""
    maps = [level for level in tree.maps() if not any(isinstance(each, Structure) for each in level.elements)]
    return sum(map(node_flops, {level.value.node for level in maps}))


def plan_flops(plan: Choice) -> int:
    """Operations of the maps of a plan."""
    total = 0
    for each in plan.maps():
        rows, inputs, outputs = each.level.value.rows(), each.inputs, each.top.width
        convolve, product = each.way.convolve, each.way.product
        if each.level.fixed and each.kind == "map":
            continue
        if product is not None:
            total += product_flops(*product.extents()) if product.matrix else 0
        elif each.cut is not None:
            total += product_flops(rows, each.cut.width, inputs + outputs)
        elif each.kind == "source":
            total += product_flops(each.terms[0].level.value.rows(), inputs, outputs)
        elif convolve is not None:
            groups = convolve.groups if each.way.mixing == 1 else 1
            places = rows if convolve.transposed else (each.way.made or each.top).value.rows()
            total += product_flops(places, inputs // groups, convolve.volume, outputs)
        elif each.reads is not None and each.way.mixing:
            total += product_flops(rows, inputs, outputs)
    return total
