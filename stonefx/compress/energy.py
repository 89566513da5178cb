"""Ranks by the squared singular values that they keep, with or without a floor."""

from __future__ import annotations

from collections.abc import Callable

from . import choose
from .candidates import Candidates, factored
from .options import Option
from .planning import Planner
from .spectrum import energy_rank
from .stats import Point
from .task import Task
from .views import layer_weights

WITHOUT_DATA = 0.99
"""The share that is kept where nothing else says how much."""


def plan(
    task: Task, candidates: Candidates, planner: Planner, evaluate: Callable[[choose.Plan], Point] | None
) -> choose.Plan:
    """The smallest rank of each layer that keeps the share asked for, raised until the floor holds.

    Args:
        task: what was asked for.
        candidates: its layers.
        planner: times the plan again.
        evaluate: a plan's score; None without data, where nothing is checked.
    """
    settings = task.settings
    energy = WITHOUT_DATA if settings.energy is None else settings.energy
    while True:
        found = planner.of(_chosen(task, candidates, energy))
        if evaluate is None or evaluate(found).lower >= settings.min_accuracy or energy >= 1:
            break
        # Half of what was dropped, until the floor holds or everything is kept.
        energy = 1 - (1 - energy) / 2 if energy < 1 - 1e-6 else 1.0
    if settings.energy is not None and energy != settings.energy:
        task.stats.notes.append(f"energy was raised from {settings.energy:g} to {energy:g} for the floor")
    return found if evaluate is None else planner.without_slower(found)


def _chosen(task: Task, candidates: Candidates, energy: float) -> dict[tuple[str, ...], Option]:
    spectra = candidates.spectra
    chosen: dict[tuple[str, ...], Option] = {}
    for candidate in candidates.singles:
        path = candidate.paths[0]
        number = next(n for n, view in enumerate(task.views) if view.path == path and n in spectra)
        view = task.views[number]
        rank = energy_rank(view.matrix(), energy)
        form = view.forms()["pair"]
        loss = spectra[number].tails[rank].item()
        option = factored("pair", rank, loss, candidate.dense.bytes, form, spectra, number, view)
        if "pair" in {form.partition(" ")[0] for form in candidate.refused}:
            chosen[candidate.paths] = candidate.dense
        elif option.bytes < candidate.dense.bytes:
            chosen[candidate.paths] = option
        else:
            chosen[candidate.paths] = candidate.dense
            candidate.refused["pair"] = (
                f"rank {rank}, which keeps {energy:.4g} of the squared singular values, stores "
                f"{form.numbers(rank):,} numbers and the dense layer {layer_weights(view.layer):,}"
            )
    return chosen
