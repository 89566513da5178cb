"""Applies the rules to what was found: an operator of what another one gives becomes one operator."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Collection, Mapping, MutableMapping
from dataclasses import replace
from math import sqrt, tanh

import torch
from torch import fx

from .find import Found, operand_nodes, paired
from .pairs import Pair
from .read.values import Value
from .region import Region
from .rows.algebra import Algebra
from .rows.forms import ONE, Form
from .rows.functions import quotient
from .rows.matching import Match
from .rules import RULES


def simplify(
    found: list[Found],
    steps: list[Found],
    fast: bool = False,
    refused: Collection[tuple[fx.Node, str]] = (),
) -> list[Found]:
    """What is left when every rule that holds was applied.

    Args:
        found: the formulas of a graph, in order.
        steps: what is a formula with others alone.
        fast: whether a guard between two maps may be passed over.
        refused: rules that are not to be applied, each at a root and by its name.
    """
    kept = {item.region.root: item for item in found}
    parts = {item.region.root: item for item in steps if item.region.root not in kept}
    for root in [*kept, *parts]:
        while root in kept or root in parts:
            joined = _applied(kept.get(root) or parts[root], kept, parts, fast, refused)
            if joined is None:
                break
            inner, kept[root] = joined
            for part in [*kept]:  # a conformal factor that nothing else reads
                if (
                    part is not root
                    and part in kept[root].region.rows
                    and part not in kept[root].region.vectors
                ):
                    del kept[part]
            if inner.region.root in kept and not _needed(inner, kept):
                del kept[inner.region.root]
    return list(kept.values())


def _applied(
    item: Found,
    kept: Mapping[fx.Node, Found],
    parts: Mapping[fx.Node, Found],
    fast: bool,
    refused: Collection[tuple[fx.Node, str]],
) -> tuple[Found, Found] | None:
    outer = item.outcome
    if not isinstance(outer, Match):
        return None
    for position, node in enumerate(operand_nodes(outer, item.algebra)):
        inner = kept.get(node) or parts.get(node)
        if inner is None or not isinstance(inner.outcome, Match) or node is item.region.root:
            continue
        pair = Pair(
            algebra=item.algebra,
            outer=outer,
            inner=inner.outcome,
            position=position,
            fast=fast,
            radius=_Radii(item.algebra, kept),
            of_outer=item.values,
            of_inner=inner.values,
        )
        for rule in RULES:
            if (rule.outer, rule.inner, rule.position) != (outer.target, inner.outcome.target, position):
                continue
            if (item.region.root, rule.name) in refused:
                continue
            new = rule.apply(pair)
            if isinstance(new, str) or not _alone(inner, item):
                continue
            values = ChainMap(*_maps(item), *_maps(inner))
            outcome = paired(replace(new, rule=rule.target), values, item.algebra)
            if not isinstance(outcome, Match):  # over pairs the operator has not this guard
                continue
            return inner, replace(
                item,
                outcome=outcome,
                region=_without_own_numbers(item.region.joined(inner.region), kept, values),
                values=values,
                proofs={**inner.proofs, **item.proofs},
                supposed=tuple(dict.fromkeys((*inner.supposed, *item.supposed))),
                rule=rule.name,
            )
    return None


class _Radii:
    """How far from the origin the rows lie that recognised maps give."""

    def __init__(self, algebra: Algebra, kept: Mapping[fx.Node, Found]) -> None:
        self.algebra, self.kept = algebra, kept

    def __call__(self, vector: int, c: Form) -> float | None:
        """A bound of `sqrt(c) ||x||`; None where nothing in the graph gives one."""
        found = self.kept.get(self.algebra.atoms[vector].parts[0])
        match = found.outcome if found is not None else None
        if not isinstance(match, Match) or match.multiple != ONE:
            return None
        ratio = 1.0 if self.algebra.equal(c, match.curvature) else None
        ratio = ratio or quotient(self.algebra, c, match.curvature).number
        reach = match.guards.get("max_radius")
        if match.target == "project":
            reach = 1.0 - float(match.guards.get("eps", 0.0))
        elif match.target == "expmap0" and "tanh_limit" in match.guards and not match.guards.get("separate"):
            reach = tanh(match.guards["tanh_limit"])
        return None if reach is None or ratio is None or ratio <= 0 else float(reach) * sqrt(ratio)


def _without_own_numbers(
    region: Region, kept: Mapping[fx.Node, Found], values: Mapping[fx.Node, Value]
) -> Region:
    """The region without numbers that are computed from its rows; where nothing else reads them, they are a part."""
    rows, scalars = set(region.rows), []
    for scalar in region.scalars:
        inside = _between(scalar, set(region.vectors), kept, values)
        if inside is None:
            scalars.append(scalar)
            continue
        for node in sorted({*inside, *region.constants}, reverse=True):
            if all(user in rows for user in node.users):
                rows.add(node)
    return replace(
        region,
        scalars=tuple(scalars),
        rows=tuple(sorted(rows)),
        constants=tuple(node for node in region.constants if node not in rows),
    )


def _between(
    node: fx.Node, vectors: set[fx.Node], kept: Mapping[fx.Node, Found], values: Mapping[fx.Node, Value]
) -> set[fx.Node] | None:
    """The nodes from the row vectors to a number of each row; None where it does not come from them alone."""
    found: set[fx.Node] = set()
    pending = [node]
    reached = False
    while pending:
        each = pending.pop()
        if each in found:
            continue
        if each in vectors:
            reached = True
        elif each in kept:
            found.update(kept[each].region.rows)
            pending.extend(kept[each].region.vectors)
        elif each in values and isinstance(each.meta.get("val"), torch.Tensor):
            found.add(each)
            pending.extend(each.all_input_nodes)
    return found if reached else None


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
