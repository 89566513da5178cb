"""Which option each layer gets: the least loss for a cost, over all layers at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from .options import Candidate, Option

BISECTIONS = 60


@dataclass(frozen=True)
class Plan:
    """A choice for every layer.

    Attributes:
        chosen: option by the paths of its candidate; layers of a block that is taken are not named by themselves.
        cost: of all of it.
        loss: expected.
    """

    chosen: dict[tuple[str, ...], Option]
    cost: float
    loss: float


def plan(
    singles: Sequence[Candidate],
    blocks: Sequence[Candidate],
    budget: float,
    price: Callable[[Option], float],
    *,
    worth: float = 0.0,
) -> Plan:
    """The plan of least loss whose cost is at most `budget`, or the cheapest one.

    For a multiplier each layer takes its least `loss + multiplier * cost`: the convex hull of what can be reached.
    The multiplier is bisected on the budget, and what the hull leaves below it is filled greedily by what loses
    least loss for its cost, since sampled losses are neither convex nor monotone in the rank. A block is taken where
    it is better than its layers on their own.
    """
    return Table(singles, blocks, price).plan(budget, worth)


def lower_hull(points: Sequence[tuple[float, float, Any]]) -> list[tuple[float, float, Any]]:
    """Points `(cost, loss, what)` that are best for some price, by cost.

    >>> lower_hull([(1.0, 4.0, "a"), (2.0, 3.5, "b"), (3.0, 1.0, "c"), (4.0, 1.0, "d")])
    [(1.0, 4.0, 'a'), (3.0, 1.0, 'c')]
    """
    hull: list[tuple[float, float, Any]] = []
    for point in sorted(points, key=lambda p: p[:2]):
        if hull and point[1] >= hull[-1][1]:
            continue
        while len(hull) > 1 and _above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return hull


def _above(a: tuple[float, float, Any], b: tuple[float, float, Any], c: tuple[float, float, Any]) -> bool:
    """Whether the middle one of three points is not below the line through the others."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


class Table:
    """All options of all layers, made once for any number of budgets; see `plan`."""

    def __init__(
        self, singles: Sequence[Candidate], blocks: Sequence[Candidate], price: Callable[[Option], float]
    ) -> None:
        self.price = price
        self.candidates = {c.paths: c for c in (*singles, *blocks)}
        self.single_of = {path: c.paths for c in singles for path in c.paths}
        self.blocks = [c.paths for c in blocks]
        self.losses = {k: numpy.array([o.loss for o in c.options]) for k, c in self.candidates.items()}
        self.costs = {k: numpy.array([price(o) for o in c.options]) for k, c in self.candidates.items()}

        self.sizes = [len(c.options) for c in (*singles, *blocks)]
        self.order = list(self.candidates)
        self.all_losses, self.all_costs = _padded(self.losses, self.order), _padded(self.costs, self.order)

    def plan(self, budget: float, worth: float = 0.0) -> Plan:
        """The plan for a budget; see the function `plan`."""
        low, high = -80.0, 80.0
        picked = self.pick(math.exp(low))
        if self.cost(picked) <= budget:
            high = low
        else:
            for _ in range(BISECTIONS):
                middle = (low + high) / 2
                if self.cost(self.pick(math.exp(middle))) > budget:
                    low = middle
                else:
                    high = middle
            picked = self.pick(math.exp(high))
        chosen = self.filled(picked, budget, worth * math.exp(high))
        cost = sum(map(self.price, chosen.values()))
        return Plan(chosen, cost, sum(option.loss for option in chosen.values()))

    def pick(self, multiplier: float) -> dict[tuple[str, ...], int]:
        """The best option of each candidate, blocks in place of their layers where they are better."""
        table = self.all_losses + multiplier * self.all_costs
        values = dict(zip(self.order, table, strict=True))
        best = dict(zip(self.order, table.argmin(1).tolist(), strict=True))
        taken = {k: best[k] for k in set(self.single_of.values())}
        gains = []
        for block in self.blocks:
            layers = {self.single_of[path] for path in block if path in self.single_of}
            alone = sum(values[k][best[k]] for k in layers)
            # Option 0 of a block is to leave its layers alone.
            inner = int(values[block][1:].argmin()) + 1 if len(self.losses[block]) > 1 else 0
            if inner and values[block][inner] < alone:
                gains.append((alone - values[block][inner], block, inner, layers))
        for _, block, inner, layers in sorted(gains, key=lambda g: (-g[0], g[1])):
            if all(k in taken for k in layers):
                for k in layers:
                    del taken[k]
                taken[block] = inner
        return taken

    def cost(self, picked: dict[tuple[str, ...], int]) -> float:
        """What these options cost together."""
        return float(sum(self.costs[k][i] for k, i in picked.items()))

    def filled(
        self, picked: dict[tuple[str, ...], int], budget: float, least: float = 0.0
    ) -> dict[tuple[str, ...], Option]:
        """The options with what the budget leaves spent on those that save most loss for it."""
        room = budget - self.cost(picked)
        best = {k: self._gain(k, i, room, least) for k, i in picked.items()}
        while best:
            key = max(best, key=lambda k: best[k][0])
            gain, j = best[key]
            if gain <= 0:
                break
            cost = float(self.costs[key][j] - self.costs[key][picked[key]])
            if cost > room:
                # Found when there was more room; room only shrinks, so what is found now is no better.
                best[key] = self._gain(key, picked[key], room, least)
                continue
            room -= cost
            picked[key] = j
            best[key] = self._gain(key, j, room, least)
        return {k: self.candidates[k].options[i] for k, i in sorted(picked.items())}

    def _gain(self, key: tuple[str, ...], now: int, room: float, least: float) -> tuple[float, int]:
        """The option that saves most loss for its further cost, of those that there is room for."""
        loss, cost = self.losses[key][now] - self.losses[key], self.costs[key] - self.costs[key][now]
        # Costless gains first; dense options of blocks stand for layers that were decided on their own.
        usable = (loss > 0) & (cost <= room) & (loss >= least * cost)
        if key in self.blocks:
            usable[0] = False
        gain = numpy.where(usable, loss / numpy.maximum(cost, 1e-30), -1.0)
        j = int(gain.argmax())
        return float(gain[j]), j


def _padded(rows: dict[tuple[str, ...], numpy.ndarray], order: Sequence[tuple[str, ...]]) -> numpy.ndarray:
    """Rows of unequal lengths as one array, infinite beyond their ends."""
    table = numpy.full((len(order), max((len(rows[k]) for k in order), default=1)), numpy.inf)
    for row, key in zip(table, order, strict=True):
        row[: len(rows[key])] = rows[key]
    return table
