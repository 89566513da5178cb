"""What a layer costs a call, dense and in each form: measured here, at the user's shapes, one beside the other."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from stonefx.tracing.errors import first_line

from ..machine import clock
from ..machine.host import is_busy
from .data import Batch, device_of, mapped, tensors
from .options import Candidate, Option
from .statistics import plainly
from .stored import stored_bytes

SIZES = 5
"""Ranks at which a form is measured; between them the ratio to dense is interpolated."""

MARGIN = 0.02
"""An option must be faster than dense by this share, or by three times what the ratio is uncertain by."""

LIMIT = 60.0
"""Seconds that all measurements of one search may take."""

MOST = 0.4
"""Seconds of one comparison."""

CACHES = 1 << 25
"""Bytes that are written before a layer is called with one position, so that its weights come from memory, as they do
between the other layers of a model that is larger."""

_known: dict[Any, Ratio] = {}


@dataclass(frozen=True)
class Ratio:
    """Seconds of a replacement over those of the layers that it replaces.

    Attributes:
        median: of the ratios of rounds that timed both.
        error: what the median is uncertain by.
        dense: seconds of the layers as they are.
    """

    median: float
    error: float
    dense: float

    @property
    def faster(self) -> bool:
        """Whether the replacement is faster beyond doubt."""
        return self.median < 1 - max(MARGIN, 3 * self.error)


@dataclass(frozen=True)
class _Call:
    """How a layer is called: its arguments with the values of floating-point tensors left out."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def key(self) -> str:
        return repr(mapped((self.args, dict(self.kwargs)), _name))

    def of_one_position(self) -> _Call:
        """The same for the last of several positions alone, of one sample; unchanged where there are none."""

        def last(value: Tensor) -> Tensor:
            if not value.is_floating_point() or value.dim() < 3:
                return value
            return value[(slice(1),) * (value.dim() - 1)]

        return _Call(*mapped((self.args, dict(self.kwargs)), last))

    def size(self) -> int:
        sizes: list[int] = [0]
        mapped((self.args, dict(self.kwargs)), lambda t: sizes.append(t.numel()))
        return max(sizes)

    def arguments(self, layer: nn.Module, device: torch.device) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Values to call `layer` with, whose number of inputs may be another than that of the layer recorded."""

        def made(value: Tensor) -> Tensor:
            if not value.is_floating_point():
                return value.to(device)
            shape = list(value.shape)
            if isinstance(layer, nn.Linear):
                shape[-1] = layer.in_features
            elif isinstance(layer, nn.modules.conv._ConvNd) and len(shape) > 1:
                shape[1] = layer.in_channels
            generator = torch.Generator().manual_seed(0)
            return torch.randn(shape, generator=generator).to(device, value.dtype)

        args, kwargs = mapped((self.args, dict(self.kwargs)), _once(made))
        return args, kwargs


class Timing:
    """Seconds of layers and of what may become of them, on the device of the model.

    Args:
        model: whose layers are timed; called on `batches` once, to see their shapes.
        paths: of the layers.
        batches: of the user's sizes; the first is the one that seconds are reported for, and an option must be faster
            than dense in all. A model that generates is called with one position at a time as well.
        progress: whether to show a bar.

    What was measured is kept for this process, by layer, form, rank, shapes and number of threads: a second search of
    the same model takes the same times and so makes the same choice.
    """

    def __init__(
        self, model: nn.Module, paths: Sequence[str], batches: Sequence[Batch], *, progress: bool = False
    ) -> None:
        self.model = model
        self.device = device_of(model)
        self.progress = progress
        self.batches = list(batches)
        self.calls = [_recorded(model, paths, batch) for batch in self.batches]
        self.steps: int | None = None
        """Which of the calls is that of one position."""
        if _generates(model):
            self.steps = len(self.calls)
            self.calls.append(
                {
                    path: (_step(model.get_submodule(path), call), n)
                    for path, (call, n) in self.calls[0].items()
                }
            )
        large = self.device.type == "cpu" and stored_bytes(model, recurse=True) > CACHES
        self._others = torch.zeros(CACHES // 4) if large and self.steps is not None else None
        self.spent = 0.0
        self.notes: list[str] = []
        self.dense: dict[str, float] = {}
        if self.device.type == "cpu" and torch.get_num_threads() > 1 and is_busy():
            self.notes.append(
                "other processes took much of the cores while layers were timed, so that what counts as faster is less "
                "sure; close them, or set cost='bytes'"
            )

    # A whole search -----------------------------------------------------------------------------------------------

    def fill(self, candidates: Sequence[Candidate], *, refuse: bool = True) -> None:
        """Give all options their seconds, and leave out those that are not faster than dense.

        Those that cannot be timed, since their layers are called in another way than with tensors, keep None.
        """
        work = [
            (candidate, form, size)
            for candidate in candidates
            for form, sizes in _sizes(candidate).items()
            for size in sizes
        ]
        distinct = {self._key(c, form, size, i) for c, form, size in work for i in range(len(self.calls))}
        left = len(distinct - _known.keys())
        with tqdm(total=left, desc="seconds", disable=not (self.progress and left), leave=False) as bar:
            for candidate, form, size in work:
                for i in range(len(self.calls)):
                    key = self._key(candidate, form, size, i)
                    if key in _known or not self._callable(candidate, i):
                        continue
                    share = max(LIMIT - self.spent, 0.0) / max(left, 1)
                    option = next(o for o in candidate.options if (o.form, o.size) == (form, size))
                    found = self._compared(option.build(), i, min(MOST, share))
                    left -= 1
                    bar.update()
                    if found is not None:
                        _known[key] = found
        for candidate in candidates:
            self._apply(candidate, refuse)

    def was_called(self, path: str) -> bool:
        """Whether the model calls the module of a path, with tensors that can be made again."""
        return any(path in calls for calls in self.calls)

    def compare(
        self,
        paths: Sequence[str],
        modules: Mapping[str, nn.Module],
        before: Mapping[str, nn.Module] | None = None,
    ) -> list[Ratio]:
        """Replacements against the layers of the model now, or against those `before`, for each of the batches.

        There is none for a batch with which they cannot be timed.
        """
        ratios = []
        for i in range(len(self.calls)):
            if all(path in self.calls[i] for path in paths):
                found = self._compared(modules, i, MOST, before)
                if found is not None:
                    ratios.append(found)
        return ratios

    def call_seconds(self, models: Sequence[nn.Module]) -> list[float]:
        """Seconds of a call of whole models on the first batch, timed in turn."""
        batch = self.batches[0]
        calls = [lambda model=model: batch.call(model) for model in models]
        with torch.no_grad():
            rounds = clock.interleaved(calls, self.device, seconds=2.0)
        return [statistics.median(times[i] for times in rounds) for i in range(len(models))]

    # One comparison -----------------------------------------------------------------------------------------------

    def _callable(self, candidate: Candidate, i: int) -> bool:
        return all(path in self.calls[i] for path in candidate.paths)

    def _key(self, candidate: Candidate, form: str, size: int | None, i: int) -> Any:
        layers = []
        for path in candidate.paths:
            layer = self.model.get_submodule(path)
            weight = next(iter(layer.parameters()), None)
            call = self.calls[i].get(path)
            layers.append(
                (repr(layer), None if weight is None else weight.dtype, call and (call[0].key(), call[1]))
            )
        return tuple(layers), form, size, str(self.device), torch.get_num_threads(), self._between(i) is None

    def _between(self, i: int) -> Callable[[], object] | None:
        """What takes the layers' weights out of the caches."""
        others = self._others if i == self.steps else None
        return None if others is None else partial(others.add_, 1.0)

    def _compared(
        self,
        modules: Mapping[str, nn.Module],
        i: int,
        seconds: float,
        before: Mapping[str, nn.Module] | None = None,
    ) -> Ratio | None:
        start = time.perf_counter()
        old = before or {path: self.model.get_submodule(path) for path in modules}
        try:
            with torch.no_grad():
                arms = [self._arm(which, i) for which in (old, modules)]
                rounds = clock.interleaved(arms, self.device, seconds=seconds, between=self._between(i))
        except (RuntimeError, TypeError, ValueError) as error:
            # Its arguments are not those that were recorded: it is called by a layer that changes with it.
            self.notes.append(f"{', '.join(modules)} could not be timed by itself: {first_line(error)}")
            return None
        finally:
            self.spent += time.perf_counter() - start
        ratios = [new / dense for dense, new in rounds]
        median = statistics.median(ratios)
        # The median of n values is uncertain by 1.25 standard errors; by the median deviation, which outliers leave.
        deviation = 1.4826 * statistics.median(abs(ratio - median) for ratio in ratios)
        dense = statistics.median(times[0] for times in rounds)
        return Ratio(median, 1.25 * deviation / math.sqrt(len(ratios)), dense)

    def _arm(self, modules: Mapping[str, nn.Module], i: int) -> Callable[[], None]:
        work = []
        for path, module in modules.items():
            call, times = self.calls[i][path]
            work.append((module, *call.arguments(module, self.device), times))

        def run() -> None:
            for module, args, kwargs, times in work:
                for _ in range(times):
                    module(*args, **kwargs)

        return run

    # Between what was measured -----------------------------------------------------------------------------------

    def _apply(self, candidate: Candidate, refuse: bool) -> None:
        tables: dict[str, list[list[tuple[int | None, Ratio]]]] = {}
        for form, sizes in _sizes(candidate).items():
            rows = [
                [(s, _known.get(self._key(candidate, form, s, i))) for s in sizes]
                for i in self._batch_numbers
            ]
            found = [[(s, r) for s, r in row if r is not None] for row in rows]
            if all(len(row) == len(sizes) for row in found):
                tables[form] = found
        dense = self._dense_seconds(candidate, tables)
        kept = [replace(candidate.dense, seconds=dense)]
        for form in _sizes(candidate):
            options = [o for o in candidate.options[1:] if o.form == form]
            if form not in tables:
                if refuse:
                    candidate.refused[form] = "its layers are called in a way that could not be timed"
                else:
                    kept += options
                continue
            slower: list[tuple[Ratio, Option]] = []
            for option in options:
                ratios = [_between(table, option.size) for table in tables[form]]
                worst = max(ratios, key=lambda ratio: ratio.median)
                if refuse and not all(ratio.faster for ratio in ratios):
                    slower.append((worst, option))
                else:
                    seconds = None if dense is None else ratios[0].median * dense
                    kept.append(replace(option, seconds=seconds))
            if slower:
                best, option = min(slower, key=lambda one: one[0].median)
                at = "" if option.size is None else f" at {option.size}"
                some = "" if len(slower) == len(options) else " in some sizes"
                candidate.refused[form] = f"not faster than dense{some}: {best.median:.2f} of its time{at}"
        candidate.options = kept

    @property
    def _batch_numbers(self) -> range:
        return range(len(self.calls))

    def _dense_seconds(
        self, candidate: Candidate, tables: Mapping[str, list[list[tuple[int | None, Ratio]]]]
    ) -> float | None:
        """Of its layers as they are: one figure for a layer, whichever comparisons it was part of."""
        if all(path in self.dense for path in candidate.paths):
            return math.fsum(self.dense[path] for path in candidate.paths)
        measured = [ratio.dense for table in tables.values() for _, ratio in table[0]]
        if not measured:
            return None
        seconds = statistics.median(measured)
        if len(candidate.paths) == 1:
            self.dense[candidate.paths[0]] = seconds
        return seconds


