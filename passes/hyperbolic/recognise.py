"""Finds the maps in a graph: every root that matches, and every look-alike with its first difference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import fx

from .addition import match_addition
from .algebra import Algebra
from .candidates import Vectors, candidates
from .evaluate import Evaluator
from .forms import TooLarge
from .maps import Match, NearMiss, match_map
from .region import Region, region_of
from .values import Value


@dataclass(frozen=True)
class Found:
    """A map or a look-alike in the graph."""

    outcome: Match | NearMiss
    region: Region
    evaluator: Evaluator


def recognise(graph: fx.Graph, order: Mapping[fx.Node, int], tolerance: float) -> list[Found]:
    """Every map and look-alike of a graph, in order; no two maps have the same root.

    Args:
        graph: a functional ATen graph with fake values.
        order: the position of each node.
        tolerance: relative difference up to which two constants are equal.
    """
    maps: dict[fx.Node, Found] = {}
    misses: dict[fx.Node, Found] = {}
    for alternatives in candidates(graph):
        for vectors in alternatives:
            evaluator = Evaluator(Algebra(tolerance), vectors, order, maps)
            found = list(_search(evaluator, vectors))
            maps |= {item.region.root: item for item in found if isinstance(item.outcome, Match)}
            near = [item for item in found if isinstance(item.outcome, NearMiss)]
            misses = {item.region.root: item for item in near} | misses
            if len(near) < len(found):
                break
    covered = {node for item in maps.values() for node in item.region.rows}
    lone = [
        item for root, item in misses.items() if root not in covered and not _leads_on(root, maps, misses)
    ]
    return sorted([*maps.values(), *lone], key=lambda item: order[item.region.root])


def _leads_on(root: fx.Node, maps: Mapping[fx.Node, Found], misses: Mapping[fx.Node, Found]) -> bool:
    """Whether a look-alike is only a step on the way to a map or to another look-alike."""
    return any(user in maps or user in misses for user in root.users)


def _search(evaluator: Evaluator, vectors: Vectors) -> Iterator[Found]:
    for node, value in evaluator.cone():
        try:
            outcome = _outcome(evaluator, vectors, value)
        except (TooLarge, ArithmeticError):
            continue
        if outcome is None:
            continue
        yield Found(outcome, region_of(evaluator, node), evaluator)
        if isinstance(outcome, Match):
            evaluator.cut(node)


def _outcome(evaluator: Evaluator, vectors: Vectors, value: Value) -> Match | NearMiss | None:
    if not len(value.form):  # zero, whatever the rows are
        return None
    indices = [evaluator.vectors[node] for node in vectors]
    if len(indices) == 1:
        return match_map(evaluator.algebra, value.form, indices[0])
    return match_addition(evaluator.algebra, value.form, *indices)
