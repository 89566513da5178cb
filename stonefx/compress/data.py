"""The user's data: read once into batches of arguments, and split by what each part decides."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

MANY_BATCHES = 10
"""From this many batches on whole batches are dealt out; fewer are cut into their samples."""

SHARES = (0.6, 0.2, 0.2)
"""Of the samples: for statistics, for choosing, for confirming."""


@dataclass(frozen=True)
class Batch:
    """The arguments of one call of the model.

    Attributes:
        args, kwargs: what the model is called with.
        samples: how many independent samples the batch has, along the first dimension of its tensors.
        mask: `[samples, positions]`, which positions count, or None: all do.
        labels: what came with the batch and is not an argument; for metrics of the user.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    samples: int = 1
    mask: Tensor | None = None
    labels: Any = None

    def call(self, model: nn.Module) -> Any:
        """The model's result, on the device of its weights."""
        moved = self.on(device_of(model))
        return model(*moved.args, **moved.kwargs)

    def on(self, device: torch.device) -> Batch:
        """The batch with its arguments on a device."""
        return replace(self, args=_to(self.args, device), kwargs=_to(self.kwargs, device))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with its floating-point arguments changed."""

        def changed(t: Tensor) -> Tensor:
            return change(t) if t.is_floating_point() else t

        return replace(self, args=mapped(self.args, changed), kwargs=mapped(self.kwargs, changed))

    def take(self, chosen: list[int]) -> Batch:
        """The batch of some of the samples."""
        args, kwargs, mask, labels = (
            _take(value, chosen, self.samples) for value in (self.args, self.kwargs, self.mask, self.labels)
        )
        return Batch(args, kwargs, len(chosen), mask, labels)


@dataclass(frozen=True)
class Splits:
    """Batches by what they decide; no sample is in two of them.

    Attributes:
        calibrate: statistics of the layers are taken on these.
        select: the size of each layer is chosen on these.
        confirm: chose nothing; the floor is confirmed on these.
        given: whole batches of the user's, not cut, by whose shapes layers are timed: the most frequent and the
            largest.
    """

    calibrate: list[Batch]
    select: list[Batch]
    confirm: list[Batch]
    given: tuple[Batch, ...] = ()

    def samples(self) -> dict[str, int]:
        """How many samples each part has."""
        return {
            name: sum(b.samples for b in getattr(self, name)) for name in ("calibrate", "select", "confirm")
        }


def read(data: Any, model: nn.Module, *, batch_size: int = 16, what: str = "data") -> list[Batch]:
    """All batches of `data`: a DataLoader, a list, a tensor, a dataset with rows of lists, or a callable giving one.

    An item is a tensor, a tuple of positional arguments, or a mapping of keyword arguments. A tuple longer than what
    the model's forward takes gives its last entries as labels; so do the entries of a mapping that forward does not
    take. `attention_mask` marks the positions that count.

    Raises:
        TypeError: an item is none of these, or does not fit the model's forward.
        ValueError: there is no item.
    """
    if callable(data) and not isinstance(data, Iterable):
        data = data()
    if isinstance(data, Tensor):
        data = list(data.split(batch_size))
    elif _is_rows(data):
        data = _collated(data, batch_size)
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise TypeError(
            f"{what}: expected a DataLoader, a list of batches, a tensor, a dataset or a callable that returns one, "
            f"got {type(data).__name__}"
            + ("; put one batch into a list: [batch]" if isinstance(data, Mapping) else "")
        )
    signature = inspect.signature(model.forward)
    batches = [_batch(item, signature, f"{what}[{i}]") for i, item in enumerate(data)]
    if not batches:
        raise ValueError(f"{what}: expected at least one batch, got none")
    return batches


def split(batches: list[Batch], seed: int, shares: tuple[float, ...] = SHARES) -> list[list[Batch]]:
    """Deal the samples out at random in the given shares; whole batches where there are many.

    Raises:
        ValueError: fewer samples than shares.
    """
    total = sum(b.samples for b in batches)
    if total < len(shares):
        raise ValueError(
            f"data: expected at least {len(shares)} samples, one each to calibrate, select and confirm, got {total}; "
            "pass more data, or selection_data= and confirmation_data="
        )
    generator = torch.Generator().manual_seed(seed)
    if len(batches) >= MANY_BATCHES:
        order = torch.randperm(len(batches), generator=generator).tolist()
        return [[batches[i] for i in sorted(part)] for part in _cut(order, shares)]
    parts: list[list[Batch]] = [[] for _ in shares]
    order = torch.randperm(total, generator=generator).tolist()
    owner = {sample: k for k, part in enumerate(_cut(order, shares)) for sample in part}
    start = 0
    for batch in batches:
        for k, part in enumerate(parts):
            chosen = [i for i in range(batch.samples) if owner[start + i] == k]
            if chosen:
                part.append(batch.take(chosen))
        start += batch.samples
    return parts


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are; the CPU where it has none."""
    return next((t.device for t in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _cut(order: list[int], shares: tuple[float, ...]) -> list[list[int]]:
    """At least one each."""
    bounds = [0]
    for k in range(len(shares)):
        most = len(order) - (len(shares) - 1 - k)
        bounds.append(min(most, max(bounds[-1] + 1, round(len(order) * sum(shares[: k + 1])))))
    bounds[-1] = len(order)
    return [order[a:b] for a, b in pairwise(bounds)]


def _batch(item: Any, signature: inspect.Signature, what: str) -> Batch:
    parameters = list(signature.parameters.values())
    if isinstance(item, Batch):
        return item
    if isinstance(item, Tensor):
        item = (item,)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    labels = None
    if isinstance(item, Mapping):
        takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
        kwargs = {k: v for k, v in item.items() if takes_all or k in signature.parameters}
        # A loss is not wanted, and where labels are left out a model computes none.
        labels = item.get("labels", {k: v for k, v in item.items() if k not in kwargs} or None)
        kwargs.pop("labels", None)
    elif isinstance(item, (tuple, list)):
        args, labels = _positional(tuple(item), parameters, what)
    else:
        raise TypeError(
            f"{what}: expected a tensor, a tuple of positional arguments or a mapping of keyword arguments, "
            f"got {type(item).__name__}"
        )
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{what}: does not fit the model's forward: {error}; it takes {signature}") from None
    samples = _samples((args, kwargs))
    mask = kwargs.get("attention_mask")
    if not (isinstance(mask, Tensor) and mask.dim() == 2):
        mask = None
    return Batch(args, kwargs, samples, None if mask is None else mask.bool(), labels)


def _positional(
    item: tuple[Any, ...], parameters: list[inspect.Parameter], what: str
) -> tuple[tuple[Any, ...], Any]:
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if any(p.kind is p.VAR_POSITIONAL for p in parameters) or len(item) == required:
        return item, None
    if len(item) > len(positional) or (len(item) == 2 and required == 1):
        # The usual (input, label) of a classifier; optional arguments are passed by name.
        labels = item[required:]
        return item[:required], labels[0] if len(labels) == 1 else labels
    return item, None


def _samples(value: Any) -> int:
    sizes = {t.shape[0] for t in tensors(value) if t.dim() > 0}
    # Tensors of another first size, such as positions [1, length], belong to all samples.
    return max(sizes, default=1)


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for entry in value.values():
            yield from tensors(entry)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from tensors(entry)


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The value with all its tensors changed, in tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(mapped(v, change) for v in value)
    return value


def _to(value: Any, device: torch.device) -> Any:
    return mapped(value, lambda t: t.to(device))


def _take(value: Any, chosen: list[int], samples: int) -> Any:
    return mapped(value, lambda t: t[chosen] if t.dim() > 0 and t.shape[0] == samples else t)


def _is_rows(data: Any) -> bool:
    """A dataset whose items are single rows: mappings of numbers and lists of numbers."""
    if (
        isinstance(data, (Tensor, Mapping, str))
        or not hasattr(data, "__getitem__")
        or not hasattr(data, "__len__")
    ):
        return False
    if len(data) == 0:
        return False
    first = data[0]
    values = first.values() if isinstance(first, Mapping) else ()
    return any(
        isinstance(v, (list, tuple)) or (isinstance(v, Tensor) and v.dim() == 1) for v in values
    ) and not any(isinstance(v, Tensor) and v.dim() > 1 for v in values)


def _collated(data: Any, batch_size: int) -> list[dict[str, Tensor]]:
    """Rows padded with zeros on the right to the longest of their batch, with the mask that says so."""
    rows = [{k: torch.as_tensor(v) for k, v in data[i].items() if _numeric(v)} for i in range(len(data))]
    collated = []
    for start in range(0, len(rows), batch_size):
        group = rows[start : start + batch_size]
        batch: dict[str, Tensor] = {}
        for key, first in group[0].items():
            values = [row[key] for row in group]
            batch[key] = (
                torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
                if first.dim()
                else torch.stack(values)
            )
        if "input_ids" in batch and "attention_mask" not in batch:
            lengths = torch.tensor([len(row["input_ids"]) for row in group])
            batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        collated.append(batch)
    return collated


def _numeric(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(v, (int, float)) for v in value)
    return isinstance(value, (int, float, Tensor))
