"""Floating-point operations of a map before and after, for the report."""

from __future__ import annotations

from math import prod

import torch

from ..graph.shapes import hint
from .region import Region

# A reduction counts one operation an entry: a norm and a scaling; three inner products, two products, a sum.
PER_ENTRY = {"expmap0": 2, "logmap0": 2, "mobius_add": 6}
PER_ROW = {"expmap0": 3, "logmap0": 3, "mobius_add": 12}


def elements(value: torch.Tensor) -> int:
    """How many entries a fake tensor has at its hints."""
    return prod(hint(size, 1) for size in value.shape)


def flops_before(region: Region) -> int:
    """One operation for each entry that a node reads or writes, whichever is more."""
    total = 0
    for node in region.rows:
        read = [a.meta["val"] for a in node.all_input_nodes if isinstance(a.meta.get("val"), torch.Tensor)]
        if isinstance(node.meta.get("val"), torch.Tensor):
            total += max(map(elements, [node.meta["val"], *read]))
    return total


def flops_after(region: Region, target: str) -> int:
    """What the fused operator computes."""
    value = region.root.meta["val"]
    return PER_ENTRY[target] * elements(value) + PER_ROW[target] * elements(value[..., :1])
