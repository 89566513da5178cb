"""Covariances of what layers are given and of what their results matter, streamed over the user's data."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from . import probes
from .data import Batch
from .views import View

ROWS = 8192
"""Rows that are turned into float64 at once."""

UNSEEN = 0.1
"""Share of indices that the data does not show, all alike: without it rows of an embedding that were never picked
would count for nothing, and a rank as small as the number of those that were would seem to lose nothing."""


@dataclass
class Statistics:
    """What the search knows of a view beside its weights; sums over all samples, float64.

    Attributes:
        inputs: `E[x x^T]` over positions, `[groups, columns, columns]`; of a view with indices how often each column
            is picked, `[groups, columns]`.
        gradients: `E[g g^T]`, summed over the positions of a sample, `[groups, rows, rows]`; None without gradients.
        positions: how many there were in all.
    """

    inputs: Tensor
    gradients: Tensor | None
    positions: int


@dataclass
class Sums:
    """Running sums; those of several processes add up."""

    inputs: dict[int, Tensor] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    gradients: dict[int, Tensor] = field(default_factory=dict)
    samples: int = 0

    def statistics(self, views: Sequence[View], keys: Mapping[int, int]) -> dict[int, Statistics]:
        """By the number of the view."""
        found = {}
        for number, view in enumerate(views):
            key = keys.get(number, number)
            if key in self.inputs:
                gradients = self.gradients.get(number)
                inputs = self.inputs[key] / max(self.positions[key], 1)
                if view.indexed:
                    inputs = (inputs + UNSEEN / view.columns) / (1 + UNSEEN)
                found[number] = Statistics(
                    inputs,
                    None if gradients is None else gradients / max(self.samples, 1),
                    self.positions[key],
                )
        return found


class Pass:
    """One reading of the calibration data with hooks on layers; see `forward_and_back`."""

    def __init__(
        self, model: nn.Module, *, kind: str, output: Callable[[Any], Tensor], metric: Any, seed: int
    ) -> None:
        self.model = model
        self.kind = kind
        self.output = output
        self.metric = metric
        self.generator = torch.Generator().manual_seed(seed)
        self.batch: Batch | None = None
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
    ) -> None:
        """Call the model on all batches and go back through it from each probe."""
        with plainly(self.model):
            self._run(batches, gradients, count, description, on_batch, on_probe)

    def _run(
        self,
        batches: Sequence[Batch],
        gradients: bool,
        count: int | None,
        description: str | None,
        on_batch: Callable[[], None],
        on_probe: Callable[[], None],
    ) -> None:
        for batch in tqdm(batches, desc=description, disable=description is None, leave=False):
            self.batch = batch
            on_batch()
            if not gradients:
                with torch.no_grad():
                    batch.call(self.model)
                continue
            with torch.enable_grad(), trainable(self.model):
                result = batch.call(self.model)
                y = self.output(result)
                kind = probes.resolve(self.kind, result, self.metric)
                number = count or probes.count(kind, y)
                for i in range(number):
                    mask = None if batch.mask is None else batch.mask.to(y.device)
                    value = probes.scalar(kind, y, mask, self.generator)
                    value.backward(retain_graph=i + 1 < number)
                    on_probe()
            self.samples += batch.samples * number
        self.batch = None

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
    reduce: Callable[[Sums], Sums] = lambda sums: sums,
) -> dict[int, Statistics]:
    """Statistics of all views by number; of those whose layers were never called there are none.

    Layers that were given the very same tensor share one covariance.
    """
    settings = {
        "gradients": gradients,
        "kind": kind,
        "count": count,
        "output": output,
        "metric": metric,
        "seed": seed,
    }
    try:
        sums, keys = _sums(model, views, batches, share=True, description=description, **settings)
    except _Unshared:
        sums, keys = _sums(model, views, batches, share=False, description=description, **settings)
    return reduce(sums).statistics(views, keys)


def _sums(
    model: nn.Module,
    views: Sequence[View],
    batches: Sequence[Batch],
    *,
    share: bool,
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

    def add_inputs(number: int, view: View, arguments: tuple[Any, ...]) -> None:
        given = arguments[0]
        kind_of_rows = view.alike()
        seen = newest.get(kind_of_rows)
        key = keys.get(number)
        version = getattr(given, "_version", 0)
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
        if mask is not None:
            rows = rows[mask.to(rows.device)][None]
        flat = rows.reshape(-1, *rows.shape[2:])
        sums.positions[number] = sums.positions.get(number, 0) + flat.shape[0]
        if view.indexed:
            counts = torch.bincount(flat.flatten(), minlength=view.columns).double()[None]
            sums.inputs[number] = sums.inputs.get(number, 0) + counts
        else:
            sums.inputs[number] = sums.inputs.get(number, 0) + gram(flat)

    def add_gradients(number: int, view: View, gradient: Tensor) -> None:
        rows = view.outputs(gradient)
        sums.gradients[number] = sums.gradients.get(number, 0) + gram(rows.reshape(-1, *rows.shape[2:]))

    with hooked(views, add_inputs, add_gradients if gradients else None):
        reading.run(batches, gradients=gradients, count=count, description=description)
    sums.samples = reading.samples
    return sums, keys


class _Unshared(Exception):
    """Two layers shared an input in one batch and not in the next."""


def gram(rows: Tensor) -> Tensor:
    """`sum_i x_i x_i^T`: `[positions, groups, features]` to `[groups, features, features]`, float64."""
    total = rows.new_zeros(rows.shape[1], rows.shape[2], rows.shape[2], dtype=torch.float64)
    for part in rows.split(ROWS):
        x = part.double().transpose(0, 1)
        total.baddbmm_(x.mT, x)
    return total


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
