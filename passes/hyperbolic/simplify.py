"""Applies the rules to what was found: an operator of what another one gives becomes one operator."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from dataclasses import replace

from torch import fx

from .find import Found, operand_nodes, paired
from .read.values import Value
from .rows.matching import Match
from .rules import RULES


def simplify(found: list[Found]) -> list[Found]:
    """What is left when every rule that holds was applied.

    Args:
        found: the formulas of a graph, in order.
    """
    kept = {item.region.root: item for item in found}
    for item in found:
        while (joined := _applied(kept[item.region.root], kept)) is not None:
            inner, new = joined
            kept[item.region.root] = new
            if not _needed(inner, kept):
                del kept[inner.region.root]
    return list(kept.values())


def _applied(item: Found, kept: Mapping[fx.Node, Found]) -> tuple[Found, Found] | None:
    outer = item.outcome
    if not isinstance(outer, Match) or len(outer.operands) != 1:
        return None
    (node,) = operand_nodes(outer, item.algebra)
    inner = kept.get(node)
    if inner is None or not isinstance(inner.outcome, Match):
        return None
    for rule in RULES:
        if (rule.outer, rule.inner) != (outer.target, inner.outcome.target):
            continue
        new = rule.apply(item.algebra, outer, inner.outcome)
        if isinstance(new, str) or not _alone(inner, item):
            continue
        values = ChainMap(*_maps(item), *_maps(inner))
        region = item.region.joined(inner.region)
        return inner, replace(item, outcome=paired(new, values, item.algebra), region=region, values=values)
    return None


def _maps(item: Found) -> list[MutableMapping[fx.Node, Value]]:
    return list(item.values.maps) if isinstance(item.values, ChainMap) else [dict(item.values)]


def _alone(inner: Found, outer: Found) -> bool:
    """Whether nothing but the outer formula needs what the inner one gives."""
    inside = {*outer.region.rows}
    return all(user in inside for user in inner.region.root.users)


def _needed(inner: Found, kept: Mapping[fx.Node, Found]) -> bool:
    return any(
        inner.region.root in item.region.vectors
        for item in kept.values()
        if item.region.root is not inner.region.root
    )