def _generates(model: nn.Module) -> bool:
    """Whether it is a model of transformers that makes one token after the other."""
    can = getattr(model, "can_generate", None)
    return callable(can) and can() is True


def _step(layer: nn.Module, call: _Call) -> _Call:
    """How a layer is called for one more position."""
    whole = isinstance(layer, (nn.modules.conv._ConvNd, nn.RNNBase))
    return call if whole else call.of_one_position()


def typical(batches: Sequence[Batch]) -> tuple[Batch, ...]:
    """The batch of the most frequent shapes, and the largest one where that is another."""
    keys = [_Call(b.args, b.kwargs).key() for b in batches]
    frequent = batches[keys.index(Counter(keys).most_common(1)[0][0])]
    largest = max(batches, key=lambda b: _Call(b.args, b.kwargs).size())
    same = _Call(frequent.args, frequent.kwargs).key() == _Call(largest.args, largest.kwargs).key()
    return (frequent,) if same else (frequent, largest)


def _sizes(candidate: Candidate) -> dict[str, list[int | None]]:
    """By form, the sizes that are measured: the ends and some in between."""
    by_form: dict[str, list[int | None]] = {}
    for option in candidate.options[1:]:
        by_form.setdefault(option.form, []).append(option.size)
    chosen = {}
    for form, sizes in by_form.items():
        ordered = sorted(sizes, key=lambda s: -1 if s is None else s)
        last = len(ordered) - 1
        picked = {round(last * i / (SIZES - 1)) for i in range(SIZES)}
        chosen[form] = [ordered[i] for i in sorted(picked)]
    return chosen


