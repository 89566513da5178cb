"""How long a call takes, on the CPU or on a device that runs behind it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

_LEAST_SECONDS = 1e-4
_LIMIT = 0.03


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time a call after two runs to warm up, in nine runs or, of a long call, in two.

    On one thread the processor time counts, which other processes do not lengthen: the median of the runs. Where
    several threads or a device take part, the shortest wall time.
    """
    clock = clock_of(device)

    def run(count: int) -> float:
        start = clock()
        for _ in range(count):
            call()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return (clock() - start) / count

    run(1)
    once = max(run(1), 1e-7)
    count = max(1, int(_LEAST_SECONDS / once))
    repeats = min(max(2, int(_LIMIT / (count * once))), 9)
    times = [run(count) for _ in range(repeats)]
    return max(statistics.median(times) if clock is time.thread_time else min(times), 1e-9)


def interleaved(
    calls: Sequence[Callable[[], object]],
    device: torch.device,
    *,
    seconds: float = 0.3,
    rounds: int = 15,
    least: int = 5,
    between: Callable[[], object] | None = None,
) -> list[list[float]]:
    """Seconds of some calls by round, each call once a round and in turn, so that a slow moment falls on all alike.

    Args:
        calls: what to time; run twice each to warm up.
        device: that they run on.
        seconds: from when on no further round is begun, once there are `least`.
        rounds: at most.
        least: at least.
        between: runs before each call and is not timed; a sample is then a single call.

    >>> len(interleaved([lambda: 1, lambda: 2], torch.device("cpu"), seconds=0.0, least=2))
    2
    """
    clock = clock_of(device)

    def run(call: Callable[[], object], count: int) -> float:
        if between is not None:
            between()
        start = clock()
        for _ in range(count):
            call()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return max((clock() - start) / count, 1e-9)

    begun = clock()
    once = []
    for call in calls:
        run(call, 1)
        once.append(run(call, 1))
    count = max(1, int(_LEAST_SECONDS / max(min(once), 1e-7))) if between is None else 1
    taken: list[list[float]] = []
    while len(taken) < rounds and (len(taken) < least or clock() - begun < seconds):
        # Every other round in the opposite order: what runs second finds the caches of the first.
        order = range(len(calls)) if len(taken) % 2 == 0 else reversed(range(len(calls)))
        times = {i: run(calls[i], count) for i in order}
        taken.append([times[i] for i in range(len(calls))])
    return taken


def clock_of(device: torch.device) -> Callable[[], float]:
    """Processor time of this thread where it works alone, which other processes do not lengthen; else wall time."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return time.thread_time if alone and _is_fine() else time.perf_counter


def _is_fine() -> bool:
    return time.get_clock_info("thread_time").resolution < 1e-6
