"""Plans for a budget, a floor or a time, none of whose layers is slower than it was."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from . import choose, latency
from .candidates import Candidates
from .options import Option
from .stats import Point
from .task import Task

SAFER = (2.5, 1.5, 1.1)
"""What plans cost at least, as multiples of the smallest, that are confirmed before it, in this order."""
WORTH = 0.1
"""Where a floor is asked for, what is filled in must be worth this share of what the last step down saved."""


HIGHER, HIGHER_ALONE = 1.02, 1.1
"""Of the original's score: what the smallest model cannot reach by chance, with a bound for chance and without one."""


class Planner:
    """Chooses among the options of a task.

    Args:
        task: what was asked for.
        candidates: what is chosen from.
        timing: of layers and of calls; None where nothing is timed.

    Attributes:
        emitted: seconds of what was timed again and stayed, by paths.
    """

    def __init__(self, task: Task, candidates: Candidates, timing: latency.Timing | None) -> None:
        self.task = task
        self.candidates = candidates
        self.timing = timing
        self.emitted: dict[tuple[str, ...], latency.Ratio] = {}
        self._table: choose.Table | None = None

    def planned(self, budget: float) -> choose.Plan:
        """The plan of least loss for a share of what all layers cost as they are."""
        # A share of one is never missed by rounding.
        worth = 0.0 if self.task.settings.max_ratio is not None else WORTH
        found = self.candidates
        if self._table is None or self._table.sizes != [len(c.options) for c in found.every]:
            self._table = choose.Table(found.singles, found.blocks, self.price())
        return self._table.plan(budget * (1 + 1e-9), worth)

    def price(self) -> Callable[[Option], float]:
        """A share of what all layers cost as they are: of bytes, of seconds, or the mean of the two."""
        settings = self.task.settings
        size, seconds = self.candidates.bytes, self._dense_seconds()
        weight = {"bytes": 0.0, "seconds": 1.0, "both": 0.5}[settings.cost]
        if settings.max_ratio is not None or seconds == 0:
            weight = 0.0
        elif settings.max_seconds is not None:
            weight = 1.0
        return lambda option: (
            (1 - weight) * option.bytes / max(size, 1) + weight * (option.seconds or 0.0) / (seconds or 1.0)
        )

    def _dense_seconds(self) -> float:
        return math.fsum(c.dense.seconds or 0.0 for c in self.candidates.singles)

    # What is asked for -----------------------------------------------------------------------------------------

    def within_ratio(self, ratio: float) -> choose.Plan:
        """The plan of least loss that takes at most this share of the bytes."""
        found = self.candidates
        wanted = (ratio * self.task.bytes_before - found.fixed) / max(found.bytes, 1)
        return self._faster(lambda: self.planned(wanted))

    def within_seconds(self, most: float) -> choose.Plan:
        """The plan of least loss with which a call takes at most so long, measured as a whole."""
        return self._faster(lambda: self._within_seconds(most))

    def _within_seconds(self, most: float) -> choose.Plan:
        assert self.timing is not None
        # A little less than allowed: no two readings of a clock are the same.
        wanted = 0.95 * most
        layers = self._dense_seconds()
        # What layers take is counted by what each takes alone; the rest of the model stays.
        rest = max(self.timing.call_seconds([self.task.model])[0] - layers, 0.0)
        allowed = wanted - rest
        for _ in range(3):
            plan = self.planned(max(allowed, 0.0) / layers if layers else 1.0)
            with self.task.emitted(plan):
                taken = self.timing.call_seconds([self.task.model])[0]
            if taken <= wanted or allowed <= 0:
                break
            allowed -= taken - wanted
        return plan

    def smallest(self, evaluate: Callable[[choose.Plan], Point]) -> tuple[choose.Plan, list[choose.Plan]]:
        """The cheapest plan whose score holds the floor, in a few evaluations, and safer ones, the safest first."""
        settings = self.task.settings
        lossless = self.planned(1.0)
        good, bad = lossless, self.planned(0.0)
        held: list[choose.Plan] = []
        floor = settings.min_accuracy
        # Each plan that is confirmed is an evaluation too.
        multiples = SAFER[len(SAFER) - min(len(SAFER), settings.evaluations // 4) :]
        remaining = settings.evaluations - len(multiples)
        point = evaluate(bad)
        remaining -= 1
        if callable(settings.metric):
            self._check_metric(point)
        if point.lower >= floor:
            return self.without_slower(bad), []
        # Losses predict how far the score falls, up to a factor that each evaluation corrects.
        factor = _lost(point.accuracy) / max(bad.loss, 1e-300)
        while remaining and good.cost - bad.cost > 0.004 * lossless.cost:
            guess = self._of_loss((1 - floor) / factor, bad.cost, good.cost)
            width = good.cost - bad.cost
            tried = self._between(bad, good, min(max(guess, bad.cost + 0.1 * width), good.cost - 0.1 * width))
            if tried is None:
                break
            point = evaluate(tried)
            remaining -= 1
            if point.lower >= floor:
                good = tried
                held.append(tried)
            else:
                bad = tried
            if tried.loss > 0:
                factor = _lost(point.lower) / tried.loss
        # Layers that go back to what they were lose nothing.
        smallest = self.without_slower(good)
        return smallest, [self.without_slower(plan) for plan in self._safer(good, held, multiples)]

    def _check_metric(self, smallest: Point) -> None:
        """Whether a metric of the user's tells the smallest model of all from the original, and which is the better.

        Raises:
            ValueError: it is higher for the smallest.
        """
        # One number for all samples has no bound, and chance may move it further.
        chance = HIGHER if smallest.lower != smallest.accuracy else HIGHER_ALONE
        if smallest.lower > chance:
            raise ValueError(
                "metric: expected one that is higher where the model is better, got one that is "
                f"{smallest.accuracy:.3g} times as high for the smallest model there is, of {smallest.ratio:.1%} of "
                "the bytes, as for the original; for a loss or perplexity return 1 / value. If it is meant, ask for a "
                "size instead of a floor: max_ratio="
            )
        if smallest.accuracy == smallest.lower == 1:
            self.task.stats.notes.append(
                "the metric is the same for the original and for the smallest model there is, of "
                f"{smallest.ratio:.1%} of the bytes; does it look at the model that it is given?"
            )

    def _safer(
        self, good: choose.Plan, held: Sequence[choose.Plan], multiples: Sequence[float]
    ) -> list[choose.Plan]:
        """Plans for where luck on the selection split made the smallest too small: of those that held the floor there,
        or where none is near of those that are expected to lose less.
        """
        found: list[choose.Plan] = []
        for place, multiple in enumerate(multiples):
            most = multiples[place - 1] if place else math.inf
            near = [plan for plan in held if multiple <= plan.cost / good.cost < most]
            # The last one that held is the nearest.
            plan = near[-1] if near else self.planned(multiple * good.cost)
            # To replace nothing needs no confirmation.
            replaces = any(option.form != "dense" for option in plan.chosen.values())
            between = good.cost < plan.cost < (found[-1].cost if found else math.inf)
            if replaces and between and plan.loss < good.loss:
                found.append(plan)
        return found

    def _between(self, bad: choose.Plan, good: choose.Plan, guess: float) -> choose.Plan | None:
        """Another plan between two, near a cost; None where there seems to be none."""
        low, high = bad.cost, good.cost
        for _ in range(12):
            plan = self.planned(guess)
            if plan.chosen != bad.chosen and bad.cost < plan.cost < good.cost:
                return plan
            low, high = (guess, high) if plan.cost <= bad.cost else (low, guess)
            guess = (low + high) / 2
        return None

    def _of_loss(self, loss: float, low: float, high: float) -> float:
        """The cost of the cheapest plan whose expected loss is at most this."""
        for _ in range(12):
            middle = (low + high) / 2
            if self.planned(middle).loss > loss:
                low = middle
            else:
                high = middle
        return high

    # None slower -----------------------------------------------------------------------------------------------

    def _faster(self, planned: Callable[[], choose.Plan]) -> choose.Plan:
        """A plan none of whose layers is slower, where others make up for those that go back."""
        for _ in range(3):
            plan = planned()
            kept = self.without_slower(plan)
            if kept.chosen == plan.chosen:
                break
            slower = {paths: o for paths, o in plan.chosen.items() if kept.chosen.get(paths) is not o}
            for candidate in self.candidates.every:
                if candidate.paths in slower:
                    form = slower[candidate.paths].form
                    candidate.options = [o for o in candidate.options if o.form != form or o.size is None]
        return kept

    def without_slower(self, plan: choose.Plan) -> choose.Plan:
        """Each layer of a plan timed again beside its dense one; what is slower after all goes back."""
        if self.timing is None:
            return plan
        chosen: dict[tuple[str, ...], Option] = {}
        singles = {c.paths[0]: c for c in self.candidates.singles}
        for paths, option in plan.chosen.items():
            modules = option.build()
            ratios = self.timing.compare(paths, modules) if modules else []
            slow = next((ratio for ratio in ratios if ratio.median >= 1), None)
            if slow is None:
                chosen[paths] = option
                if ratios:
                    self.emitted[paths] = ratios[0]
                continue
            for path in paths:
                if path in singles:
                    single = singles[path]
                    chosen[single.paths] = single.dense
                    single.refused[option.form] = (
                        f"slower when it was timed again: {slow.median:.2f} of dense"
                    )
        for path in self.task.fused:
            self._without_slower_whole(path, chosen)
        return self.of(chosen)

    def _without_slower_whole(self, path: str, chosen: dict[tuple[str, ...], Option]) -> None:
        """What torch computes in one call must be faster than in the original, with all that changed in it."""
        assert self.timing is not None
        inside = {
            paths: option
            for paths, option in chosen.items()
            if option.form != "dense" and any(name.startswith(f"{path}.") for name in paths)
        }
        if not inside or not self.timing.was_called(path):
            return
        task = self.task
        with task.emitted(choose.Plan(inside, 0.0, 0.0)) as model:
            ratios = self.timing.compare(
                (path,), {path: model.get_submodule(path)}, {path: task.original.get_submodule(path)}
            )
        slow = next((ratio for ratio in ratios if ratio.median >= 1), None)
        if ratios and slow is None:
            return
        reason = f"all of {path} was computed in one call, and could not be timed beside it"
        if slow is not None:
            reason = f"slower than {path} as it was, all of which was computed in one call: {slow.median:.2f} of it"
        for single in self.candidates.singles:
            changed = [paths for paths in inside if single.paths[0] in paths]
            for paths in changed:
                chosen.pop(paths, None)
                chosen[single.paths] = single.dense
                single.refused[inside[paths].form] = reason

    def of(self, chosen: dict[tuple[str, ...], Option]) -> choose.Plan:
        """A choice with what it costs and loses."""
        loss = sum(option.loss for option in chosen.values())
        return choose.Plan(chosen, sum(map(self.price(), chosen.values())), loss)


def _lost(share: float) -> float:
    """What is gone of a score; all of it where it is no number."""
    return max(1 - share, 1e-12) if math.isfinite(share) else 1.0
