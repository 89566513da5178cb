"""How long a call takes, on the CPU or on a device that runs behind it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

_LEAST_SECONDS = 1e-4
_LIMIT = 0.03


def seconds(call: Callable[[], object], device: torch.device) -> float:
    """Time a call after two runs to warm up, in nine runs or, of a long call, in two.

    On one thread the processor time counts, which other processes do not lengthen: the median of the runs. Where
    several threads or a device take part, the shortest wall time.
    """
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone and _is_fine() else time.perf_counter

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


def _is_fine() -> bool:
    return time.get_clock_info("thread_time").resolution < 1e-6
