"""Covariances of what layers are given and of what their results matter, streamed over the user's data."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import probes, processes
from .checkpoint import Record, Running, Store, flat, ints, numbered
from .data import Batch
from .views import View

ROWS = 8192
"""Rows that are turned into another dtype at once."""
BLOCK = 128
"""Covariances of twice so many features and more are worked out in blocks, as half of them is known by symmetry."""

MOST_UNSEEN = 0.5
"""Share of an embedding's indices at most that is taken to be of such as the data does not show."""


@dataclass
class Statistics:
    """What the search knows of a view beside its weights; sums over all samples, float64.

    Attributes:
        inputs: `E[x x^T]` over positions, `[groups, columns, columns]`; of a view with indices how often each column
            is picked, `[groups, columns]`, see `shares`.
        gradients: `E[g g^T]`, summed over the positions of a sample, `[groups, rows, rows]`; None without gradients.
        positions: how many there were in all.
    """

    inputs: Tensor
    gradients: Tensor | None
    positions: int

    @property
    def few(self) -> bool:
        """Whether there were fewer rows than features: some directions were not seen at all."""
        return self.inputs.dim() == 3 and self.positions < self.inputs.shape[2]

    def shrunk(self) -> Statistics:
        """Of few rows the covariance drawn towards that of equal features; otherwise these statistics.

        What no row showed would else seem to cost nothing. By how much is the oracle approximating shrinkage (Chen,
        Wiesel, Eldar and Hero 2010), which is least wrong on average for rows of a normal distribution.
        """
        if not self.few or self.positions == 0:
            return self
        features = self.inputs.shape[2]
        trace = self.inputs.diagonal(dim1=1, dim2=2).sum(1)
        square = self.inputs.square().sum((1, 2))
        above = (1 - 2 / features) * square + trace.square()
        below = (self.positions + 1 - 2 / features) * (square - trace.square() / features)
        share = torch.where(below > above, above / below, 1.0)[:, None, None]
        identity = torch.eye(features, dtype=torch.float64, device=self.inputs.device)
        equal = (trace / features)[:, None, None] * identity
        return replace(self, inputs=(1 - share) * self.inputs + share * equal)


