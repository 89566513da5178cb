"""Measures what `aten.linear` reaches here, for the cost model."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ..passes.cost.kernel_times import KernelTimes, Table, interpolate
from ..passes.cost.machine import Machine
from .clock import seconds
from .gpu import gpu_times
from .host import core_cache, memory_bandwidth

_ROWS = (1, 4, 16, 64, 256, 1024)
_TINY, _NEAR, _FAR = 32, 512, 2048
_TINY_ROWS = 16
_WRITTEN = (1 << 20, 1 << 26)
_CUDA_CACHE = 1 << 25
# Where one call takes longer than this, more rows would not reach a better rate any more.
_LONG = 0.015


def measure(device: torch.device, threads: int | None = None) -> Machine:
    """Measure the facts of the cost model on a device, in about a second.

    Neither the random state nor anything that is being traced is touched.

    Args:
        device: a CPU, or another device that torch has here.
        threads: threads of torch to measure with; None for as many as it is set to. One thread is measured well on a
            busy machine too.
    """
    with (
        using_threads(threads),
        _disable_current_modes(),
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
    ):
        if device.type == "cuda":
            with torch.cuda.device(device):
                return _gpu(device)
        write = _table(
            _WRITTEN,
            lambda size: seconds(
                lambda: torch.empty(size, dtype=torch.uint8, device=device).fill_(1), device
            ),
        )
        bandwidth = memory_bandwidth(torch.get_num_threads()) if device.type == "cpu" else None
        if bandwidth is None:
            bandwidth = _read_bandwidth(device)
        # A kernel may repack the weight, so that the cache has to hold it twice.
        near_bytes = (core_cache() if device.type == "cpu" else _CUDA_CACHE) // 2
        single, half = (
            _kernel_times(device, dtype, near_bytes, bandwidth, write)
            for dtype in (torch.float32, torch.bfloat16)
        )
    return Machine(
        flop_rate=max(rate for _, rate in single.near_rate),
        bandwidth=bandwidth,
        launch=single.launch,
        single=single,
        half=half,
    )


def _gpu(device: torch.device) -> Machine:
    card = torch.cuda.get_device_properties(device)
    single, half, double = (
        gpu_times(device, dtype, card.L2_cache_size, card.multi_processor_count)
        for dtype in (torch.float32, torch.bfloat16, torch.float64)
    )
    return Machine(
        flop_rate=single.rate,
        bandwidth=single.dram,
        launch=single.launch,
        pair_launches=2,
        single=single,
        half=half,
        double=double,
    )


@contextlib.contextmanager
def using_threads(threads: int | None) -> Iterator[None]:
    """Let torch use so many threads inside; None for as many as it is set to."""
    before = torch.get_num_threads()
    if threads in (None, before):
        yield
        return
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def linear_seconds(device: torch.device, dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> float:
    """Measure one linear map, with a bias, as eager PyTorch runs it."""
    with _disable_current_modes(), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        x, weight, bias = (
            torch.full(shape, 0.5, dtype=dtype, device=device)
            for shape in ((rows, inputs), (outputs, inputs), (outputs,))
        )
        return seconds(lambda: torch._C._nn.linear(x, weight, bias), device)


def _kernel_times(
    device: torch.device, dtype: torch.dtype, near_bytes: int, bandwidth: float, write: Table
) -> KernelTimes:
    # Fewer rows would take another kernel than most sizes do.
    launch = linear_seconds(device, dtype, _TINY_ROWS, _TINY, _TINY)

    def rates(width: int) -> Table:
        flops = 2 * width * width
        found: list[tuple[int, float]] = []
        for rows in _ROWS:
            whole = linear_seconds(device, dtype, rows, width, width)
            moved = dtype.itemsize * rows * width
            rest = whole - launch - moved / interpolate(write, moved)
            rest -= moved / bandwidth if moved > near_bytes else 0.0
            # Rounding and noise must leave some time for the product itself.
            found.append((rows, max(rest, 0.1 * whole) / flops))
            if whole > _LONG:
                break
        return _growing([(rows, rows / time) for rows, time in found])

    return KernelTimes(
        launch=launch,
        near_rate=rates(_NEAR),
        far_rate=rates(_FAR),
        near_bytes=near_bytes,
        bandwidth=bandwidth,
        write=write,
    )


def _read_bandwidth(device: torch.device) -> float:
    size = _WRITTEN[-1]
    source = torch.ones(size // 4, device=device)
    return size / seconds(lambda: source.sum(), device)


def _table(sizes: tuple[int, ...], measured: Callable[[int], float]) -> Table:
    return _growing([(size, size / measured(size)) for size in sizes])


def _growing(table: list[tuple[int, float]]) -> Table:
    """The same rates with no entry that takes longer than a larger one: another process can only have slowed it."""
    times = [at / value for at, value in table]
    least = list(itertools.accumulate(reversed(times), min))[::-1]
    return tuple((at, at / time) for (at, _), time in zip(table, least, strict=True))
