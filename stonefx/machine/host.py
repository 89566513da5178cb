"""The processor that this process runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from ..native import extension

# A core's second cache where the system does not say.
_USUAL_CACHE = 1 << 20
_SMALLEST_BUFFER, _LARGEST_BUFFER = 1 << 26, 1 << 28


def cpu_model() -> str:
    """The name of the processor, as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def usable_cores() -> int:
    """Cores that this process may use, which a container can make fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_busy() -> bool:
    """Whether other processes take so much of the cores that several threads of this one would wait for each other."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5 * usable_cores()


def core_cache() -> int:
    """Bytes of the second data cache, which each core has for itself on most processors."""
    module = extension()
    sizes = module.cache_bytes() if module is not None else []
    return int(sizes[1]) if len(sizes) > 1 else _USUAL_CACHE


def memory_bandwidth(threads: int) -> float | None:
    """Bytes a second at which so many threads read memory; None where the extension module is not built.

    The buffer is larger than the last cache, or of 256 MiB where that is too much to fill in a moment.
    """
    module = extension()
    if module is None:
        return None
    last = max(module.cache_bytes(), default=0)
    size = min(max(2 * last, _SMALLEST_BUFFER), _LARGEST_BUFFER)
    return float(module.read_bandwidth(size, threads))
