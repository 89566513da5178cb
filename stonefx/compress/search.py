"""The search: statistics, spectra, losses, options, a plan, and the floor confirmed on data that chose nothing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from . import attributing, choose, energy, int8, latency, lossless, outcome, processes, refine, structure
from .candidates import Candidates
from .checkpoint import Store, digest
from .confirming import Judge
from .data import Splits
from .measuring import Measurements
from .metric import Metric, check_original
from .planning import Planner
from .settings import Settings
from .stats import CompressionStats
from .task import Task


class Search:
    """One compression of one model; `run` goes through all stages.

    Args:
        original, model, settings, splits, exact, store, opened: see `Task`.

    Attributes:
        task: what all stages share.
        found: what was measured.
        candidates: what is chosen from, once it is prepared.
        plan: the choice.
    """

    def __init__(
        self,
        original: nn.Module,
        model: nn.Module,
        settings: Settings,
        splits: Splits | None,
        exact: lossless.Lossless | None = None,
        store: Store | None = None,
        opened: dict[str, nn.Module] | None = None,
    ) -> None:
        self.task = Task(original, model, settings, splits, exact, store, opened)
        self.found = Measurements(self.task)
        self.candidates: Candidates | None = None
        self.timing: latency.Timing | None = None
        self.planner: Planner | None = None
        self.plan = choose.Plan({}, 1.0, 0.0)
        self.losses: dict[str, float] = {}
        self.metric: Metric | None = None

    @property
    def model(self) -> nn.Module:
        """The copy that layers are replaced in."""
        return self.task.model

    def run(self) -> tuple[nn.Module, CompressionStats]:
        """All stages, and the model that comes out."""
        task, settings = self.task, self.task.settings
        if task.splits is not None and task.views:
            self._check_metric()
        if not task.views:
            task.stats.notes.append("no layer can be made smaller; every reason is in the report")
        elif task.splits is None or settings.energy is not None:
            if settings.refine and task.splits is None:
                task.stats.notes.append("nothing was refined: refine=True needs data to train on")
            self._by_energy()
        else:
            self.prepare()
            task.timed(self._choose)
        if task.splits is not None and task.views:
            task.timed(self._attribute)
        self._finish()
        return task.model.eval(), task.stats

    def prepare(self) -> None:
        """All that the choice rests on: statistics, spectra, losses, and the options that they give; once.

        What is in `found` already, from an earlier run, is not made again.
        """
        if self.candidates is not None:
            return
        task, found = self.task, self.found
        if found.measured:
            found.order()
        else:
            task.timed(self._measure)
        if not found.spectra:
            task.timed(self._decompose)
        task.timed(self._weigh)
        task.timed(self._time)

    def again(self, *, sampled: bool = True, **changes: Any) -> Search:
        """A search with the statistics, spectra and losses of this one, prepared, and other settings for the choice.

        Args:
            sampled: whether losses are the sampled ones; those of the covariances otherwise.
            changes: of `Settings`; none that statistics depend on, such as `layers`, `probe` and `seed`.
        """
        self.prepare()
        task = self.task
        model = copy.deepcopy(task.model)
        settings = replace(task.settings, **changes)
        other = Search(task.original, model, settings, task.splits, task.exact, opened=task.opened)
        other.found.take(self.found)
        other.task.layers.refused.update(task.layers.refused)
        other.task.stats.seconds.update(task.stats.seconds)
        other.candidates = Candidates(other.task, other.found, other.found.tails if sampled else {})
        other._check_candidates(other.candidates)
        other.task.timed(other._time)
        return other

    def _check_metric(self) -> None:
        """Before anything takes time: what the metric says of the original is a number that has shares."""
        task, settings = self.task, self.task.settings
        self.metric = Metric(settings.metric, task.original, settings.output)
        floor = settings.max_ratio is None and settings.max_seconds is None
        for batches in (task.data.select, task.data.confirm):
            note = check_original(self.metric.original_score(batches), floor)
            if note is not None and note not in task.stats.notes:
                task.stats.notes.append(note)

    def _measure(self) -> None:
        self.found.measure()

    def _decompose(self) -> None:
        self.found.decompose()

    def _weigh(self) -> None:
        self.found.weigh()
        self.candidates = Candidates(self.task, self.found, self.found.tails)
        self._check_candidates(self.candidates)

    def _check_candidates(self, candidates: Candidates) -> None:
        call = structure.example(self.task.model, self.task.data.calibrate[0])
        assert call is not None
        candidates.check(call)

    def _time(self) -> None:
        """Options under int8, the seconds of all that are left, and the losses of int8 for those that are fast."""
        task, found = self.task, self._candidates()
        quantise = "int8" in task.settings.forms
        if quantise and (missing := int8.missing()):
            task.stats.notes.append(missing)
            quantise = False
        if quantise:
            int8.add(found.singles, found.blocks, task.views, dynamic=task.settings.cost != "bytes")
        if task.settings.cost != "bytes":
            self._clock().fill(found.every)
        if quantise:
            samples = max(sum(b.samples for b in task.data.calibrate), 1)
            rows = {task.views[n].path: known.positions / samples for n, known in self.found.measured.items()}
            int8.weigh(task, found.singles, found.blocks, rows)
        self.planner = Planner(task, found, self.timing)

    def _clock(self) -> latency.Timing:
        task = self.task
        given = task.data.given or latency.typical(task.data.calibrate)
        paths = sorted({*task.fused, *(path for c in self._candidates().every for path in c.paths)})
        self.timing = latency.Timing(task.model, paths, given, progress=task.settings.progress)
        task.stats.notes += self.timing.notes
        return self.timing

    def _candidates(self) -> Candidates:
        assert self.candidates is not None
        return self.candidates

    def _choose(self) -> None:
        assert self.planner is not None
        task, settings, planner = self.task, self.task.settings, self.planner
        judge = Judge(task, self._candidates(), self.metric)
        safer: Sequence[choose.Plan] = ()
        if settings.max_ratio is not None:
            self.plan = planner.within_ratio(settings.max_ratio)
            judge.evaluate(self.plan)
        elif settings.max_seconds is not None:
            self.plan = planner.within_seconds(settings.max_seconds)
            judge.evaluate(self.plan)
        else:
            self.plan, safer = planner.smallest(judge.evaluate)
        self._refine(judge)
        self._confirm(judge, safer)
        if self.timing is not None:
            with task.emitted(self.plan):
                before, after = self.timing.call_seconds([task.original, task.model])
            task.stats.call_seconds_before, task.stats.call_seconds_after = before, after
            if settings.max_seconds is not None:
                task.stats.reached = after <= settings.max_seconds

    def _refine(self, judge: Judge) -> None:
        """A few steps of training for what the plan replaces, where that is asked for."""
        task = self.task
        if not task.settings.refine:
            return
        built = {paths: option.build() for paths, option in self.plan.chosen.items()}
        chosen = {
            paths: replace(option, build=partial(_same, built[paths]))
            for paths, option in self.plan.chosen.items()
        }
        self.plan = replace(self.plan, chosen=chosen)
        with task.applied(self.plan):
            done = refine.refine(
                task.original,
                task.model,
                {path: module for modules in built.values() for path, module in modules.items()},
                task.data.calibrate,
                lambda: judge.metric(task.model.eval(), task.data.select).value,
                output=task.output,
                together=[*self.plan.chosen, *task.exact.into.items()],
                seed=task.settings.seed,
                progress=task.settings.progress,
            )
        task.stats.notes += done.notes

    def _confirm(self, judge: Judge, safer: Sequence[choose.Plan] = ()) -> None:
        self.plan = judge.confirm(self.plan, safer)

    def _by_energy(self) -> None:
        task = self.task
        self.found.decompose()
        self.candidates = Candidates(task, self.found, {})
        if task.splits is not None:
            self._check_candidates(self.candidates)
        if task.settings.cost != "bytes":
            if task.splits is None:
                task.stats.notes.append(
                    "nothing was timed: without data there are no shapes to time layers at"
                )
            else:
                self._clock()
        self.planner = Planner(task, self.candidates, self.timing)
        judge = None if task.splits is None else Judge(task, self.candidates, self.metric)
        self.plan = energy.plan(
            task, self.candidates, self.planner, None if judge is None else judge.evaluate
        )
        if judge is not None:
            self._refine(judge)
            self._confirm(judge)

    def _attribute(self) -> None:
        """What each layer's change loses on the selection split; of layers that change together that is not known."""
        task = self.task
        changed = {
            path: module
            for paths, option in self.plan.chosen.items()
            if len(paths) == 1 and option.form != "dense"
            for path, module in task.built(option).items()
        }
        if not changed:
            return
        options = [(paths, o.form, o.size) for paths, o in self.plan.chosen.items()]
        name = f"changes-{digest(repr(sorted(options, key=repr)))}"
        if not all(processes.gathered(name in task.store)):
            losses = attributing.measured(
                task.model,
                changed,
                task.data.select,
                seed=task.settings.seed + 3,
                description=task.description("losses of what changed"),
                **task.probing(),
            )
            task.put(name, {}, losses)
            self.losses = losses
        else:
            record = task.store.get(name)
            assert record is not None
            self.losses = record.values

    def _finish(self) -> None:
        emitted = {} if self.planner is None else self.planner.emitted
        outcome.put(self.task, self.plan, self.candidates, emitted, self.losses)
        task = self.task
        if task.splits is not None and task.weights is None and self.plan.chosen:
            # What the model reads of the new layers' weights, and gives them, shows itself in a call; see `saving`.
            call = structure.example(task.model, task.data.calibrate[0])
            assert call is not None
            with torch.no_grad():
                call.call(task.model)


def _same(modules: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    return modules
