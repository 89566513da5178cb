"""Measures what `aten.linear` reaches on a CUDA device, with its own events."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import geometric_mean
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from ..passes.cost.flops import product_flops
from ..passes.cost.gpu_times import GpuTimes
from ..passes.cost.kernel_times import Table

_TINY = (16, 32, 32)
_LARGE = (8192, 4096, 4096)
_COPIED = 1 << 28
# Products that libraries have other kernels for: the halves of a pair, and one of a weight that no cache holds, which
# reaches the rate of the large one at its rows.
_ROWS = (1, 16, 32, 256, 1024)
_SMALL = ((4096, 256), (256, 4096))
_WIDE = ((4096, 4096),)
_CALLS, _REPLAYS = 20, 5
Clock = Callable[[Callable[[], object]], float]


def captured(
    call: Callable[[], Any], *, warm_up: int = 1, calls: int = 1
) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A CUDA graph of so many calls, after runs on a side stream, and the result that each replay writes again.

    What other threads do meanwhile, such as a loader that pins memory, does not spoil it.
    """
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        for _ in range(calls):
            result = call()
    return graph, result


def device_seconds(call: Callable[[], object]) -> float:
    """Seconds that the device takes for a call: of calls in a CUDA graph, so that the host is not in the way."""
    graph, _ = captured(call, calls=_CALLS)
    graph.replay()
    times = []
    for _ in range(_REPLAYS):
        begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begun.record()
        graph.replay()
        ended.record()
        ended.synchronize()
        times.append(begun.elapsed_time(ended) * 1e-3 / _CALLS)
    return min(times)


def host_seconds(call: Callable[[], object]) -> float:
    """Seconds that the host takes to hand a call to the device, which it does not wait for."""
    times = []
    for _ in range(_REPLAYS):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(_CALLS):
            call()
        times.append((time.perf_counter() - begun) / _CALLS)
    torch.cuda.synchronize()
    return min(times)


def gpu_times(
    device: torch.device,
    dtype: torch.dtype,
    cache_bytes: int,
    units: int,
    on_device: Clock = device_seconds,
    on_host: Clock = host_seconds,
) -> GpuTimes:
    """Measure linear maps in one dtype, and copies.

    Args:
        device: that is measured.
        dtype: of the maps.
        cache_bytes: of the device's second cache.
        units: its multiprocessors.
        on_device, on_host: clocks of a call.
    """
    tiny, large = (_linear(device, dtype, *sizes) for sizes in (_TINY, _LARGE))
    launch, start = on_host(tiny), on_device(tiny)
    rate = product_flops(*_LARGE) / _beyond(on_device(large), start)
    dram = 2 * _COPIED / _beyond(on_device(_copy(device, _COPIED)), start)
    part = cache_bytes // 8
    cached = 2 * part / _beyond(on_device(_copy(device, part)), start)
    # Half of the cache lies beside each multiprocessor's own half of the chip; what is larger comes slower.
    times = GpuTimes(launch, start, rate, dram, max(cached, dram), cache_bytes // 2, units)

    def factors(weights: tuple[tuple[int, int], ...], counts: tuple[int, ...]) -> Table:
        """By how much the device takes longer than the other facts say, beyond `start`."""
        found = []
        for rows in counts:
            ratios = []
            for inputs, outputs in weights:
                predicted = times.device_seconds(rows, inputs, outputs, dtype.itemsize) - start
                whole = on_device(_linear(device, dtype, rows, inputs, outputs))
                ratios.append(_beyond(whole, start) / predicted)
            found.append((rows, geometric_mean(ratios)))
        return tuple(found)

    most = _LARGE[0]
    return replace(times, small=factors(_SMALL, (*_ROWS, most)), large=(*factors(_WIDE, _ROWS), (most, 1.0)))


def linear_device_seconds(
    device: torch.device, dtype: torch.dtype, rows: int, inputs: int, outputs: int
) -> float:
    """Measure the device's time of one linear map, with a bias, whatever the host takes for the call."""
    with (
        torch.cuda.device(device),
        _disable_current_modes(),
        torch.inference_mode(),
        torch.autocast(device.type, enabled=False),
    ):
        return device_seconds(_linear(device, dtype, rows, inputs, outputs))


def _beyond(whole: float, start: float) -> float:
    return max(whole - start, 0.1 * whole)


def _linear(device: torch.device, dtype: torch.dtype, *sizes: int) -> Callable[[], object]:
    rows, inputs, outputs = sizes
    # A card draws less power for equal numbers, and runs faster than it does on others.
    source = torch.Generator(device).manual_seed(0)
    x, weight = (
        torch.randn(shape, generator=source, device=device).to(dtype)
        for shape in ((rows, inputs), (outputs, inputs))
    )
    bias = torch.zeros(outputs, dtype=dtype, device=device)
    return lambda: torch._C._nn.linear(x, weight, bias)


def _copy(device: torch.device, size: int) -> Callable[[], object]:
    source = torch.ones(size // 4, device=device)
    result = torch.empty_like(source)
    return lambda: result.copy_(source)
