"""Times of `aten.linear` on a GPU: tiles in waves over its multiprocessors, or bytes through its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .flops import product_flops
from .kernel_times import Table, interpolate

# Tiles of the result that libraries choose from, and the parts that the inner dimension may be split into.
_TILES = ((64, 64), (128, 128), (128, 256))
_SPLITS = (1, 2, 4, 8)
# A part of the inner dimension below this is not split any more.
_SHORTEST = 128
# Entries of the weights that the factors for few rows are measured at.
SMALL_WEIGHT, LARGE_WEIGHT = 1 << 20, 1 << 24
# So few rows are computed as products of a matrix and a vector, which only wait for the weight.
_VECTORS = 4


@dataclass(frozen=True)
class GpuTimes:
    """What `aten.linear` reaches on one GPU in one dtype, as a few numbers.

    `seconds = start + factor * max(waves of tiles, bytes / bandwidth)` on the device. Calls are asynchronous, so
    a call costs `launch` on the host or its time on the device, whichever is more. `launch=0` means a CUDA graph.

    Args:
        launch: seconds of the host for a call.
        start: seconds of the device for a kernel that has next to nothing to do.
        rate: floating-point operations a second of a large product.
        dram: bytes a second from memory.
        cached: bytes a second from the second cache.
        cache_bytes: what this cache holds of one product; larger ones count as read from memory.
        units: multiprocessors.
        small, large: `(rows, factor)`, by how much a product of a weight of 2**20 and of 2**24 entries takes longer
            than tiles or bytes say, as was measured; empty where it was not. Libraries have kernels of their own for
            few rows, which reach a part of the bandwidth and may add up their parts in a second kernel.

    Raises:
        ValueError: a number or a factor is not positive; `launch` may be 0.

    >>> times = GpuTimes(launch=1e-5, start=2e-6, rate=1e12, dram=1e12, cached=2e12, cache_bytes=10**6, units=100)
    >>> times.launch + times.work_seconds(1, 32, 32, 4)
    1e-05
    """

    launch: float
    start: float
    rate: float
    dram: float
    cached: float
    cache_bytes: int
    units: int
    small: Table = ()
    large: Table = ()

    def __post_init__(self) -> None:
        if not self.launch >= 0:
            raise ValueError(f"expected launch >= 0, got {self.launch!r}")
        for name in ("start", "rate", "dram", "cached", "cache_bytes", "units"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} > 0, got {getattr(self, name)!r}")
        for name in ("small", "large"):
            if not all(factor > 0 for _, factor in getattr(self, name)):
                raise ValueError(f"expected factors > 0 in {name}, got {getattr(self, name)!r}")

    def device_seconds(self, rows: int, inputs: int, outputs: int, itemsize: int) -> float:
        """Predict the time of the kernel of `[rows, inputs] -> [rows, outputs]`."""
        if rows == 0:
            return 0.0
        moved = itemsize * (inputs * outputs + rows * (inputs + outputs))
        bandwidth = self.cached if moved <= self.cache_bytes else self.dram
        work = min(
            max(compute, moved / (bandwidth * min(1.0, 2 * busy / self.units)))
            for compute, busy in self._plans(rows, inputs, outputs)
        )
        return self.start + self._factor(rows, inputs * outputs) * work

    def _factor(self, rows: int, weight: int) -> float:
        if not self.small or not self.large:
            return 1.0
        ends = tuple(
            (entries, interpolate(table, rows))
            for entries, table in ((SMALL_WEIGHT, self.small), (LARGE_WEIGHT, self.large))
        )
        return interpolate(ends, max(weight, 1))

    def _plans(self, rows: int, inputs: int, outputs: int) -> Iterator[tuple[float, int]]:
        """Seconds of arithmetic, and how many multiprocessors it keeps busy, of each way to cut the product."""
        for high, wide in _TILES:
            tiles = -(-rows // high) * -(-outputs // wide)
            for split in _SPLITS:
                if split > 1 and inputs // split < _SHORTEST:
                    break
                waves = -(-tiles * split // self.units)
                each = product_flops(high, wide, -(-inputs // split)) / (self.rate / self.units)
                if rows <= _VECTORS:
                    each *= rows / high
                yield waves * each, min(tiles * split, self.units)

    def work_seconds(self, rows: int, inputs: int, outputs: int, itemsize: int) -> float:
        """What a call takes beyond `launch`, during which the device works already."""
        return max(self.device_seconds(rows, inputs, outputs, itemsize) - self.launch, 0.0)
