"""The user's data: read once into batches of arguments, and split by what each part decides."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

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
        if isinstance(labels, (list, tuple)) and len(labels) == self.samples and not any(tensors(labels)):
            # Labels that are words or numbers of Python, one a sample.
            labels = [labels[i] for i in chosen]
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
    elif isinstance(data, Dataset) or _is_rows(data):
        data = _collated(data, batch_size, what)
    if isinstance(data, Mapping) or not isinstance(data, Iterable):
        raise TypeError(
            f"{what}: expected a DataLoader, a list of batches, a tensor, a dataset or a callable that returns one, "
            f"got {type(data).__name__}"
            + ("; put one batch into a list: [batch]" if isinstance(data, Mapping) else "")
        )
    signature = inspect.signature(model.forward)
    batches = [_batch(item, signature, f"{what}[{i}]") for i, item in enumerate(_ending(data, what))]
    # The last one of a loader may be empty.
    batches = [batch for batch in batches if batch.samples > 0]
    if not batches:
        used = isinstance(data, Iterator)
        raise ValueError(
            f"{what}: expected at least one batch, got none"
            + (
                "; an iterator gives its batches once: pass a list, or a function that returns a new one"
                if used
                else ""
            )
        )
    return batches


def _ending(items: Iterable[Any], what: str) -> Iterator[Any]:
    """All items; of what tells no length as many as fit into memory, as it may go on for ever."""
    if hasattr(items, "__len__"):
        yield from items
        return
    from .estimate import available, size

    taken, most = 0, available()
    for number, item in enumerate(items):
        taken += sum(t.nbytes for t in tensors(item))
        if taken > most:
            raise ValueError(
                f"{what}: expected data that ends and fits into memory, got {number + 1:,} batches of {size(taken)} so "
                "far, and more to come; pass fewer: itertools.islice(data, 100)"
            )
        yield item


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
        array = hasattr(item, "__array__")
        raise TypeError(
            f"{what}: expected a tensor, a tuple of positional arguments or a mapping of keyword arguments, "
            f"got {type(item).__name__}"
            + ("; torch.as_tensor makes it one" if array else "")
            + ("; a tokenizer makes tensors of text" if isinstance(item, str) else "")
        )
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{what}: does not fit the model's forward: {error}; it takes {signature}") from None
    for tensor in tensors((args, kwargs)):
        if tensor.layout is not torch.strided and not tensor.is_nested:
            raise TypeError(
                f"{what}: expected dense tensors, got one stored as {tensor.layout}, of which samples cannot be taken; "
                "pass x.to_dense()"
            )
    args, kwargs = mapped((args, kwargs), _outside_inference)
    samples = _samples((args, kwargs))
    mask = kwargs.get("attention_mask")
    if not (isinstance(mask, Tensor) and mask.dim() == 2):
        mask = None
    return Batch(args, kwargs, samples, None if mask is None else mask.bool(), labels)


def _outside_inference(value: Tensor) -> Tensor:
    """A tensor that autograd takes."""
    return value.clone() if value.is_inference() else value


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
        yield from tensors(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from tensors(entry)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from tensors([getattr(value, field_.name) for field_ in dataclasses.fields(value)])


def mapped(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The value with all its tensors changed, in tuples, named ones too, lists, mappings and dataclasses.

    >>> mapped({"a": (torch.ones(2), 1)}, lambda t: t.tolist())
    {'a': ([1.0, 1.0], 1)}
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        changed = {k: mapped(v, change) for k, v in value.items()}
        if type(value) is dict:
            return changed
        if isinstance(value, MutableMapping):
            # Of its own class, with what else it holds.
            made = copy.copy(value)
            for k, v in changed.items():
                made[k] = v
            return made
        return type(value)(changed)  # type: ignore[call-arg]
    if isinstance(value, (tuple, list)):
        parts = [mapped(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        same: Any = value
        made = copy.copy(same)
        for field_ in dataclasses.fields(value):
            object.__setattr__(made, field_.name, mapped(getattr(value, field_.name), change))
        return made
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


def _collated(data: Any, batch_size: int, what: str) -> Iterator[Any]:
    """Rows put together, sequences padded with zeros on the right to the longest, with the mask that says so."""
    rows = (data[i] for i in range(len(data))) if hasattr(data, "__getitem__") else iter(data)
    while group := list(itertools.islice(rows, batch_size)):
        yield _stacked(group, what)


def _stacked(values: list[Any], what: str) -> Any:
    first = values[0]
    if isinstance(first, Mapping):
        batch = {k: _stacked([row[k] for row in values], what) for k, v in first.items() if _numeric(v)}
        if "input_ids" in batch and "attention_mask" not in batch:
            lengths = torch.tensor([len(row["input_ids"]) for row in values])
            batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        return batch
    if isinstance(first, (tuple, list)) and not _numeric(first):
        return tuple(_stacked(list(column), what) for column in zip(*values, strict=True))
    if not _numeric(first):
        return values
    found = [torch.as_tensor(value) for value in values]
    shapes = {tuple(value.shape) for value in found}
    if len(shapes) == 1:
        return torch.stack(found)
    if all(value.dim() == 1 for value in found):
        return torch.nn.utils.rnn.pad_sequence(found, batch_first=True)
    raise ValueError(
        f"{what}: expected rows of equal shapes, or of sequences that can be padded, got {sorted(shapes)[:4]}; pass a "
        "DataLoader whose collate_fn puts them together"
    )


def _numeric(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return bool(value) and all(isinstance(v, (int, float)) for v in value)
    return isinstance(value, (int, float, Tensor)) or hasattr(value, "__array__")
