"""A roofline model of what a linear map costs, so that merging can be weighed before it is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from .flops import product_flops
from .gpu_times import GpuTimes
from .kernel_times import KernelTimes


@dataclass(frozen=True)
class Machine:
    """The three numbers of the roofline model, and measured times where there are any.

    The defaults describe one or two ordinary CPU cores: what `aten.linear` reaches on them in float32, not
    the peak of the data sheet. Where `single`, `half` or `double` is given, it predicts the time of linear maps in
    4-byte, 2-byte or 8-byte elements in the place of the three numbers. `pair_launches` is what
    `stone.low_rank_linear` costs in calls: one where the operator runs on the CPU, two on CUDA and where `lower`
    spells it as two linear maps.

    Args:
        flop_rate: floating-point operations a second.
        bandwidth: bytes a second between memory and the cores.
        launch: seconds that one operator call costs before it does any work.
        pair_launches: calls that one low-rank pair costs.
        single: measured times in float32.
        half: measured times in bfloat16, which stand for float16 as well.
        double: measured times in float64, on a GPU.

    >>> Machine().flop_rate
    50000000000.0
    """

    flop_rate: float = 5e10
    bandwidth: float = 1e10
    launch: float = 2e-6
    pair_launches: int = 1
    single: KernelTimes | GpuTimes | None = None
    half: KernelTimes | GpuTimes | None = None
    double: KernelTimes | GpuTimes | None = None

    def __post_init__(self) -> None:
        for name in ("flop_rate", "bandwidth", "launch", "pair_launches"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} > 0, got {getattr(self, name)!r}")

    @classmethod
    def of(cls, device: torch.device, pair_launches: int = 1) -> Machine:
        """The default machine of a device type, for where nothing was measured.

        A CUDA device counts as one of 50 TFLOP/s and 2 TB/s whose kernels start in 4 us.

        >>> Machine.of(torch.device("cuda")).launch
        4e-06
        """
        if device.type == "cuda":
            return cls(flop_rate=5e13, bandwidth=2e12, launch=4e-6, pair_launches=pair_launches)
        return cls(pair_launches=pair_launches)

    def in_graph(self) -> Machine:
        """The same machine where the host has nothing to do for a call on a GPU, such as in a CUDA graph.

        >>> Machine().in_graph() == Machine()
        True
        """
        times: dict[str, Any] = {
            name: replace(found, launch=0.0)
            for name in ("single", "half", "double")
            if isinstance(found := getattr(self, name), GpuTimes)
        }
        return replace(self, **times)

    def linear_seconds(self, rows: int, inputs: int, outputs: int, itemsize: int) -> float:
        """Predict the time of `[rows, inputs] -> [rows, outputs]`: one call and its work.

        >>> machine = Machine(flop_rate=1e9, bandwidth=1e9, launch=0.5)
        >>> machine.linear_seconds(rows=1, inputs=1000, outputs=1000, itemsize=1)
        0.502
        """
        return self.work_seconds(rows, inputs, outputs, itemsize) + self.launch_seconds(itemsize)

    def pair_seconds(self, rows: int, inputs: int, rank: int, outputs: int, itemsize: int) -> float:
        """Predict the time of `inputs -> rank -> outputs` as one low-rank pair: both products, one call."""
        return (
            self.work_seconds(rows, inputs, rank, itemsize)
            + self.work_seconds(rows, rank, outputs, itemsize)
            + self.pair_launches * self.launch_seconds(itemsize)
        )

    def work_seconds(self, rows: int, inputs: int, outputs: int, itemsize: int) -> float:
        """`linear_seconds` without the call.

        Where it was not measured: `max(2 * rows * inputs * outputs / flop_rate, bytes / bandwidth)`, where the bytes
        are those of the weight, the input and the result.
        """
        times = self.times(itemsize)
        if times is not None:
            return times.work_seconds(rows, inputs, outputs, itemsize)
        compute = product_flops(rows, inputs, outputs) / self.flop_rate
        traffic = itemsize * (inputs * outputs + rows * (inputs + outputs)) / self.bandwidth
        return max(compute, traffic)

    def launch_seconds(self, itemsize: int) -> float:
        """Seconds that one call costs before it does any work."""
        times = self.times(itemsize)
        return self.launch if times is None else times.launch

    def times(self, itemsize: int) -> KernelTimes | GpuTimes | None:
        """The measured times for elements of so many bytes."""
        return {8: self.double, 4: self.single, 2: self.half}.get(itemsize)
