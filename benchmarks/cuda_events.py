"""Seconds of calls on a CUDA device by events on its stream, with a second-level cache that holds nothing of theirs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch


class Sampled(NamedTuple):
    """Seconds of one call of a sample: those that count, and on a device also those of the host's clock."""

    seconds: float
    host: float | None = None


class EventTimer:
    """Time a sample of calls between two events.

    The seconds are those from the first event to the second, over the number of calls. They hold the gaps in which the
    device waits for the host, where the host launches more slowly than the device works: it is what a loop of calls
    takes. The host's seconds are those from the first launch until the device is done, one synchronization included.
    Before a sample the second-level cache is overwritten and waited for, outside of both; the first call of a sample
    finds nothing of its own there, the others what the calls before them left.

    Args:
        flush: overwrites the cache, without waiting.
        cold: a sample is a single call that is enqueued behind the overwriting, so that its launch is not timed.
        event: makes an event with `record`, `synchronize` and `elapsed_time` in milliseconds.
        wait: waits for the device.
        clock: seconds of the host, monotonic.
    """

    def __init__(
        self,
        flush: Callable[[], object],
        *,
        cold: bool = False,
        event: Callable[[], Any] = lambda: torch.cuda.Event(enable_timing=True),
        wait: Callable[[], None] = lambda: torch.cuda.synchronize(),
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._flush, self._cold, self._wait, self._clock = flush, cold, wait, clock
        self._begin, self._end = event(), event()

    def __call__(self, call: Callable[[], Any], count: int) -> Sampled:
        """Seconds a call of `count` calls in a row."""
        self._wait()
        self._flush()
        if not self._cold:
            self._wait()
        start = self._clock()
        self._begin.record()
        for _ in range(count):
            call()
        self._end.record()
        self._end.synchronize()
        host = (self._clock() - start) / count
        return Sampled(self._begin.elapsed_time(self._end) * 1e-3 / count, None if self._cold else host)


def cache_flush(device: str = "cuda", size: int | None = None) -> Callable[[], object]:
    """A call that overwrites the second-level cache of a device and does not wait.

    Args:
        device: where the buffer is.
        size: bytes; twice what the cache holds where it is left out.

    >>> cache_flush("cpu", size=64)().numel()
    64
    """
    if size is None:
        size = max(2 * torch.cuda.get_device_properties(device).L2_cache_size, 1 << 26)
    return torch.empty(size, dtype=torch.int8, device=device).zero_


def event_seconds(call: Callable[[], Any], timer: Callable[[Callable[[], Any], int], Sampled]) -> float:
    """The least seconds a call of five samples of four, after two calls to warm up."""
    call()
    call()
    return min(timer(call, 4).seconds for _ in range(5))
