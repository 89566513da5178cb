"""What an operator costs on CUDA, where inductor makes one kernel of a formula and of what stands around it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import fx

from ..cost.flops import is_product, node_flops
from ..cost.machine import Machine
from ..graph.arguments import is_operator
from ..graph.shapes import entries
from .read.evaluate import operator_name
from .read.views import VIEWS
from .region import Region

# Operators that reduce an axis themselves, for each pair or plane.
REDUCING = frozenset({"poincare_cdist", "klein_cdist", "poincare_planes"})
# The part of `flop_rate` that such an operator reached on an H100: float32, 16,384 x 16,384 pairs in 128 dimensions.
OPERATOR_SHARE = 0.5
# The rate counts a multiplication and an addition in one instruction; in other code each of them takes an instruction.
OPERATION = 2


def fused_price(
    region: Region, target: str, moved: int, operator_flops: int, machine: Machine | None, grad: bool
) -> tuple[float, float]:
    """Seconds that an operator costs in fused code, and that it saves.

    A boundary that inductor would have fused over costs a trip through memory: what is at it is written and read.
    The arithmetic of a map of rows hides behind its bytes in either form, so that an operator alone saves nothing;
    one over pairs saves the operations of the formula.

    Args:
        region: the nodes of the formula.
        target: the formula.
        moved: further entries that are read and written to bring operands and result into place.
        operator_flops: of the operator.
        machine: the facts of the card; None for the defaults.
        grad: whether gradients are wanted, which make each trip again.
    """
    value = region.root.meta["val"]
    facts = machine or Machine.of(value.device)
    trips = 2 * sum(entries(node.meta["val"]) for node in _cut(region))
    passes = 2 if grad else 1
    launch = facts.launch_seconds(value.dtype.itemsize)
    cost = passes * (launch + (trips + moved) * value.dtype.itemsize / facts.bandwidth)
    if target not in REDUCING:
        return cost, 0.0
    return (
        cost + passes * operator_flops / (OPERATOR_SHARE * facts.flop_rate),
        passes * sum(map(_issued, region.rows)) / facts.flop_rate,
    )


def _issued(node: fx.Node) -> int:
    """Operations of a node, in those of a product: one that spreads rows over pairs loads its operands for each."""
    if is_product(node):
        return node_flops(node)
    made = node.meta.get("val")
    size = entries(made) if isinstance(made, torch.Tensor) else 0
    spread = sum(
        size
        for each in node.all_input_nodes
        if isinstance(value := each.meta.get("val"), torch.Tensor) and 1 < entries(value) < size
    )
    return OPERATION * node_flops(node) + spread


def _cut(region: Region) -> list[fx.Node]:
    """What would be written to memory only because an operator stands between it and its neighbours."""
    inside = set(region.rows)
    cut = [node for node in dict.fromkeys(region.vectors) if _made_by_fused(node)]
    if any(user not in inside and _fuses(user) for user in _users(region.root)):
        cut.append(region.root)
    return cut


def _made_by_fused(node: fx.Node) -> bool:
    while operator_name(node) in VIEWS and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return _fuses(node)


def _users(node: fx.Node) -> Iterable[fx.Node]:
    for user in node.users:
        yield from _users(user) if operator_name(user) in VIEWS else (user,)


def _fuses(node: fx.Node) -> bool:
    """Whether inductor makes code for a node itself and calls no library or operator."""
    return (
        is_operator(node)
        and node.target.namespace == "aten"  # type: ignore[union-attr]
        and isinstance(node.meta.get("val"), torch.Tensor)
        and not is_product(node)
    )
