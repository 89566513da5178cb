"""The most memory that torch's allocator holds during one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.autograd import ProfilerConfig, ProfilerState

HOW = (
    "peak_bytes: the most that torch's allocator held during one call above what it held before, result included; on "
    "the CPU as torch's profiler records allocations, on CUDA as torch.cuda.max_memory_allocated does"
)


def peak_bytes(call: Callable[[], Any], device: str = "cpu") -> int:
    """The most bytes that are allocated at once during a call, its result among them; what was there before is not.

    Args:
        call: computes once; should have run before, so that nothing is compiled.
        device: "cpu" or "cuda".

    >>> x = torch.ones(1000)
    >>> peak_bytes(lambda: (x + 1) * 2) // 1000  # the sum and the product
    8
    """
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        del result
        return int(torch.cuda.max_memory_allocated()) - before
    # Not `torch.profiler.profile`: its library writes lines of its own to the terminal. With memory, without shapes,
    # stacks, operations and modules.
    experimental = torch._C._profiler._ExperimentalConfig()
    config = ProfilerConfig(ProfilerState.CPU, False, True, False, False, False, experimental)
    torch.autograd._enable_profiler_legacy(config)
    try:
        result = call()
    finally:
        # The result lives until the recording ends.
        threads = torch.autograd._disable_profiler_legacy()
    del result
    return sum(map(_highest, threads))


def _highest(events: Iterable[Any]) -> int:
    """The most that a thread held at once of what it allocated."""
    held = highest = 0
    for event in events:
        if event.kind() == "memory_alloc":
            held += event.cpu_memory_usage()
            highest = max(highest, held)
    return highest


def bytes_text(count: int | None) -> str:
    """A number of bytes in three digits with its unit; empty where none is known.

    >>> [bytes_text(count) for count in (0, 512, 8192, 3_500_000, None)]
    ['0 B', '512 B', '8 KiB', '3.34 MiB', '']
    """
    if count is None:
        return ""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} B"
