"""One model whose statistics, spectra and losses all arms of a case share."""

from __future__ import annotations

import copy
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stonefx.benchmarks.machine import machine_facts
from stonefx.compress import choose
from stonefx.compress.choose import Plan
from stonefx.compress.data import Splits, read
from stonefx.compress.options import Option
from stonefx.compress.search import Search
from stonefx.compress.settings import Settings
from stonefx.compress.spectrum import Spectrum
from stonefx.compress.statistics import Statistics
from stonefx.compress.stats import CompressionStats
from stonefx.compress.stored import stored_bytes
from stonefx.compress.views import View

FACTORS = ("pair", "pifa")
KEPT: list[Path] = []
"""The folder for files of statistics, where there is one; of use while the code that makes them stays as it is."""


def kept(name: str) -> Path | None:
    """The file of a case in it."""
    return KEPT[-1] / f"{name}.pt" if KEPT else None


def commit() -> str:
    """Of the code that measures."""
    try:
        return str(machine_facts()["commit"])
    except (OSError, subprocess.SubprocessError):
        return ""


class Shared:
    """Statistics of a model on its calibration data, made when first needed.

    Args:
        model: in eval mode.
        calibrate: batches that statistics are taken on.
        select: batches that choose.
        confirm: batches that confirm.
        keep: a file that statistics are read from, or written to where it is not there.
        settings: of `stonefx.compress.settings.Settings`.
    """

    def __init__(
        self,
        model: nn.Module,
        calibrate: list[Any],
        select: list[Any],
        confirm: list[Any],
        *,
        keep: Path | None = None,
        **settings: Any,
    ) -> None:
        self.model = model
        self.keep = keep
        self.splits = Splits(read(calibrate, model), read(select, model), read(confirm, model))
        self.settings = Settings(cost="bytes", forms=(*FACTORS, "width"), progress=False, **settings)
        self.seconds: dict[str, float] = {}
        self._of_forms: dict[tuple[tuple[str, ...], bool], Search] = {}

    @cached_property
    def search(self) -> Search:
        """Prepared, with all forms."""
        search = Search(self.model, copy.deepcopy(self.model).eval(), self.settings, self.splits)
        if self.keep is not None and self.keep.exists():
            search.task.stats.seconds.update(_restore(search, self.keep))
        known = len(search.found.tails)
        search.prepare()
        self.seconds.update(search.task.stats.seconds)
        if self.keep is not None and len(search.found.tails) > known:
            _save(search, self.keep)
        return search

    @cached_property
    def views(self) -> dict[str, View]:
        """The first view of each layer that was called."""
        return {view.path: self.search.task.views[n] for n, view in self._numbered()}

    @cached_property
    def statistics(self) -> dict[str, Statistics]:
        """Of `views`."""
        return {view.path: self.search.found.measured[n] for n, view in self._numbered()}

    @cached_property
    def two_sided(self) -> dict[str, Spectrum]:
        """Spectra of `views` in the metric of inputs and gradients."""
        return {view.path: self.search.found.spectra[n] for n, view in self._numbered()}

    @cached_property
    def dense(self) -> dict[str, Option]:
        """The option to stay as it is, by path."""
        found = self.search.candidates
        assert found is not None
        return {c.paths[0]: c.dense for c in found.singles}

    @property
    def bytes(self) -> int:
        """Of all layers as they are."""
        return sum(o.bytes for o in self.dense.values())

    def spectra(self, recipe: Callable[[View, Statistics], Spectrum]) -> dict[str, Spectrum]:
        """Of a recipe of `peers`, for all layers."""
        return {path: recipe(view, self.statistics[path]) for path, view in self.views.items()}

    def planned(self, ratio: float, forms: tuple[str, ...], sampled: bool = True) -> tuple[Search, Plan]:
        """The plan of stonefx for a ratio, and the search that can apply it."""
        search = self._of_forms.get((forms, sampled))
        if search is None:
            search = self._of_forms[forms, sampled] = self.search.again(sampled=sampled, forms=forms)
        price = self.bytes
        found = search.candidates
        assert found is not None
        return search, choose.plan(found.singles, found.blocks, ratio, lambda o: o.bytes / price)

    def compressed(self, **asked: Any) -> tuple[dict[str, nn.Module], CompressionStats]:
        """What `stonefx.compress` gives with these settings, by the statistics of all arms, and what it says of it."""
        small, stats = self.search.again(**asked).run()
        return {path: small.get_submodule(path) for path in self.dense}, stats

    @contextmanager
    def with_modules(self, modules: Mapping[str, nn.Module]) -> Iterator[nn.Module]:
        """The model with some layers replaced, for the time of the block."""
        model = self.search.model
        kept = {path: model.get_submodule(path) for path in modules}
        try:
            for path, module in modules.items():
                self.search.task.replace(path, module)
            yield model
        finally:
            for path, module in kept.items():
                self.search.task.replace(path, module)

    def _numbered(self) -> list[tuple[int, View]]:
        first: dict[str, tuple[int, View]] = {}
        for number, view in enumerate(self.search.task.views):
            if number in self.search.found.spectra:
                first.setdefault(view.path, (number, view))
        return list(first.values())


def _save(search: Search, path: Path) -> None:
    """What a search has made, as tensors; of use only with the code and the data that made it."""
    state = {
        "measured": {n: (s.inputs, s.gradients, s.positions) for n, s in search.found.measured.items()},
        "spectra": {n: tuple(vars(s).values()) for n, s in search.found.spectra.items()},
        "tails": search.found.tails,
        "seconds": search.task.stats.seconds,
    }
    part = path.with_name(path.name + ".part")
    torch.save(state, part)
    part.replace(path)


def _restore(search: Search, path: Path) -> dict[str, float]:
    # Gigabytes, which memory need not hold all at once.
    state = torch.load(path, weights_only=True, mmap=True)
    search.found.measured = {n: Statistics(*parts) for n, parts in state["measured"].items()}
    search.found.spectra.update({n: Spectrum(*parts) for n, parts in state["spectra"].items()})
    search.found.tails = state["tails"]
    return dict(state["seconds"])


def modules_of(plan: Plan) -> dict[str, nn.Module]:
    """The replacements of a plan, by path."""
    return {path: module for option in plan.chosen.values() for path, module in option.build().items()}


def whole(modules: Mapping[str, nn.Module], model: nn.Module, paths: list[str]) -> dict[str, nn.Module]:
    """The replacements, and the model's own layers where there are none."""
    return {path: modules[path] if path in modules else model.get_submodule(path) for path in paths}


def stored(modules: Mapping[str, nn.Module]) -> int:
    """Bytes of parameters and persistent buffers of several modules."""
    return sum(stored_bytes(module, recurse=True) for module in modules.values())


@contextmanager
def clock(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add what the block takes to a stage."""
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start


def accuracy(model: nn.Module, batches: Any) -> torch.Tensor:
    """1 for each sample whose greatest logit is that of its label, else 0; a metric for `compress`."""
    with torch.no_grad():
        return torch.cat([(b.call(model).argmax(-1) == b.labels).double() for b in batches])
