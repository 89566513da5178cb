"""Measured times of `aten.linear`, and the times of other sizes that follow from them."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from .flops import product_flops

Table = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class KernelTimes:
    """What `aten.linear` reaches on one machine in one dtype, as a few numbers.

    `seconds = launch + flops / rate + read / bandwidth + written / write`. The rate depends on the rows, since a
    product of few rows waits for the weight, and on whether the weight fits into the cache. An input that fits is
    read while the product is computed and costs nothing more. The bandwidth of writing depends on the size of the
    result, since a large one takes fresh pages. Between the entries of a table the logarithm is interpolated,
    beyond them the last one holds.

    Args:
        launch: seconds of a call that has next to nothing to compute.
        near_rate: rows -> floating-point operations a second, with a weight of at most `near_bytes`.
        far_rate: the same for larger weights.
        near_bytes: size of the cache: of larger weights `far_rate` holds, and larger inputs are read from memory.
        bandwidth: bytes a second at which these are read.
        write: bytes of the result -> bytes a second at which it is written.

    Raises:
        ValueError: a number is not positive, or more rows would take less time.

    >>> times = KernelTimes(0.5, ((1, 1e3), (100, 1e5)), ((1, 1e3),), 10**6, 1e9, ((1, 1e9),))
    >>> round(times.rate(10, weight_bytes=4))
    10000
    """

    launch: float
    near_rate: Table
    far_rate: Table
    near_bytes: int
    bandwidth: float
    write: Table

    def __post_init__(self) -> None:
        tables = {"near_rate": self.near_rate, "far_rate": self.far_rate, "write": self.write}
        for name in ("launch", "near_bytes", "bandwidth"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} > 0, got {getattr(self, name)!r}")
        for name, table in tables.items():
            if not table or not all(at > 0 and value > 0 for at, value in table):
                raise ValueError(f"expected {name} to hold positive numbers, got {table!r}")
            seconds = [at / value for at, value in table]
            if sorted(table) != list(table) or sorted(seconds) != seconds:
                raise ValueError(f"expected the time in {name} to grow with its size, got {table!r}")

    def rate(self, rows: float, weight_bytes: int) -> float:
        """Floating-point operations a second for so many rows."""
        near = interpolate(self.near_rate, rows)
        return near if weight_bytes <= self.near_bytes else min(near, interpolate(self.far_rate, rows))

    def work_seconds(self, rows: int, inputs: int, outputs: int, itemsize: int) -> float:
        """Predict the time of `[rows, inputs] -> [rows, outputs]` without the call."""
        if rows == 0:
            return 0.0
        flops = product_flops(rows, inputs, outputs)
        read, written = itemsize * rows * inputs, itemsize * rows * outputs
        seconds = flops / self.rate(rows, itemsize * inputs * outputs) + written / interpolate(
            self.write, written
        )
        return seconds + read / self.bandwidth if read > self.near_bytes else seconds


def interpolate(table: Table, at: float) -> float:
    """The value of a table at a place, straight in the logarithms of both.

    >>> round(interpolate(((1, 1.0), (100, 100.0)), 10), 9)
    10.0
    """
    index = bisect_right(table, (at, math.inf))
    if index == 0:
        return table[0][1]
    if index == len(table):
        return table[-1][1]
    (left, low), (right, high) = table[index - 1 : index + 1]
    part = math.log(at / left) / math.log(right / left)
    return math.exp(math.log(low) + part * math.log(high / low))
