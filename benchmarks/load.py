"""Is the machine ours alone? The load average, and a spin that takes longer when a core is stolen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

# torch splits elementwise work of at least this size over its threads.
_GRAIN = 32768
ONE_THREAD = _GRAIN - 1
"""So many numbers are one thread's work."""


def parallel_spin(elements: int = 6 * _GRAIN) -> Callable[[], object]:
    """A fixed piece of work on every intra-op thread, a tenth of a millisecond long.

    Another process on one of the cores delays its thread, and so the whole spin. A spin on one thread
    would not notice: the scheduler moves it to a free core.

    Args:
        elements: tanh values for each thread.

    >>> parallel_spin(16)() is not None
    True
    """
    source = torch.linspace(-1, 1, elements * torch.get_num_threads())
    result = torch.empty_like(source)

    def spin() -> torch.Tensor:
        return torch.tanh(source, out=result)

    return spin


def cache_eviction(device: str = "cpu", size: int = 2**28) -> Callable[[], object]:
    """A call that fills the caches of a device with zeros, and is done when it returns.

    Args:
        device: "cpu" or "cuda".
        size: bytes, more than the last cache holds.

    >>> cache_eviction(size=64)() is not None
    True
    """
    buffer = torch.empty(size // 4, device=device)

    def evict() -> torch.Tensor:
        buffer.zero_()
        if device == "cuda":
            torch.cuda.synchronize()
        return buffer

    return evict


def quiet_spin_seconds(
    elements: int = 6 * _GRAIN, repeats: int = 50, clock: Callable[[], float] = time.perf_counter
) -> float:
    """What `parallel_spin` takes where every thread has a core: one thread's share, fastest of many.

    One thread finds a free moment even on a busy machine, all threads at once do not; where the parallel
    spin is never near this, the cores are taken all the time.

    Args:
        elements: as for `parallel_spin`.
        repeats: how often it is timed.
        clock: seconds, monotonic.

    >>> quiet_spin_seconds(repeats=1) > 0
    True
    """
    part = min(elements, _GRAIN - 1)
    source = torch.linspace(-1, 1, part)
    result = torch.empty_like(source)
    times = []
    for _ in range(repeats):
        start = clock()
        torch.tanh(source, out=result)
        times.append(clock() - start)
    return min(times) * elements / part


def load_average() -> float | None:
    """Processes wanting a core, averaged over the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def load_warning(load: float | None, cores: int) -> str:
    """A sentence for the user where others were busy before the run, else "".

    >>> load_warning(0.2, 2)
    ''
    >>> load_warning(1.9, 2)
    'the load average was 1.9 on 2 cores before the run; timings will be unsteady, close other programs'
    """
    if load is None or load <= 0.5 * cores:
        return ""
    return (
        f"the load average was {load:.1f} on {cores} cores before the run; "
        "timings will be unsteady, close other programs"
    )