@dataclass
class Sums:
    """Running sums, of covariances the lower triangles, of indices what `picked` counts; those of processes add up."""

    inputs: dict[int, Tensor] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    gradients: dict[int, Tensor] = field(default_factory=dict)
    samples: int = 0

    def statistics(self, views: Sequence[View], keys: Mapping[int, int]) -> dict[int, Statistics]:
        """By the number of the view."""
        # Views that share their inputs share the memory of the covariance too.
        inputs = {key: self._inputs(key) for key in self.inputs}
        numbers = range(len(views))
        return {n: self.of(n, keys, inputs) for n in numbers if keys.get(n, n) in self.inputs}

    def _inputs(self, key: int) -> Tensor:
        found = self.inputs[key]
        return shares(*found) if found.dim() == 2 else symmetric(found) / max(self.positions[key], 1)

    def of(
        self, number: int, keys: Mapping[int, int], inputs: Mapping[int, Tensor] | None = None
    ) -> Statistics:
        """Of one view; `inputs` are the covariances by key, where they are worked out already."""
        key = keys.get(number, number)
        gradients = self.gradients.get(number)
        return Statistics(
            self._inputs(key) if inputs is None else inputs[key],
            None if gradients is None else symmetric(gradients) / max(self.samples, 1),
            self.positions[key],
        )

    def added(self) -> Sums:
        """The sums of all processes."""
        if processes.size() == 1:
            return self
        named = processes.added({**flat(self.inputs, "inputs"), **flat(self.gradients, "gradients")})
        positions: dict[int, int] = {}
        counted = processes.gathered((self.positions, self.samples))
        for own, _ in counted:
            for number, count in own.items():
                positions[number] = positions.get(number, 0) + count
        samples = sum(count for _, count in counted)
        return Sums(numbered(named, "inputs"), positions, numbered(named, "gradients"), samples)

    def record(self, keys: Mapping[int, int]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """As tensors by name and plain values."""
        named = {**flat(self.inputs, "inputs"), **flat(self.gradients, "gradients")}
        return named, {"positions": self.positions, "samples": self.samples, "keys": dict(keys)}

    @classmethod
    def of_record(cls, record: Record) -> Sums:
        """From what `record` gave."""
        return cls(
            numbered(record.tensors, "inputs"),
            ints(record.values["positions"]),
            numbered(record.tensors, "gradients"),
            int(record.values["samples"]),
        )


class Stored(Mapping[int, Statistics]):
    """Statistics whose sums lie in records, read when they are asked for.

    Args:
        store: where the records are.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._where: dict[int, tuple[str, int, dict[int, int]]] = {}
        self.rows: dict[int, int] = {}
        """How many each view was given."""

    def add(self, name: str, numbers: Sequence[int]) -> None:
        """Take over a record of sums, of the views of these numbers in their order."""
        record = self.store.get(name, lambda key: False)
        assert record is not None
        keys, positions = ints(record.values["keys"]), ints(record.values["positions"])
        for own, number in enumerate(numbers):
            if keys.get(own, own) in positions:
                self._where[number] = name, own, keys
                self.rows[number] = positions[keys.get(own, own)]

    def __getitem__(self, number: int) -> Statistics:
        name, own, keys = self._where[number]
        wanted = {f"inputs/{keys.get(own, own)}", f"gradients/{own}"}
        record = self.store.get(name, wanted.__contains__)
        assert record is not None
        return Sums.of_record(record).of(own, keys)

    def __iter__(self) -> Iterator[int]:
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)


class Pass:
    """One reading of the calibration data with hooks on layers.

    Attributes:
        batch: the one that is being read, for hooks.
        samples: how many probes of samples there were, in this process.
        scale: what the gradients of the newest probe were multiplied with. In float16 they would vanish otherwise.
    """

    def __init__(
        self, model: nn.Module, *, kind: str, output: Callable[[Any], Tensor], metric: Any, seed: int
    ) -> None:
        self.model = model
        self.kind = kind
        self.output = output
        self.metric = metric
        self.seed = seed
        self.generator = torch.Generator()
        self.batch: Batch | None = None
        self.scale = 1.0
        self.samples = 0

    def run(
        self,
        batches: Sequence[Batch],
        *,
        gradients: bool,
        count: int | None,
        description: str | None,
        on_batch: Callable[[], None] = lambda: None,
        on_probe: Callable[[], None] = lambda: None,
        start: int = 0,
        on_done: Callable[[int], None] = lambda number: None,
    ) -> None:
        """Call the model on this process's batches and go back through it from each probe.

        Args:
            batches: all of them.
            gradients: whether to go back.
            count: how many probes a batch; None: by what the model returns.
            description: of the bar; None: no bar.
            on_batch: called before each batch.
            on_probe: called after each probe.
            start: so many of this process's batches were read before.
            on_done: called after each batch with their number.
        """
        with plainly(self.model):
            self._run(batches, gradients, count, description, on_batch, on_probe, start, on_done)

    def _run(
        self,
        batches: Sequence[Batch],
        gradients: bool,
        count: int | None,
        description: str | None,
        on_batch: Callable[[], None],
        on_probe: Callable[[], None],
        start: int,
        on_done: Callable[[int], None],
    ) -> None:
        dealt = processes.mine(batches)
        bar = tqdm(dealt[start:], desc=description, disable=description is None, leave=False)
        for done, (index, batch) in enumerate(bar, start=start + 1):
            self.batch = batch
            # Of the batch and not of the run, so that neither the process nor a new start makes a difference.
            self.generator.manual_seed(self.seed * 1_000_003 + index)
            on_batch()
            if not gradients:
                with torch.no_grad():
                    batch.call(self.model)
                on_done(done)
                continue
            with torch.enable_grad(), trainable(self.model):
                result = batch.call(self.model)
                y = self.output(result)
                if not y.requires_grad:
                    # Nothing on the way to it has a gradient, such as where forward detaches it.
                    on_done(done)
                    continue
                kind = probes.resolve(self.kind, result, self.metric)
                number = count or probes.count(kind, y)
                for i in range(number):
                    mask = None if batch.mask is None else batch.mask.to(y.device)
                    self._back(y, kind, mask, retain=i + 1 < number)
                    on_probe()
            self.samples += batch.samples * number
            del result, y
            on_done(done)
        self.batch = None

    def _back(self, y: Tensor, kind: str, mask: Tensor | None, retain: bool) -> None:
        if y.dtype != torch.float16:
            probes.scalar(kind, y, mask, self.generator).backward(retain_graph=retain)
            return
        leaf = y.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(probes.scalar(kind, leaf, mask, self.generator), leaf)
        largest = gradient.abs().max().item()
        self.scale = 2.0 ** -math.floor(math.log2(largest)) if largest > 0 else 1.0
        torch.autograd.backward(y, (gradient * self.scale).to(y.dtype), retain_graph=retain)

    def mask_of(self, shape: tuple[int, ...]) -> Tensor | None:
        """The batch's mask where `[samples, positions]` of a view is its shape."""
        mask = None if self.batch is None else self.batch.mask
        return mask if mask is not None and tuple(mask.shape) == tuple(shape) else None


def aligned(rows: Tensor, samples: int) -> Tensor:
    """Rows of a layer that was given all samples flattened into one dimension, sample by sample again."""
    if rows.shape[1] == 1 and rows.shape[0] > samples > 0 and rows.shape[0] % samples == 0:
        return rows.reshape(samples, rows.shape[0] // samples, *rows.shape[2:])
    return rows


def measure(
    model: nn.Module,
    views: Sequence[View],
    batches: Sequence[Batch],
    *,
    gradients: bool = True,
    kind: str = "auto",
    count: int | None = None,
    output: Callable[[Any], Tensor],
    metric: Any = None,
    seed: int = 0,
    description: str | None = None,
    running: Callable[[str], Running] | None = None,
) -> dict[int, Statistics]:
    """Statistics of all views by number; of those whose layers were never called there are none.

    Layers that were given the very same tensor share one covariance. `running` makes the sums that can be resumed.
    """
    sums, keys = sums_of(
        model,
        views,
        batches,
        gradients=gradients,
        kind=kind,
        count=count,
        output=output,
        metric=metric,
        seed=seed,
        description=description,
        running=running,
    )
    return sums.statistics(views, keys)


def sums_of(
    model: nn.Module,
    views: Sequence[View],
    batches: Sequence[Batch],
    *,
    running: Callable[[str], Running] | None = None,
    **settings: Any,
) -> tuple[Sums, dict[int, int]]:
    """The sums of all processes, and under which number each view's inputs are summed. See `measure`."""
    for share in (True, False):
        kept = None if running is None else running("sums" if share else "sums-unshared")
        sums: Sums = Sums()
        own: dict[int, int] | None
        try:
            sums, own = _sums(model, views, batches, share=share, kept=kept, **settings)
        except _Unshared:
            own = None
        keys = _agreed(processes.gathered(own))
        if keys is not None:
            return sums.added(), keys
    raise AssertionError("views that share nothing agree")


def _agreed(known: Sequence[dict[int, int] | None]) -> dict[int, int] | None:
    keys: dict[int, int] = {}
    for own in known:
        if own is None or any(keys.setdefault(number, key) != key for number, key in own.items()):
            return None
    return keys


def _sums(
    model: nn.Module,
    views: Sequence[View],
    batches: Sequence[Batch],
    *,
    share: bool,
    kept: Running | None,
    gradients: bool,
    kind: str,
    count: int | None,
    output: Callable[[Any], Tensor],
    metric: Any,
    seed: int,
    description: str | None,
) -> tuple[Sums, dict[int, int]]:
    reading = Pass(model, kind=kind, output=output, metric=metric, seed=seed)
    sums: Sums = Sums()
    keys: dict[int, int] = {}
    newest: dict[Any, tuple[Tensor, int, int]] = {}
    start = 0
    found = None if kept is None else kept.resume()
    if found is not None:
        sums, keys, start = Sums.of_record(found), ints(found.values["keys"]), found.values["batches"]
        reading.samples = sums.samples

    def on_done(number: int) -> None:
        newest.clear()
        sums.samples = reading.samples
        if kept is not None:
            kept.after(number, lambda: sums.record(keys))

    def add_inputs(number: int, view: View, arguments: tuple[Any, ...]) -> None:
        given = arguments[0]
        kind_of_rows = view.alike()
        seen = newest.get(kind_of_rows)
        key = keys.get(number)
        # Tensors of inference mode count no versions, and stay as they are outside of it.
        plain = isinstance(given, Tensor) and not given.is_inference()
        version = given._version if plain else 0
        same = share and seen is not None and seen[0] is given and seen[1] == version
        if same and seen is not None and key in (None, seen[2]):
            # Counted already, for the layer that was given this tensor first.
            keys[number] = seen[2]
            return
        if key is not None and key != number:
            raise _Unshared
        keys[number] = number
        newest[kind_of_rows] = (given, version, number)
        rows = view.inputs(arguments)
        assert reading.batch is not None
        rows = aligned(rows, reading.batch.samples)
        mask = reading.mask_of(rows.shape[:2])
        counted = rows if mask is None else rows[mask.to(rows.device)][None]
        rows_flat = counted.reshape(-1, *counted.shape[2:])
        sums.positions[number] = sums.positions.get(number, 0) + rows_flat.shape[0]
        if view.indexed:
            samples = torch.arange(rows.shape[0], device=rows.device)[:, None].expand(rows.shape[:2])
            own = samples.flatten() if mask is None else samples[mask.to(rows.device)]
            counts = picked(rows_flat.flatten(), own, view.columns)
            sums.inputs[number] = sums.inputs[number] + counts if number in sums.inputs else counts
        else:
            add_gram(sums.inputs, number, rows_flat)

    def add_gradients(number: int, view: View, gradient: Tensor) -> None:
        rows = view.outputs(gradient)
        rows = rows.reshape(-1, *rows.shape[2:])
        add_gram(sums.gradients, number, rows, exact=False, scale=reading.scale)

    with hooked(views, add_inputs, add_gradients if gradients else None):
        reading.run(
            batches,
            gradients=gradients,
            count=count,
            description=description,
            start=start,
            on_done=on_done,
        )
    sums.samples = reading.samples
    return sums, keys


class _Unshared(Exception):
    """Two layers shared an input in one batch and not in the next."""


def add_gram(
    sums: dict[int, Tensor], number: int, rows: Tensor, *, exact: bool = True, scale: float = 1.0
) -> None:
    """Add `sum_i x_i x_i^T / scale^2` of `[positions, groups, features]` to `[groups, features, features]`, float64.

    Only blocks on and below the diagonal are worked out; see `symmetric`. What is not `exact` has float32 products of
    at most `ROWS` rows, good to about six digits of the greatest entry: enough for gradients, whose
    covariance is damped.
    """
    features = rows.shape[2]
    total = sums.get(number)
    if total is None:
        total = sums[number] = rows.new_zeros(rows.shape[1], features, features, dtype=torch.float64)
    dtype = torch.float64 if exact or rows.dtype == torch.float64 else torch.float32
    width = features if features < 2 * BLOCK else max(BLOCK, -(-features // 4))
    for part in rows.split(ROWS):
        x, unit = part.transpose(0, 1).to(dtype), scale
        if dtype == torch.float32:
            # The squares of small numbers would vanish.
            largest = part.abs().max().item() if part.numel() else 0.0
            if 0 < largest < math.inf:
                unit = 2.0 ** math.floor(math.log2(largest))
                x, unit = x / unit, scale / unit
        for start in range(0, features, width):
            end = min(start + width, features)
            product = x[:, :, start:].mT @ x[:, :, start:end]
            total[:, start:, start:end].add_(product, alpha=unit**-2)


def picked(indices: Tensor, samples: Tensor, columns: int) -> Tensor:
    """How often each column is picked, and in how many samples: `[2, columns]`, float64.

    Args:
        indices: `[positions]`.
        samples: `[positions]`, the sample of each.
        columns: how many there are.

    >>> picked(torch.tensor([0, 0, 2, 0]), torch.tensor([0, 0, 0, 1]), 4)
    tensor([[3., 0., 1., 0.],
            [2., 0., 1., 0.]], dtype=torch.float64)
    """
    once = torch.unique(samples * columns + indices) % columns
    return torch.stack([torch.bincount(i, minlength=columns) for i in (indices, once)]).double()


def shares(counts: Tensor, samples: Tensor) -> Tensor:
    """How often each column is picked on data like that seen, `[1, columns]`.

    Columns that were never picked share the part of the positions whose column no other sample picks: that of a new
    sample which no sample before has, by leaving out one sample after the other (Good 1953, over samples and not
    positions, since a rare word comes several times in its document). Without it a rank as small as the number of
    columns that were picked would seem to lose nothing.

    Args:
        counts, samples: as `picked` counts them.
    """
    total = counts.sum()
    known = counts / total.clamp_min(1)
    unseen = counts == 0
    if not bool(unseen.any()):
        return known[None]
    mass = ((counts[samples == 1].sum() + 1) / (total + 1)).clamp_max(MOST_UNSEEN)
    return torch.where(unseen, mass / unseen.sum(), known * (1 - mass))[None]


def gram(rows: Tensor) -> Tensor:
    """`sum_i x_i x_i^T`: `[positions, groups, features]` to `[groups, features, features]`, float64."""
    sums: dict[int, Tensor] = {}
    add_gram(sums, 0, rows)
    return symmetric(sums[0])


def symmetric(lower: Tensor) -> Tensor:
    """The covariance whose lower triangle is given."""
    return lower.tril() + lower.tril(-1).mT


@contextmanager
def hooked(
    views: Sequence[View],
    on_inputs: Callable[[int, View, tuple[Any, ...]], None] | None,
    on_gradient: Callable[[int, View, Tensor], None] | None,
) -> Iterator[None]:
    """Call `on_inputs` when a view's layer is called, `on_gradient` with the gradient at its result."""
    handles = []

    def hook(number: int, view: View) -> Callable[..., None]:
        def called(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
            arguments = _positional(module, args, kwargs)
            if on_inputs is not None:
                with torch.no_grad():
                    on_inputs(number, view, arguments)
            if on_gradient is None or not torch.is_grad_enabled():
                return None
            y, changed = view.observed(arguments, result)
            if y.requires_grad:
                y.register_hook(lambda gradient: on_gradient(number, view, gradient))
            return None if changed is result else changed

        return called

    try:
        for number, view in enumerate(views):
            handles.append(view.layer.register_forward_hook(hook(number, view), with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def plainly(model: nn.Module) -> Iterator[None]:
    """Layers are called one by one and have a backward: no shortcuts of transformers, no cuDNN for recurrent layers.

    nn.TransformerEncoder makes nested tensors of padded sequences, and cuDNN goes back through recurrent layers in
    training mode only.
    """
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        recurrent = any(isinstance(m, nn.RNNBase) for m in model.modules())
        with torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _positional(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """A call's arguments in the order of the layer's forward."""
    if not kwargs:
        return args
    # A forward that takes anything tells no order.
    return inspect.signature(module.forward).bind(*args, **kwargs).args or (*args, *kwargs.values())


@contextmanager
def trainable(model: nn.Module) -> Iterator[None]:
    """One weight of the model wants a gradient, so that every result after it has one to go back from.

    Gradients of weights themselves are not wanted: they would take the memory of the model once more.
    """
    wanted = {p: p.requires_grad for p in model.parameters()}
    handles = []

    def needs_gradient(module: nn.Module, arguments: tuple[Any, ...], result: Any) -> Any:
        y = result[0] if isinstance(result, tuple) else result
        if (
            isinstance(y, Tensor)
            and y.is_floating_point()
            and not y.requires_grad
            and torch.is_grad_enabled()
        ):
            # A copy, since the next layer may write into it, and into a leaf it may not.
            changed = y.detach().requires_grad_().clone()
            return (changed, *result[1:]) if isinstance(result, tuple) else changed
        return None

    try:
        for p in wanted:
            p.requires_grad_(False)
        for module in model.modules():
            if (
                next(module.children(), None) is None
                and next(module.parameters(recurse=False), None) is not None
            ):
                # Before hooks that look whether the result has a gradient.
                handles.append(module.register_forward_hook(needs_gradient, prepend=True))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for p, value in wanted.items():
            p.requires_grad_(value)
