"""The search: statistics, spectra, losses, options, a plan, and the floor confirmed on data that chose nothing."""

from __future__ import annotations

import copy
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import (
    attention,
    choose,
    estimate,
    int8,
    latency,
    layers,
    losses,
    lossless,
    processes,
    refine,
    statistics,
    streaming,
    structure,
    units,
)
from .blocks import Block, Reduction, obstacle
from .checkpoint import Running, Store, digest, flat, numbered
from .data import Batch, Splits
from .metric import Metric, Score, lower_bound, main_result, samples_needed
from .options import Candidate, Option, rank_grid
from .settings import Settings
from .spectrum import Spectra, Spectrum, decompose, energy_rank
from .stats import CompressionStats, LayerRow, Point
from .views import Joint, View, layer_weights

SAFER = 1.1
"""What a plan costs at least, as a multiple of the smallest, that is confirmed before it."""
WORTH = 0.1
"""Where a floor is asked for, what is filled in must be worth this share of what the last step down saved."""


class Search:
    """One compression of one model; `run` goes through all stages.

    Args:
        original: the user's model, read only; results are compared with its.
        model: a copy in eval; layers are merged exactly in it, and then replaced.
        settings: what was asked for.
        splits: the data by what it decides, or None: ranks follow `energy` alone.
        store: where what is found is kept, to go on from there.
    """

    def __init__(
        self,
        original: nn.Module,
        model: nn.Module,
        settings: Settings,
        splits: Splits | None,
        exact: lossless.Lossless | None = None,
        store: Store | None = None,
    ) -> None:
        self.original = original
        self.model = model
        self.settings = settings
        self.splits = splits
        self.output = settings.output or main_result
        self.stats = CompressionStats(settings=_plain(asdict(settings)))
        example = None if splits is None else splits.calibrate[0]
        self.exact = exact or lossless.merge(model, example, settings.layers)
        self.stats.lossless_ratio = self.exact.ratio
        self.stats.notes += self.exact.notes
        self.layers = layers.find(model, settings.layers)
        self.views = [view for views in self.layers.views.values() for view in views]
        self.weights = streaming.weights_of(model)
        self.parts = self._parts()
        self.store = store or Store(None)
        # With more than one part not all fits into memory at once, and waits in files.
        self.spilled = None
        if len(self.parts) > 1 and self.store.folder is None:
            self.spilled = tempfile.TemporaryDirectory(prefix="stonefx-")
            self.store = Store(self.spilled.name)
        self.measured: Mapping[int, statistics.Statistics] = {}
        self.spectra = Spectra(self.store, len(self.parts) == 1, self.spilled is not None)
        self.tails: dict[Any, Tensor] = {}
        self.reductions: list[tuple[Block, Reduction]] = []
        self.singles: list[Candidate] = []
        self.blocks: list[Candidate] = []
        self.plan = choose.Plan({}, 1.0, 0.0)
        self._table: choose.Table | None = None
        self.safer: choose.Plan | None = None
        self.timing: latency.Timing | None = None
        self.emitted: dict[tuple[str, ...], latency.Ratio] = {}

    # Stages ----------------------------------------------------------------------------------------------------

    def run(self) -> tuple[nn.Module, CompressionStats]:
        """All stages, and the model that comes out."""
        if not self.views:
            self.stats.notes.append("no layer can be made smaller; every reason is in the report")
        elif self.splits is None or self.settings.energy is not None:
            if self.settings.refine and self.splits is None:
                self.stats.notes.append("nothing was refined: refine=True needs data to train on")
            self._by_energy()
        else:
            self.prepare()
            self._timed(self._choose)
        self._finish()
        return self.model.eval(), self.stats

    def prepare(self) -> None:
        """All that the choice rests on: statistics, spectra, losses, and the options that they give; once.

        What is in `measured`, `spectra` and `tails` already, from an earlier run, is not made again.
        """
        if self.singles:
            return
        if self.measured:
            self._reduce(self._find_blocks(), {self.views[n]: found for n, found in self.measured.items()})
        else:
            self._timed(self._measure)
        if not self.spectra:
            self._timed(self._decompose)
        self._timed(self._weigh)
        self._timed(self._time)

    def again(self, *, sampled: bool = True, **changes: Any) -> Search:
        """A search with the statistics, spectra and losses of this one, prepared, and other settings for the choice.

        Args:
            sampled: whether losses are the sampled ones; those of the covariances otherwise.
            changes: of `Settings`; none that statistics depend on, such as `layers`, `probe` and `seed`.
        """
        self.prepare()
        model = copy.deepcopy(self.model)
        other = Search(self.original, model, replace(self.settings, **changes), self.splits, self.exact)
        other.measured, other.spectra, other.reductions = self.measured, self.spectra, self.reductions
        other.tails = self.tails if sampled else {}
        other.layers.refused.update(self.layers.refused)
        other.stats.seconds.update(self.stats.seconds)
        other._options(other.tails)
        other._timed(other._time)
        return other

    def _measure(self) -> None:
        assert self.splits is not None
        found = self._find_blocks()
        views = [*self.views, *(block.view for block in found if block.view not in self.views)]
        measured = self._statistics(views)
        self.measured = (
            {n: value for n, value in measured.items() if n < len(self.views)}
            if len(self.parts) == 1
            else measured
        )
        for number, view in enumerate(self.views):
            if number not in self.measured:
                self._refuse(view.path, "no call of it was seen on the calibration data")
        few = sorted(
            {
                self.views[n].path: known.positions
                for n, known in self.measured.items()
                if known.positions < self.views[n].columns
            }.items()
        )
        if few:
            shown = ", ".join(f"{path} ({count})" for path, count in few[:5])
            self.stats.notes.append(
                f"{len(few)} of the layers were given fewer rows than they have inputs, so that what they need is "
                f"known in part: {shown}{', and others' if len(few) > 5 else ''}; more data would help"
            )
        needed = {block.view for block in found}
        self._reduce(found, {v: measured[n] for n, v in enumerate(views) if v in needed and n in measured})

    def _parts(self) -> list[list[int]]:
        """Numbers of views that are worked on together, by what memory allows."""
        batches = [] if self.splits is None else self.splits.calibrate
        free = estimate.available()
        copied = 0 if self.weights else stored_bytes(self.model, recurse=True)
        needed = estimate.estimate(self.views, batches, copied, self.settings.most_rank)
        budget = self.settings.memory
        if budget is None:
            budget = int(estimate.SHARE * free)
            if needed.total <= budget:
                return [list(range(len(self.views)))]
        parts = estimate.parts(self.views, batches, budget, self.settings.most_rank)
        if len(parts) > 1:
            self.stats.notes.append(
                f"layers were worked on in {len(parts)} groups, as at most {estimate.size(budget)} were to be taken: "
                f"{needed}"
            )
        # All processes work on the same parts, whatever each of them has free.
        return processes.of_first(lambda: parts)

    def _statistics(self, views: list[View]) -> Mapping[int, statistics.Statistics]:
        """Of the search's views, and of those of blocks that follow them."""
        assert self.splits is not None
        stored = statistics.Stored(self.store)
        for place, part in enumerate(self.parts):
            last = place + 1 == len(self.parts)
            numbers = [*part, *range(len(self.views), len(views))] if last else part
            name = f"statistics-{digest(repr(numbers))}"
            chosen = [views[number] for number in numbers]
            if not all(processes.gathered(name in self.store)):
                sums, keys = statistics.sums_of(
                    self.model,
                    chosen,
                    self.splits.calibrate,
                    gradients=True,
                    running=self._running(name),
                    seed=self.settings.seed,
                    description="statistics" if self.settings.progress else None,
                    **self._probing(),
                )
                self._put(name, *sums.record(keys))
                if len(self.parts) == 1:
                    return sums.statistics(chosen, keys)
            stored.add(name, numbers)
        return stored if len(self.parts) > 1 else dict(stored)

    def _probing(self) -> dict[str, Any]:
        return {
            "kind": self.settings.probe,
            "count": self.settings.probes,
            "output": self.output,
            "metric": self.settings.metric,
        }

    def _running(self, name: str) -> Callable[[str], Running]:
        return lambda kind: Running(self.store, f"{name}-{kind}")

    def _put(self, name: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """A record of all processes, which the first writes to the folder that they share."""
        if self.spilled is not None or processes.rank() == 0:
            self.store.put(name, tensors, values)
        processes.gathered(None)
        self.store.forget_running(name)

    def _find_blocks(self) -> list[Block]:
        """Layers that can be made smaller together."""
        assert self.splits is not None
        if not {"width", "heads"} & set(self.settings.forms):
            return []
        read = self.exact.structure
        if read is None:
            call = structure.example(self.model, self.splits.calibrate[0])
            assert call is not None
            read = structure.read(self.model, call)
        self.stats.notes += [note for note in read.notes if note not in self.stats.notes]
        found: list[Block] = []
        if "width" in self.settings.forms:
            found += units.find(read, self.layers.views, self.layers.views)
        if "heads" in self.settings.forms:
            found += attention.find(read, self.layers.views)
        return found

    def _reduce(self, found: list[Block], measured: Mapping[View, statistics.Statistics]) -> None:
        """Order the units of all blocks, and leave out the blocks that the model does not run without."""
        assert self.splits is not None
        call = structure.example(self.model, self.splits.calibrate[0])
        assert call is not None
        for block in tqdm(found, desc="blocks", disable=not self.settings.progress, leave=False):
            if block.view not in measured:
                self.stats.notes.append(f"{block.name} of {', '.join(block.paths)}: no call of it was seen")
                continue
            try:
                reduction = block.reduction(measured[block.view])
                reason = obstacle(self.model, reduction, call, self.layers.shared)
            except (ValueError, torch.linalg.LinAlgError) as error:
                reason = str(error)
            if reason is None:
                self.reductions.append((block, reduction))
            else:
                self.stats.notes.append(f"{block.name} of {', '.join(block.paths)}: {reason}")

    def _decompose(self) -> None:
        """Spectra of all layers, dealt out by what they cost."""
        numbers = list(self.measured) if self.splits is not None and self.settings.energy is None else None
        numbers = list(range(len(self.views))) if numbers is None else numbers
        left = processes.gathered([n for n in numbers if not self.spectra.known(n)])
        todo = sorted(set().union(*left))
        costs = {n: float(estimate.decomposing(self.views[n])) for n in todo}
        owner = processes.owners(costs)
        refused: dict[int, str] = {}
        mine = [n for n in todo if owner[n] == processes.rank()]
        for n in tqdm(mine, desc="decompositions", disable=not self.settings.progress, leave=False):
            try:
                self.spectra[n] = decompose(
                    self.views[n].matrix(),
                    self.measured.get(n),
                    self.settings.most_rank,
                    self.settings.seed + n,
                )
            except ValueError as error:
                refused[n] = str(error)
        for found in processes.gathered(refused):
            for n, reason in found.items():
                refused[n] = reason
                self._refuse(self.views[n].path, reason)
        self.spectra.exchange({n: owner[n] for n in todo if n not in refused})

    def _weigh(self) -> None:
        """Sampled losses of every rank, then the options that they give."""
        assert self.splits is not None
        tails: dict[Any, Tensor] = {}
        for place, numbers in enumerate(self.parts):
            name = f"losses-{digest(repr(numbers))}"
            found = self.store.get(name) if all(processes.gathered(name in self.store)) else None
            if found is not None:
                for key, tail in numbered(found.tensors, "losses").items():
                    tails[key if key >= 0 else ("block", -1 - key)] = tail
                continue
            directions: dict[Any, losses.Directions] = {}
            for number in numbers:
                known = self.measured[number].gradients if number in self.spectra else None
                if known is not None and number not in self.tails:
                    view, spectrum = self.views[number], self.spectra[number]
                    rest = spectrum.rest(view.matrix()) if self.settings.most_rank else None
                    directions[number] = losses.Directions(view, *spectrum.components(), rest)
            if place == 0:
                for i, (_, reduction) in enumerate(self.reductions):
                    if ("block", i) not in self.tails:
                        directions["block", i] = reduction.directions
            if not directions:
                continue
            sampled, _ = losses.sampled(
                self.model,
                directions,
                {},
                self.splits.calibrate,
                seed=self.settings.seed + 1,
                description="losses" if self.settings.progress else None,
                running=self._running(name),
                **self._probing(),
            )
            # In a record blocks have the numbers below zero.
            kept = {key if isinstance(key, int) else -1 - key[1]: tail for key, tail in sampled.items()}
            self._put(name, flat(kept, "losses"), {})
            tails.update(sampled)
        # Those of an earlier run were not sampled again.
        self.tails = self.tails | tails
        self._options(self.tails)

    def _time(self) -> None:
        """Options under int8, the seconds of all that are left, and the losses of int8 for those that are fast."""
        assert self.splits is not None
        quantise = "int8" in self.settings.forms
        if quantise and (missing := int8.missing()):
            self.stats.notes.append(missing)
            quantise = False
        if quantise:
            int8.add(self.singles, self.blocks, self.views, dynamic=self.settings.cost != "bytes")
        if self.settings.cost != "bytes":
            self.timing = self._timing()
            self.timing.fill([*self.singles, *self.blocks])
        if quantise:
            samples = max(sum(b.samples for b in self.splits.calibrate), 1)
            int8.weigh(
                self.model,
                self.singles,
                self.blocks,
                self.views,
                {self.views[n].path: found.positions / samples for n, found in self.measured.items()},
                self.splits.calibrate,
                kind=self.settings.probe,
                count=self.settings.probes,
                output=self.output,
                metric=self.settings.metric,
                seed=self.settings.seed + 2,
                description="losses of int8" if self.settings.progress else None,
            )

    def _timing(self) -> latency.Timing:
        assert self.splits is not None
        given = self.splits.given or latency.typical(self.splits.calibrate)
        paths = sorted({path for c in (*self.singles, *self.blocks) for path in c.paths})
        timing = latency.Timing(self.model, paths, given, progress=self.settings.progress)
        self.stats.notes += timing.notes
        return timing

    def _options(self, tails: Mapping[Any, Tensor]) -> None:
        numbers_of: dict[str, list[int]] = {}
        for number, view in enumerate(self.views):
            numbers_of.setdefault(view.path, []).append(number)
        for path, numbers in numbers_of.items():
            found = [n for n in numbers if n in self.spectra]
            if not found:
                continue
            dense_bytes = stored_bytes(self.views[found[0]].layer)
            options = [Option("dense", None, 0.0, dense_bytes)]
            for number in found:
                options += self._of_view(number, tails.get(number), dense_bytes)
                for joint in self.views[number].joints([self.views[n] for n in found]):
                    options += self._of_joint(joint, tails, dense_bytes)
            self.singles.append(Candidate((path,), options))
        for i, (block, reduction) in enumerate(self.reductions):
            if block.name not in self.settings.forms:
                continue
            whole = [self.model.get_submodule(path) for path in block.paths]
            dense_bytes = sum(map(stored_bytes, whole))
            weights, element = sum(map(layer_weights, whole)), element_size(whole[0])
            tail = tails.get(("block", i))
            options = [Option("dense", None, 0.0, dense_bytes)]
            for size in reduction.sizes:
                loss = (
                    reduction.loss(size)
                    if tail is None or tail.isnan().any()
                    else tail[size * reduction.parts].item()
                )
                after = dense_bytes - (weights - reduction.numbers(size)) * element
                if after < dense_bytes:
                    options.append(Option(block.name, size, loss, after, None, _building(reduction, size)))
            self.blocks.append(Candidate(block.paths, options))

    def _of_view(self, number: int, tail: Tensor | None, dense_bytes: int) -> list[Option]:
        view = self.views[number]
        weights, element = layer_weights(view.layer), element_size(view.layer)
        tail = self._tail(number, tail)
        ranks = [rank for rank in rank_grid(view.full_rank) if rank < len(tail)]
        options = []
        for name, form in view.forms().items():
            if name not in self.settings.forms:
                continue
            label = name if view.name == "linear" else f"{name} {view.name}"
            for rank in ranks:
                after = dense_bytes - (weights - form.numbers(rank)) * element + form.index_bytes(rank)
                if after < dense_bytes:
                    build = _factoring(view, self.spectra, number, form, rank)
                    options.append(Option(label, rank, tail[rank].item(), after, None, build))
        return options

    def _tail(self, number: int, sampled: Tensor | None) -> Tensor:
        """Losses of a view's ranks: the sampled ones, or what covariances alone say."""
        if sampled is None or bool(sampled.isnan().any()):
            return self.spectra[number].tails.cpu()
        return sampled

    def _of_joint(self, joint: Joint, tails: Mapping[Any, Tensor], dense_bytes: int) -> list[Option]:
        """Options of a form with two ranks: of all pairs of ranks those on the lower convex hull."""
        if "pair" not in self.settings.forms:
            return []
        numbers = [next(n for n, v in enumerate(self.views) if v is w) for w in (joint.outer, joint.inner)]
        outer, inner = (self._tail(n, tails.get(n)) for n in numbers)
        weights, element = layer_weights(joint.outer.layer), element_size(joint.outer.layer)
        points = []
        for i, j in itertools.product(rank_grid(joint.outer.full_rank), rank_grid(joint.inner.full_rank)):
            after = dense_bytes - (weights - joint.numbers(i, j)) * element
            if after < dense_bytes and i < len(outer) and j < len(inner):
                points.append((float(after), (outer[i] + inner[j]).item(), (i, j)))
        build = _joining(joint, *(self.spectra[n] for n in numbers))
        return [
            Option(f"{joint.name} {j}", i, loss, int(after), None, partial(build, i, j))
            for after, loss, (i, j) in choose.lower_hull(points)
        ]

    # The choice ------------------------------------------------------------------------------------------------

    def _choose(self) -> None:
        assert self.splits is not None
        metric = Metric(self.settings.metric, self.original, self.settings.output)
        if self.settings.max_ratio is not None:
            now = sum(c.dense.bytes for c in self.singles)
            wanted = self.settings.max_ratio * self._bytes_before() / max(now, 1)
            self.plan = self._faster(lambda: self._planned(wanted))
            self._evaluate(metric, self.plan)
        elif self.settings.max_seconds is not None:
            self.plan = self._faster(self._within_seconds)
            self._evaluate(metric, self.plan)
        else:
            self.plan = self._smallest(metric)
            # Layers that go back to what they were lose nothing.
            self.plan = self._without_slower(self.plan)
            self.safer = None if self.safer is None else self._without_slower(self.safer)
        self._refine(metric)
        self._confirm(metric)
        if self.timing is not None:
            with self.applied(self.plan):
                before, after = self.timing.call_seconds([self.original, self.model])
            self.stats.call_seconds_before, self.stats.call_seconds_after = before, after
            if self.settings.max_seconds is not None:
                self.stats.reached = after <= self.settings.max_seconds

    def _within_seconds(self) -> choose.Plan:
        """The plan of least loss with which a call takes at most `max_seconds`, measured as a whole."""
        assert self.timing is not None and self.settings.max_seconds is not None
        # A little less than allowed: no two readings of a clock are the same.
        wanted = 0.95 * self.settings.max_seconds
        layers = math.fsum(c.dense.seconds or 0.0 for c in self.singles)
        # What layers take is counted by what each takes alone; the rest of the model stays.
        rest = max(self.timing.call_seconds([self.model])[0] - layers, 0.0)
        allowed = wanted - rest
        for _ in range(3):
            plan = self._planned(max(allowed, 0.0) / layers if layers else 1.0)
            with self.applied(plan):
                taken = self.timing.call_seconds([self.model])[0]
            if taken <= wanted or allowed <= 0:
                break
            allowed -= taken - wanted
        return plan

    def _faster(self, planned: Callable[[], choose.Plan]) -> choose.Plan:
        """A plan none of whose layers is slower, where others make up for those that go back."""
        for _ in range(3):
            plan = planned()
            kept = self._without_slower(plan)
            if kept.chosen == plan.chosen:
                break
            slower = {paths: o for paths, o in plan.chosen.items() if kept.chosen.get(paths) is not o}
            for candidate in (*self.singles, *self.blocks):
                if candidate.paths in slower:
                    form = slower[candidate.paths].form
                    candidate.options = [o for o in candidate.options if o.form != form or o.size is None]
        return kept

    def _without_slower(self, plan: choose.Plan) -> choose.Plan:
        """Each layer of a plan timed again beside its dense one; what is slower after all goes back."""
        if self.timing is None:
            return plan
        chosen: dict[tuple[str, ...], Option] = {}
        singles = {c.paths[0]: c for c in self.singles}
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
        loss = sum(option.loss for option in chosen.values())
        return choose.Plan(chosen, sum(map(self._price(), chosen.values())), loss)

    def _smallest(self, metric: Metric) -> choose.Plan:
        """The cheapest plan whose score holds the floor on the selection split, in a few evaluations."""
        lossless = self._planned(1.0)
        good, bad = lossless, self._planned(0.0)
        held: list[choose.Plan] = []
        floor = self.settings.min_accuracy
        remaining = self.settings.evaluations
        point = self._evaluate(metric, bad)
        remaining -= 1
        if point.lower >= floor:
            return bad
        # Losses predict how far the score falls, up to a factor that each evaluation corrects.
        factor = max(1 - point.accuracy, 1e-12) / max(bad.loss, 1e-300)
        while remaining and good.cost - bad.cost > 0.004 * lossless.cost:
            guess = self._of_loss((1 - floor) / factor, bad.cost, good.cost)
            width = good.cost - bad.cost
            tried = self._between(bad, good, min(max(guess, bad.cost + 0.1 * width), good.cost - 0.1 * width))
            if tried is None:
                break
            point = self._evaluate(metric, tried)
            remaining -= 1
            if point.lower >= floor:
                good = tried
                held.append(tried)
            else:
                bad = tried
            if tried.loss > 0:
                factor = max(1 - point.lower, 1e-12) / tried.loss
        # One that is confirmed first, for where luck on the selection split made the smallest too small.
        self.safer = next((p for p in reversed(held) if p.cost >= SAFER * good.cost), None)
        return good

    def _between(self, bad: choose.Plan, good: choose.Plan, guess: float) -> choose.Plan | None:
        """Another plan between two, near a cost; None where there seems to be none."""
        low, high = bad.cost, good.cost
        for _ in range(12):
            plan = self._planned(guess)
            if plan.chosen != bad.chosen and bad.cost < plan.cost < good.cost:
                return plan
            low, high = (guess, high) if plan.cost <= bad.cost else (low, guess)
            guess = (low + high) / 2
        return None

    def _of_loss(self, loss: float, low: float, high: float) -> float:
        """The cost of the cheapest plan whose expected loss is at most this."""
        for _ in range(12):
            middle = (low + high) / 2
            if self._planned(middle).loss > loss:
                low = middle
            else:
                high = middle
        return high

    def _planned(self, budget: float) -> choose.Plan:
        # A share of one is never missed by rounding.
        worth = 0.0 if self.settings.max_ratio is not None else WORTH
        every = [*self.singles, *self.blocks]
        if self._table is None or self._table.sizes != [len(c.options) for c in every]:
            self._table = choose.Table(self.singles, self.blocks, self._price())
        return self._table.plan(budget * (1 + 1e-9), worth)

    def _price(self) -> Callable[[Option], float]:
        """A share of what all layers cost as they are: of bytes, of seconds, or the mean of the two."""
        size = sum(c.dense.bytes for c in self.singles)
        seconds = math.fsum(c.dense.seconds or 0.0 for c in self.singles)
        weight = {"bytes": 0.0, "seconds": 1.0, "both": 0.5}[self.settings.cost]
        if self.settings.max_ratio is not None or seconds == 0:
            weight = 0.0
        elif self.settings.max_seconds is not None:
            weight = 1.0
        return lambda option: (
            (1 - weight) * option.bytes / max(size, 1) + weight * (option.seconds or 0.0) / (seconds or 1.0)
        )

    def _evaluate(self, metric: Metric, plan: choose.Plan) -> Point:
        assert self.splits is not None
        description = f"evaluation {len(self.stats.curve) + 1}" if self.settings.progress else None
        select = self.splits.select
        with self._when_called(plan) as model:
            score = self.store.score("select", _key(plan), lambda: metric(model(), select, description))
        point = self._point(metric, plan, score, select)
        self.stats.curve.append(point)
        return point

    def _point(self, metric: Metric, plan: choose.Plan, score: Score, batches: list[Batch]) -> Point:
        original = metric.original_score(batches)
        lower = lower_bound(
            score, original, self.settings.min_accuracy, self.settings.confidence, self.settings.seed
        )
        return Point(
            ratio=_bytes(plan) / max(self._bytes_before(), 1),
            seconds=_seconds(plan),
            accuracy=score.value / original.value if original.value else math.nan,
            lower=lower,
        )

    def _refine(self, metric: Metric) -> None:
        """A few steps of training for what the plan replaces, where that is asked for."""
        if not self.settings.refine:
            return
        assert self.splits is not None
        select = self.splits.select
        built = {paths: option.build() for paths, option in self.plan.chosen.items()}
        chosen = {
            paths: replace(option, build=_built(built[paths])) for paths, option in self.plan.chosen.items()
        }
        self.plan = replace(self.plan, chosen=chosen)
        with self.applied(self.plan):
            done = refine.refine(
                self.original,
                self.model,
                {path: module for modules in built.values() for path, module in modules.items()},
                self.splits.calibrate,
                lambda: metric(self.model.eval(), select).value,
                output=self.output,
                together=[*self.plan.chosen, *self.exact.into.items()],
                seed=self.settings.seed,
                progress=self.settings.progress,
            )
        self.stats.notes += done.notes

    def _bytes_before(self) -> int:
        """Of all layers that are chosen from, before exact merging."""
        paths = [c.paths[0] for c in self.singles if c.paths[0] not in self.exact.bytes_before]
        dense = {c.paths[0]: c.dense.bytes for c in self.singles}
        return sum(self.exact.bytes_before.values()) + sum(dense[path] for path in paths)

    def _confirm(self, metric: Metric) -> None:
        """The floor on the confirmation split; where it fails nothing is replaced.

        Of two plans the safer is tested first, and the smaller only where that one holds: tests in an order that was
        fixed before, each with the full confidence, are all right together with that confidence (Maurer, Hothorn and
        Lehmacher 1995).
        """
        assert self.splits is not None
        point = self._confirmed(metric, self.plan if self.safer is None else self.safer)
        if self.safer is not None and point.lower >= self.settings.min_accuracy:
            smaller = self._confirmed(metric, self.plan)
            if smaller.lower >= self.settings.min_accuracy:
                point = smaller
            else:
                self.plan = self.safer
        self.stats.accuracy_preserved, self.stats.accuracy_lower = point.accuracy, point.lower
        if not metric.uses_splits:
            self.stats.notes.append(
                "the metric has data of its own, which also chose; pass a metric(model, batches) to have the floor "
                "confirmed on data that chose nothing"
            )
        if self.settings.max_seconds is not None:
            return
        if self.settings.max_ratio is not None:
            self.stats.reached = point.ratio <= self.settings.max_ratio
            return
        floor = self.settings.min_accuracy
        # Exact merging alone was verified in float64: it holds any floor, though rounding may show in the score.
        lossless_alone = all(option.form == "dense" for option in self.plan.chosen.values())
        self.stats.reached = lossless_alone or point.lower >= floor
        if not self.stats.reached:
            needed = samples_needed(floor, self.settings.confidence)
            self.stats.notes.append(
                f"the floor of {floor:g} could not be confirmed: {point.accuracy:.4f} on "
                f"{sum(b.samples for b in self.splits.confirm)} samples, at least {point.lower:.4f} with "
                f"{self.settings.confidence:.0%} confidence; the lossless model is returned"
                + (
                    f" (a share of agreement needs {needed} samples)"
                    if self.settings.metric == "top1"
                    else ""
                )
            )
            self.plan = choose.Plan({c.paths: c.dense for c in self.singles}, 1.0, 0.0)
            self.stats.accuracy_preserved = self.stats.accuracy_lower = 1.0

    def _confirmed(self, metric: Metric, plan: choose.Plan) -> Point:
        assert self.splits is not None
        description = "confirmation" if self.settings.progress else None
        confirm = self.splits.confirm
        with self._when_called(plan) as model:
            score = self.store.score("confirm", _key(plan), lambda: metric(model(), confirm, description))
        return self._point(metric, plan, score, confirm)

    # Without data, or by energy --------------------------------------------------------------------------------

    def _by_energy(self) -> None:
        energy = self.settings.energy if self.settings.energy is not None else 0.99
        metric = (
            None if self.splits is None else Metric(self.settings.metric, self.original, self.settings.output)
        )
        self._decompose()
        self._options({})
        if self.splits is None and self.settings.cost != "bytes":
            self.stats.notes.append("nothing was timed: without data there are no shapes to time layers at")
        elif self.settings.cost != "bytes":
            self.timing = self._timing()
        while True:
            self.plan = self._energy_plan(energy)
            if (
                metric is None
                or self._evaluate(metric, self.plan).lower >= self.settings.min_accuracy
                or energy >= 1
            ):
                break
            # Half of what was dropped, until the floor holds or everything is kept.
            energy = 1 - (1 - energy) / 2 if energy < 1 - 1e-6 else 1.0
        if energy != self.settings.energy and self.settings.energy is not None:
            self.stats.notes.append(
                f"energy was raised from {self.settings.energy:g} to {energy:g} for the floor"
            )
        if metric is not None:
            self.plan = self._without_slower(self.plan)
            self._refine(metric)
            self._confirm(metric)

    def _energy_plan(self, energy: float) -> choose.Plan:
        chosen: dict[tuple[str, ...], Option] = {}
        for candidate in self.singles:
            path = candidate.paths[0]
            number = next(n for n, view in enumerate(self.views) if view.path == path and n in self.spectra)
            view, spectrum = self.views[number], self.spectra[number]
            rank = energy_rank(view.matrix(), energy)
            form = view.forms()["pair"]
            after = candidate.dense.bytes - (layer_weights(view.layer) - form.numbers(rank)) * element_size(
                view.layer
            )
            if after < candidate.dense.bytes:
                tail = spectrum.tails[rank].item()
                chosen[candidate.paths] = Option(
                    "pair", rank, tail, after, None, _factoring(view, self.spectra, number, form, rank)
                )
            else:
                chosen[candidate.paths] = candidate.dense
                candidate.refused["pair"] = (
                    f"rank {rank}, which keeps {energy:.4g} of the squared singular values, stores "
                    f"{form.numbers(rank):,} numbers and the dense layer {layer_weights(view.layer):,}"
                )
        return choose.Plan(chosen, sum(map(self._price(), chosen.values())), 0.0)

    # What comes out --------------------------------------------------------------------------------------------

    @contextmanager
    def applied(self, plan: choose.Plan) -> Iterator[nn.Module]:
        """The model with a plan's replacements in place, for the time of the block."""
        kept: dict[str, nn.Module] = {}
        try:
            for option in plan.chosen.values():
                for path, module in self._built(option).items():
                    kept[path] = self.model.get_submodule(path)
                    layers.replace(self.model, path, module, self.layers.shared)
            yield self.model
        finally:
            for path, module in kept.items():
                layers.replace(self.model, path, module, self.layers.shared)

    @contextmanager
    def _when_called(self, plan: choose.Plan) -> Iterator[Callable[[], nn.Module]]:
        """`applied`, where it turns out to be needed."""
        with ExitStack() as stack:
            yield lambda: stack.enter_context(self.applied(plan))

    def _built(self, option: Option) -> Mapping[str, nn.Module]:
        """An option's replacements; of a model that is larger than memory they go to files as well."""
        made = option.build()
        if self.weights is not None:
            for module in made.values():
                self.weights.offload(module)
        return made

    def _finish(self) -> None:
        rows = {path: self._row(path) for path in self.layers.views}
        before = sum(row.bytes_before for row in rows.values())
        whole = stored_bytes(self.original, recurse=True)
        refused = [self._row(path) for path in self.layers.refused if path not in rows]
        kept = total = 0.0
        for paths, option in self.plan.chosen.items():
            for path in paths:
                if path not in rows:
                    continue
                rows[path] = self._chosen_row(rows[path], option, paths)
            if len(paths) == 1 and option.size is not None:
                found = [n for n, v in enumerate(self.views) if v.path == paths[0] and n in self.spectra]
                # The form's name tells where the layer is cut.
                cut = [n for n in found if option.form.split("+")[0].endswith(f" {self.views[n].name}")]
                number = next(iter(cut or found), None)
                if number is not None:
                    tails = self.spectra[number].tails
                    kept += (tails[0] - tails[min(option.size, len(tails) - 1)]).item()
                    total += tails[0].item()
        for option in self.plan.chosen.values():
            for path, module in self._built(option).items():
                layers.replace(self.model, path, module, self.layers.shared)
        after = 0
        for path, row in rows.items():
            size = stored_bytes(self.model.get_submodule(path), recurse=True)
            after += size
            self.stats.layers.append(replace(row, bytes_after=size))
            if row.rank is not None:
                self.stats.ranks[path] = row.rank
        for path, place in self.exact.into.items():
            size = self.exact.bytes_before[path]
            before += size
            self.stats.layers.append(
                LayerRow(
                    path=path,
                    shape=_shape(self.original.get_submodule(path)),
                    form="merged",
                    bytes_before=size,
                    reason=f"merged into {place} without a loss",
                )
            )
        self.stats.layers += refused
        self.stats.compression_ratio = after / before if before else 1.0
        self.stats.model_ratio = stored_bytes(self.model, recurse=True) / max(whole, 1)
        self.stats.energy_preserved = kept / total if total else 1.0
        self.stats.samples = {} if self.splits is None else self.splits.samples()
        self.stats.curve.sort(key=lambda p: p.ratio)

    def _row(self, path: str) -> LayerRow:
        found = layers.get(self.model, path)
        size = stored_bytes(found) if isinstance(found, nn.Module) else found.numel() * found.element_size()
        reason = self.layers.refused.get(path, "")
        return LayerRow(
            path=path,
            shape=_shape(found),
            bytes_before=self.exact.bytes_before.get(path, size),
            bytes_after=size,
            reason=reason,
        )

    def _chosen_row(self, row: LayerRow, option: Option, paths: tuple[str, ...]) -> LayerRow:
        if option.form == "dense":
            candidate = next(c for c in self.singles if c.paths == paths)
            reason = row.reason or candidate.reason() or "dense is best at this cost"
            return replace(row, reason=reason, seconds_before=option.seconds, seconds_after=option.seconds)
        ratio = self.emitted.get(paths)
        row = replace(row, form=option.form, rank=option.size, predicted=option.loss)
        if ratio is None or len(paths) > 1:
            return row
        return replace(row, seconds_before=ratio.dense, seconds_after=ratio.dense * ratio.median)

    def _refuse(self, path: str, reason: str) -> None:
        self.layers.refused.setdefault(path, reason)

    def _timed(self, stage: Callable[[], None]) -> None:
        start = time.perf_counter()
        stage()
        name = stage.__name__.strip("_")
        self.stats.seconds[name] = self.stats.seconds.get(name, 0.0) + time.perf_counter() - start


def stored_bytes(module: nn.Module, recurse: bool = False) -> int:
    """Bytes of parameters and persistent buffers, each storage counted once."""
    persistent = (
        module.state_dict(keep_vars=True)
        if recurse
        else {
            **dict(module.named_parameters(recurse=False)),
            **dict(module.named_buffers(recurse=False)),
        }
    )
    seen: dict[int, int] = {}
    for value in persistent.values():
        if isinstance(value, Tensor):
            seen[id(value)] = sum(t.numel() * t.element_size() for t in _inner(value))
    return sum(seen.values())


def _inner(value: Tensor) -> list[Tensor]:
    """The plain tensors of one: of a quantised weight its integers, scales and zero points."""
    if type(value) in (Tensor, nn.Parameter) or not hasattr(value, "__tensor_flatten__"):
        return [value]
    return [t for name in value.__tensor_flatten__()[0] for t in _inner(getattr(value, name))]


def element_size(module: nn.Module) -> int:
    """Bytes of one weight of a layer."""
    return next(p.element_size() for p in module.parameters() if p.dim() > 1)


def _factoring(
    view: View, spectra: Mapping[int, Spectrum], number: int, form: Any, rank: int
) -> Callable[[], Mapping[str, nn.Module]]:
    # The spectrum is asked for when its turn comes: it may lie in a file.
    return lambda: {view.path: form.build(*spectra[number].factors(rank))}


def _key(plan: choose.Plan) -> list[Any]:
    """A plan as plain values."""
    return sorted([list(paths), option.form, option.size or 0] for paths, option in plan.chosen.items())


def _joining(joint: Joint, outer: Spectrum, inner: Spectrum) -> Callable[[int, int], Mapping[str, nn.Module]]:
    return lambda i, j: {joint.outer.path: joint.build(outer.projection(i), inner.factors(j))}


def _building(reduction: Reduction, size: int) -> Callable[[], Mapping[str, nn.Module]]:
    return lambda: reduction.build(size)


def _built(modules: Mapping[str, nn.Module]) -> Callable[[], Mapping[str, nn.Module]]:
    return lambda: modules


def _bytes(plan: choose.Plan) -> int:
    return sum(option.bytes for option in plan.chosen.values())


def _seconds(plan: choose.Plan) -> float | None:
    seconds = [option.seconds for option in plan.chosen.values()]
    return (
        None
        if not seconds or any(s is None for s in seconds)
        else math.fsum(s for s in seconds if s is not None)
    )


def _shape(layer: nn.Module | Tensor) -> str:
    held = [layer] if isinstance(layer, Tensor) else layer.parameters(recurse=False)
    weight = max(held, key=lambda p: p.numel(), default=None)
    return "" if weight is None else "x".join(map(str, weight.shape))


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v if isinstance(v, (int, float, str, type(None), list, tuple)) else repr(v)
        for k, v in settings.items()
    }
