"""Several processes that share one compression: who does what, and what they tell each other.

Started by `torchrun --nproc-per-node N -m stonefx compress ...`, or by any code that has made a process group. All
processes call `compress` with the same arguments and return the same result: batches of data, decompositions and
batches of the metric are dealt out; sums are added in float64. Random numbers belong to a batch or a layer and not to a
process, so that the number of processes changes nothing but the order in which sums are rounded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def size() -> int:
    """How many processes there are; one where no process group was made."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is."""
    return dist.get_rank() if size() > 1 else 0


@contextmanager
def from_torchrun() -> Iterator[None]:
    """Make the process group that torchrun asks for, and leave it afterwards; nothing in a process on its own."""
    asked = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    if not asked or not dist.is_available() or dist.is_initialized():
        yield
        return
    cuda = torch.cuda.is_available() and dist.is_nccl_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def mine(items: Sequence[T]) -> list[tuple[int, T]]:
    """Every `size()`-th item, with its number.

    >>> mine(["a", "b"])
    [(0, 'a'), (1, 'b')]
    """
    return [(i, item) for i, item in enumerate(items) if i % size() == rank()]


def owners(costs: Mapping[T, float]) -> dict[T, int]:
    """Who does which work: the dearest first, each to who has least to do; the same in all processes.

    >>> owners({"a": 3.0, "b": 1.0})
    {'a': 0, 'b': 0}
    """
    busy = [0.0] * size()
    found = {}
    for key in sorted(costs, key=lambda k: -costs[k]):
        owner = busy.index(min(busy))
        busy[owner] += costs[key]
        found[key] = owner
    return found


def gathered(value: T) -> list[T]:
    """The value of each process, by rank."""
    if size() == 1:
        return [value]
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    return values


def of_first(make: Callable[[], T]) -> T:
    """What the first process makes; the others make it as well, so that none waits alone, and take the first's."""
    value = [make()]
    if size() > 1:
        dist.broadcast_object_list(value, src=0)
    return value[0]


def added(values: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
    """The sums over all processes of tensors by key; a process without a key adds nothing.

    Keys are taken in one order, and each sum is the same in all processes.
    """
    if size() == 1:
        return dict(values)
    shapes: dict[Any, Any] = {}
    for known in gathered({key: (value.shape, value.dtype) for key, value in values.items()}):
        shapes.update(known)
    total = {}
    for key in sorted(shapes, key=repr):
        shape, dtype = shapes[key]
        own = values.get(key)
        value = torch.zeros(shape, dtype=dtype) if own is None else own.clone()
        total[key] = _through(value, dist.all_reduce)
    return total


def sent(values: Sequence[Tensor] | None, source: int) -> list[Tensor]:
    """Tensors of one process, which alone gives them, in all processes."""
    if size() == 1:
        assert values is not None
        return list(values)
    heads = [None if values is None else [(v.shape, v.dtype) for v in values]]
    dist.broadcast_object_list(heads, src=source)
    assert heads[0] is not None
    own = values or [torch.empty(shape, dtype=dtype) for shape, dtype in heads[0]]
    return [_through(v.contiguous(), lambda t: dist.broadcast(t, src=source)) for v in own]


def _through(value: Tensor, call: Callable[[Tensor], Any]) -> Tensor:
    """A collective in place, on a device that the group has a backend for."""
    backend = str(dist.get_backend())
    moved = value.cuda() if backend == "nccl" and not value.is_cuda else value
    call(moved)
    return moved.to(value.device)
