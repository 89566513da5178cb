"""Times of `aten.linear` on a GPU: tiles in waves over its multiprocessors, or bytes through its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .flops import product_flops

# Tiles of the result that libraries choose from, and the parts that the inner dimension may be split into.
_TILES = ((64, 64), (128, 128), (128, 256))
_SPLITS = (1, 2, 4, 8)
# A part of the inner dimension below this is not split any more.
_SHORTEST = 128
# So few rows are computed as products of a matrix and a vector, which only wait for the weight.
_VECTORS = 4


@dataclass(frozen=True)
class GpuTimes:
    """What `aten.linear` reaches on one GPU in one dtype, as a few numbers.

    `seconds = start + max(waves of tiles, bytes / bandwidth)` on the device. Calls are asynchronous, so a call costs
    `launch` on the host or its time on the device, whichever is more. With `launch=0` a CUDA graph is meant.

    Args:
        launch: seconds of the host for a call.
        start: seconds of the device for a kernel that has next to nothing to do.
        rate: floating-point operations a second of a large product.
        dram: bytes a second from memory.
        cached: bytes a second from the second cache.
        cache_bytes: what this cache holds of one product; larger ones count as read from memory.
        units: multiprocessors.

    Raises:
        ValueError: a number is not positive; `launch` may be 0.

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

    def __post_init__(self) -> None:
        if not self.launch >= 0:
            raise ValueError(f"expected launch >= 0, got {self.launch!r}")
        for name in ("start", "rate", "dram", "cached", "cache_bytes", "units"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} > 0, got {getattr(self, name)!r}")

    def device_seconds(self, rows: int, inputs: int, outputs: int, itemsize: int) -> float:
        """Predict the time of the kernel of `[rows, inputs] -> [rows, outputs]`."""
        if rows == 0:
            return 0.0
        moved = itemsize * (inputs * outputs + rows * (inputs + outputs))
        bandwidth = self.cached if moved <= self.cache_bytes else self.dram
        return self.start + min(
            max(compute, moved / (bandwidth * min(1.0, 2 * busy / self.units)))
            for compute, busy in self._plans(rows, inputs, outputs)
        )

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