def _between(points: Sequence[tuple[int | None, Ratio]], size: int | None) -> Ratio:
    if size is None or len(points) == 1:
        return points[0][1]
    known = [(s, ratio) for s, ratio in points if s is not None]
    above = next(i for i, (s, _) in enumerate(known) if s >= size)
    if above == 0:
        return known[0][1]
    (a, low), (b, high) = known[above - 1], known[above]
    t = (size - a) / (b - a)
    return Ratio(low.median + t * (high.median - low.median), max(low.error, high.error), low.dense)


def _recorded(model: nn.Module, paths: Sequence[str], batch: Batch) -> dict[str, tuple[_Call, int]]:
    """How each layer is called on a batch, in its largest call, and how often."""
    found: dict[str, tuple[_Call, int]] = {}
    with _watched(model, paths, found), plainly(model), torch.no_grad():
        batch.call(model)
    return found


@contextmanager
def _watched(model: nn.Module, paths: Sequence[str], found: dict[str, tuple[_Call, int]]) -> Iterator[None]:
    handles = []

    def hook(path: str) -> Callable[..., None]:
        def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if any(value.is_nested for value in tensors((args, kwargs))):
                return
            # An empty view keeps shape and dtype without the memory.
            call = _Call(*mapped((args, kwargs), _once(_without_values)))
            old = found.get(path)
            times = 1 if old is None else old[1] + 1
            found[path] = (old[0] if old is not None and old[0].size() >= call.size() else call, times)

        return called

    try:
        for path in paths:
            layer = model.get_submodule(path)
            handles.append(layer.register_forward_pre_hook(hook(path), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _once(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`change`, with one result for a tensor that is given several times, as attention to itself is cheaper."""
    known: dict[int, Tensor] = {}

    def changed(value: Tensor) -> Tensor:
        if id(value) not in known:
            known[id(value)] = change(value)
        return known[id(value)]

    return changed


def _without_values(value: Tensor) -> Tensor:
    if value.is_floating_point():
        return torch.empty((), dtype=value.dtype, device=value.device).expand(value.shape)
    return value.detach().clone()


def _name(value: Tensor) -> str:
    return f"{value.dtype}{list(value.shape)}"
