"""What plans keep of the accuracy: on the selection split, and then confirmed on data that chose nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from . import choose
from .candidates import Candidates
from .data import Batch
from .metric import Metric, flawless, lower_bound, samples_needed
from .stats import Point
from .task import Task

EVEN = 0.5
"""Confidence on the selection split where it has too few samples to show the floor: what it chooses is confirmed on
others anyway."""


class Judge:
    """Scores plans by the user's metric.

    Args:
        task: whose plans they are.
        candidates: what plans were chosen from.
        metric: made by default, with the results of the original.
    """

    def __init__(self, task: Task, candidates: Candidates, metric: Metric | None = None) -> None:
        self.task = task
        self.candidates = candidates
        self.metric = metric or Metric(task.settings.metric, task.original, task.settings.output)
        self.of_shares = False
        """Whether samples were right or wrong when it scored last."""

    def evaluate(self, plan: choose.Plan) -> Point:
        """A plan on the selection split; it joins the curve."""
        description = self.task.description(f"evaluation {len(self.task.stats.curve) + 1}")
        point = self._scored("select", plan, self.task.data.select, description)
        self.task.stats.curve.append(point)
        return point

    def confirm(self, plan: choose.Plan, safer: Sequence[choose.Plan] = ()) -> choose.Plan:
        """The floor on the confirmation split: the plan that holds it; where none does nothing is replaced.

        Safer plans are tested first, and each next one only where that before it holds: tests in an order that was
        fixed before, each with the full confidence, are all right together with that confidence (Maurer, Hothorn and
        Lehmacher 1995).
        """
        settings, stats = self.task.settings, self.task.stats
        floor = settings.min_accuracy
        first, *smaller = (*safer, plan)
        plan, point = first, self._confirmed(first)
        for tried in smaller:
            if point.lower < floor:
                break
            found = self._confirmed(tried)
            if found.lower < floor:
                break
            plan, point = tried, found
        stats.accuracy_preserved, stats.accuracy_lower = point.accuracy, point.lower
        if not self.metric.uses_splits:
            stats.notes.append(
                "the metric has data of its own, which also chose; pass a metric(model, batches) to have the floor "
                "confirmed on data that chose nothing"
            )
        if settings.max_seconds is not None:
            return plan
        if settings.max_ratio is not None:
            stats.reached = point.ratio <= settings.max_ratio
            return plan
        # Exact merging alone was verified in float64: it holds any floor, though rounding may show in the score.
        lossless_alone = all(option.form == "dense" for option in plan.chosen.values())
        stats.reached = lossless_alone or point.lower >= floor
        if stats.reached:
            return plan
        stats.notes.append(self._failed(point))
        stats.accuracy_preserved = stats.accuracy_lower = 1.0
        return self.candidates.dense()

    def _failed(self, point: Point) -> str:
        settings = self.task.settings
        count = sum(b.samples for b in self.task.data.confirm)
        note = (
            f"the floor of {settings.min_accuracy:g} could not be confirmed: {point.accuracy:.4f} on "
            f"{count} samples, at least {point.lower:.4f} with "
            f"{settings.confidence:.0%} confidence; the lossless model is returned"
        )
        if count < 2 and self.metric.uses_splits:
            note += "; one sample says nothing about others: give more data"
        if self.of_shares:
            needed = samples_needed(settings.min_accuracy, settings.confidence)
            note += f" (a share of agreement needs {needed} samples, and more where some change)"
        return note

    def _confirmed(self, plan: choose.Plan) -> Point:
        return self._scored("confirm", plan, self.task.data.confirm, self.task.description("confirmation"))

    def _scored(self, name: str, plan: choose.Plan, batches: list[Batch], description: str | None) -> Point:
        settings = self.task.settings
        with ExitStack() as stack:
            # The plan is put in place only where its score is not known.
            score = self.task.store.score(
                name,
                _key(plan),
                lambda: self.metric(stack.enter_context(self.task.applied(plan)), batches, description),
            )
        self.of_shares = score.of_two
        original = self.metric.original_score(batches)
        confidence = settings.confidence
        if name == "select" and flawless(score, original, confidence) < settings.min_accuracy:
            confidence = EVEN
        lower = lower_bound(score, original, settings.min_accuracy, confidence, settings.seed)
        if name == "select" and score.samples is not None and len(score.samples) < 2 and original.value > 0:
            # One sample has no bound; what it chooses is confirmed on others.
            lower = score.value / original.value
        return Point(
            ratio=(self.candidates.fixed + sum(o.bytes for o in plan.chosen.values()))
            / max(self.task.bytes_before, 1),
            seconds=_seconds(plan),
            accuracy=score.value / original.value if original.value > 0 else math.nan,
            lower=lower,
        )


def _key(plan: choose.Plan) -> list[Any]:
    """A plan as plain values."""
    return sorted([list(paths), option.form, option.size or 0] for paths, option in plan.chosen.items())


def _seconds(plan: choose.Plan) -> float | None:
    seconds = [option.seconds for option in plan.chosen.values()]
    known = [s for s in seconds if s is not None]
    return math.fsum(known) if known and len(known) == len(seconds) else None
