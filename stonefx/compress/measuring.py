"""What the choice rests on: statistics of all layers, their spectra, and the sampled losses of every rank."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from . import attention, estimate, losses, processes, statistics, structure, units
from .blocks import Block, Reduction, obstacle
from .checkpoint import digest, flat, numbered
from .spectrum import Spectra, decompose
from .task import Task
from .views import View

LEAST = 0.25
"""Rows an input that a layer is given at least which not all samples reach; with fewer it stays."""


class Measurements:
    """What was found out about the layers of a task.

    Attributes:
        measured: statistics by the number of the view.
        spectra: by the number of the view.
        tails: sampled losses `[k + 1]`, by the number of the view or ("block", number of the reduction).
        reductions: blocks that can be made smaller, with their units in order.
        few: what was given fewer rows than it has inputs, in the numbers of `tails`.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.measured: Mapping[int, statistics.Statistics] = {}
        self.spectra = Spectra(task.store, len(task.parts) == 1, task.spilled)
        self.tails: dict[Any, Tensor] = {}
        self.reductions: list[tuple[Block, Reduction]] = []
        self.few: set[Any] = set()

    def take(self, other: Measurements) -> None:
        """What another search of the same layers found."""
        self.measured, self.spectra = other.measured, other.spectra
        self.reductions, self.tails, self.few = other.reductions, other.tails, other.few

    def order(self) -> None:
        """The units of blocks in order, from statistics that are there already."""
        views = self.task.views
        self._reduce(self._find_blocks(), {views[n]: known for n, known in self.measured.items()})

    def measure(self) -> None:
        """Statistics of all layers that are called, and the units of blocks in order."""
        task = self.task
        found = self._find_blocks()
        views = [*task.views, *(block.view for block in found if block.view not in task.views)]
        measured = self._statistics(views)
        self.measured = (
            {n: value for n, value in measured.items() if n < len(task.views)}
            if len(task.parts) == 1
            else measured
        )
        rows = self._rows()
        for number, view in enumerate(task.views):
            if not rows.get(number):
                task.refuse(view.path, "no call of it was seen on the calibration data")
            elif not self._enough(view, rows[number]):
                task.refuse(
                    view.path,
                    f"{rows[number]} of the rows of the calibration data reached it, by fewer than all samples, which "
                    f"say too little of its {view.columns} inputs; give data that reaches it more often",
                )
        few = {task.views[n].path: count for n, count in rows.items() if 0 < count < task.views[n].columns}
        if few:
            shown = ", ".join(f"{path} ({count})" for path, count in sorted(few.items())[:5])
            task.stats.notes.append(
                f"{len(few)} of the layers were given fewer rows than they have inputs, so that what they need is "
                f"known in part: {shown}{', and others' if len(few) > 5 else ''}; what was not seen is taken to be as "
                "likely as what was, and more data would help"
            )
        needed = {block.view for block in found}
        self._reduce(found, {v: measured[n] for n, v in enumerate(views) if v in needed and n in measured})

    def _enough(self, view: View, rows: int) -> bool:
        """Whether a layer was given so many rows that what it needs may be judged by them.

        One that all samples reach, such as the head of a classifier, is what the user gave data for. Of one that few
        reach, such as an expert that is seldom chosen, little is known and much may hang on it.
        """
        samples = sum(batch.samples for batch in self.task.data.calibrate)
        return rows > 0 and (view.indexed or rows >= samples or rows >= LEAST * view.columns)

    def _rows(self) -> dict[int, int]:
        """How many rows each view was given, by its number."""
        measured = self.measured
        if isinstance(measured, statistics.Stored):
            return dict(measured.rows)
        return {n: known.positions for n, known in measured.items()}

    def _statistics(self, views: list[View]) -> Mapping[int, statistics.Statistics]:
        """Of the task's views, and of those of blocks that follow them."""
        task = self.task
        stored = statistics.Stored(task.store)
        for place, part in enumerate(task.parts):
            last = place + 1 == len(task.parts)
            numbers = [*part, *range(len(task.views), len(views))] if last else part
            name = f"statistics-{digest(repr(numbers))}"
            chosen = [views[number] for number in numbers]
            if not all(processes.gathered(name in task.store)):
                sums, keys = statistics.sums_of(
                    task.model,
                    chosen,
                    task.data.calibrate,
                    gradients=True,
                    running=task.running(name),
                    seed=task.settings.seed,
                    description=task.description("statistics"),
                    **task.probing(),
                )
                task.put(name, *sums.record(keys))
                if len(task.parts) == 1:
                    return sums.statistics(chosen, keys)
            stored.add(name, numbers)
        return stored if len(task.parts) > 1 else dict(stored)

    def _find_blocks(self) -> list[Block]:
        """Layers that can be made smaller together."""
        task = self.task
        if not {"width", "heads"} & set(task.settings.forms):
            return []
        read = task.exact.structure
        if read is None:
            call = structure.example(task.model, task.data.calibrate[0])
            assert call is not None
            read = structure.read(task.model, call)
        task.stats.notes += [note for note in read.notes if note not in task.stats.notes]
        found: list[Block] = []
        if "width" in task.settings.forms:
            found += units.find(read, task.layers.views, task.layers.views)
        if "heads" in task.settings.forms:
            found += attention.find(read, task.layers.views)
        return found

    def _reduce(self, found: list[Block], measured: Mapping[View, statistics.Statistics]) -> None:
        """Order the units of all blocks, and leave out the blocks that the model does not run without."""
        task = self.task
        call = structure.example(task.model, task.data.calibrate[0])
        assert call is not None
        for block in tqdm(found, desc="blocks", disable=not task.settings.progress, leave=False):
            if block.view not in measured or not self._enough(block.view, measured[block.view].positions):
                task.stats.notes.append(
                    f"{block.name} of {', '.join(block.paths)}: too few calls of it were seen"
                )
                continue
            try:
                known = measured[block.view]
                reduction = block.reduction(known.shrunk())
                smallest = reduction.build(min(reduction.sizes))
                reason = obstacle(task.model, smallest, call, task.layers.shared)
            except (ValueError, torch.linalg.LinAlgError) as error:
                reason = str(error)
            if reason is None:
                if known.few:
                    self.few.add(("block", len(self.reductions)))
                self.reductions.append((block, reduction))
            else:
                task.stats.notes.append(f"{block.name} of {', '.join(block.paths)}: {reason}")

    def decompose(self) -> None:
        """Spectra of all layers, dealt out by what they cost."""
        task = self.task
        of_all = task.splits is None or task.settings.energy is not None
        rows = self._rows()
        self.few |= {n for n, count in rows.items() if 0 < count < task.views[n].columns}
        numbers = list(range(len(task.views)) if of_all else rows)
        numbers = [n for n in numbers if n not in rows or self._enough(task.views[n], rows[n])]
        left = processes.gathered([n for n in numbers if not self.spectra.known(n)])
        todo = sorted(set().union(*left))
        costs = {n: float(estimate.decomposing(task.views[n])) for n in todo}
        owner = processes.owners(costs)
        refused: dict[int, str] = {}
        mine = [n for n in todo if owner[n] == processes.rank()]
        for n in tqdm(mine, desc="decompositions", disable=not task.settings.progress, leave=False):
            known = self.measured.get(n)
            try:
                self.spectra[n] = decompose(
                    task.views[n].matrix(),
                    None if known is None else known.shrunk(),
                    task.settings.most_rank,
                    task.settings.seed + n,
                )
            except ValueError as error:
                refused[n] = str(error)
        for found in processes.gathered(refused):
            for n, reason in found.items():
                refused[n] = reason
                task.refuse(task.views[n].path, reason)
        self.spectra.exchange({n: owner[n] for n in todo if n not in refused})

    def weigh(self) -> None:
        """Sampled losses of every rank."""
        task = self.task
        tails: dict[Any, Tensor] = {}
        for place, numbers in enumerate(task.parts):
            name = f"losses-{digest(repr(numbers))}"
            found = task.store.get(name) if all(processes.gathered(name in task.store)) else None
            if found is not None:
                for key, tail in numbered(found.tensors, "losses").items():
                    tails[key if key >= 0 else ("block", -1 - key)] = tail
                continue
            directions: dict[Any, losses.Directions] = {}
            for number in numbers:
                known = self.measured[number].gradients if number in self.spectra else None
                if known is not None and number not in self.tails:
                    view, spectrum = task.views[number], self.spectra[number]
                    rest = spectrum.rest(view.matrix()) if task.settings.most_rank else None
                    directions[number] = losses.Directions(view, *spectrum.components(), rest)
            if place == 0:
                for i, (_, reduction) in enumerate(self.reductions):
                    if ("block", i) not in self.tails:
                        directions["block", i] = reduction.directions
            if not directions:
                continue
            sampled, _ = losses.sampled(
                task.model,
                directions,
                {},
                task.data.calibrate,
                seed=task.settings.seed + 1,
                description=task.description("losses"),
                running=task.running(name),
                **task.probing(),
            )
            # In a record blocks have the numbers below zero.
            kept = {key if isinstance(key, int) else -1 - key[1]: tail for key, tail in sampled.items()}
            task.put(name, flat(kept, "losses"), {})
            tails.update(sampled)
        # Those of an earlier run were not sampled again.
        self.tails = self.tails | tails
