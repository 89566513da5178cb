"""What all stages of one compression share: the model, what was asked for, and where things are kept."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from . import choose, estimate, layers, lossless, opening, padding, processes, streaming
from .checkpoint import Running, Store
from .data import Splits
from .metric import main_result
from .options import Option
from .settings import Settings
from .stats import CompressionStats
from .stored import stored_bytes


class Task:
    """One model to compress.

    Args:
        original: the user's model, read only; results are compared with its.
        model: a copy in eval; layers are merged exactly in it, and then replaced.
        settings: what was asked for.
        splits: the data by what it decides, or None: ranks follow `energy` alone.
        exact: what exact merging did to the model; it is done here where that is left out.
        store: where what is found is kept, to go on from there.
        opened: layers of the model that several stand in for, by path; they are opened here where that is left out.

    Attributes:
        output: picks the tensor that counts out of the model's result.
        stats: what the user is told.
        layers: those that may change, and why the others may not.
        views: of all of them; elsewhere a view is known by its number here.
        fused: paths of what torch may compute in one call, layers that were opened and encoders, the innermost first.
        counted: paths of the layers whose bytes are compared: those that may change, and what others were merged into.
        bytes_before: of these and of what was merged into them, before.
        weights: of a model that is read from its files, else None.
        parts: numbers of views that are worked on together, by what memory allows.
        store: with more than one part it is a folder.
        spilled: whether that folder is this process's own, for what does not fit into memory.
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
        self.original = original
        self.model = model
        self.settings = settings
        self.splits = splits
        self.output = settings.output or main_result
        self.stats = CompressionStats(settings=_plain(asdict(settings)))
        example = None if splits is None else splits.calibrate[0]
        if opened is None:
            opened, refused = opening.open_up(model, settings.layers, example)
            self.stats.notes += refused
        self.opened = opened
        chosen = opening.patterns(settings.layers, self.opened)
        self.exact = exact or lossless.merge(model, example, chosen)
        self.stats.lossless_ratio = self.exact.ratio
        self.stats.notes += self.exact.notes
        self.fused = [*self.opened, *padding.fused(model)]
        self.layers = layers.find(model, chosen)
        self.views = [view for views in self.layers.views.values() for view in views]
        self.counted = list(dict.fromkeys([*self.layers.views, *self.exact.into.values()]))
        own = {path: stored_bytes(model.get_submodule(path)) for path in self.counted}
        self.bytes_before = sum({**own, **self.exact.bytes_before}.values())
        self.weights = streaming.weights_of(model)
        self.parts = self._parts()
        self.store = store or Store(None)
        self.spilled = len(self.parts) > 1 and self.store.folder is None
        if self.spilled:
            self._folder = tempfile.TemporaryDirectory(prefix="stonefx-")
            self.store = Store(self._folder.name)

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

    @property
    def data(self) -> Splits:
        """The data, of a compression that has any."""
        assert self.splits is not None
        return self.splits

    def description(self, name: str) -> str | None:
        """The name of a bar, or None where none is to be shown."""
        return name if self.settings.progress else None

    def probing(self) -> dict[str, Any]:
        """How the model is probed, as arguments of `statistics` and `losses`."""
        return {
            "kind": self.settings.probe,
            "count": self.settings.probes,
            "output": self.output,
            "metric": self.settings.metric,
        }

    def running(self, name: str) -> Callable[[str], Running]:
        """Makes the running sums that lead to a record."""
        return lambda kind: Running(self.store, f"{name}-{kind}")

    def put(self, name: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """A record of all processes, which the first writes to the folder that they share."""
        if self.spilled or processes.rank() == 0:
            self.store.put(name, tensors, values)
        processes.gathered(None)
        self.store.forget_running(name)

    def refuse(self, path: str, reason: str) -> None:
        """Say why a layer stays as it is; the first reason counts."""
        self.layers.refused.setdefault(path, reason)

    def timed(self, stage: Callable[[], None]) -> None:
        """Run a stage, and add its seconds to the statistics."""
        start = time.perf_counter()
        stage()
        name = stage.__name__.strip("_")
        self.stats.seconds[name] = self.stats.seconds.get(name, 0.0) + time.perf_counter() - start

    # Replacements ----------------------------------------------------------------------------------------------

    @contextmanager
    def applied(self, plan: choose.Plan) -> Iterator[nn.Module]:
        """The model with a plan's replacements in place, for the time of the block."""
        kept: dict[str, nn.Module] = {}
        try:
            for option in plan.chosen.values():
                for path, module in self.built(option).items():
                    kept[path] = self.model.get_submodule(path)
                    self.replace(path, module)
            yield self.model
        finally:
            for path, module in kept.items():
                self.replace(path, module)

    @contextmanager
    def emitted(self, plan: choose.Plan) -> Iterator[nn.Module]:
        """The model as it comes out with a plan, for the time of the block: what was opened for nothing is closed."""
        with self.applied(plan):
            closed = {path: self.model.get_submodule(path) for path in self.unchanged(plan)}
            try:
                for path in closed:
                    self.replace(path, self.opened[path])
                yield self.model
            finally:
                for path, module in closed.items():
                    self.replace(path, module)

    def unchanged(self, plan: choose.Plan) -> list[str]:
        """Paths of what was opened and has nothing in it that a plan, or exact merging, changes."""
        changed = {path for paths, option in plan.chosen.items() if option.form != "dense" for path in paths}
        changed |= {*self.exact.bytes_before, *self.exact.into}
        return [path for path in self.opened if not any(name.startswith(f"{path}.") for name in changed)]

    def replace(self, path: str, module: nn.Module) -> None:
        """Put a module where a layer is."""
        layers.replace(self.model, path, module, self.layers.shared)

    def built(self, option: Option) -> Mapping[str, nn.Module]:
        """An option's replacements; of a model that is larger than memory they go to files as well."""
        made = option.build()
        if self.weights is not None:
            for module in made.values():
                self.weights.offload(module)
        return made


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v if isinstance(v, (int, float, str, type(None), list, tuple)) else repr(v)
        for k, v in settings.items()
    }
