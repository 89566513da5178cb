"""The cost model against the clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..passes.cost.machine import Machine
from .gpu import linear_device_seconds
from .measure import linear_seconds, using_threads

_WIDTHS = ((32, 32), (64, 256), (256, 64), (512, 512), (768, 3072), (1024, 1024), (4096, 256))
_ROWS = (1, 16, 256, 4096)
# More would take longer than somebody waits.
_MOST_FLOPS = 6e9


@dataclass(frozen=True)
class Comparison:
    """One linear map `[rows, inputs] -> [rows, outputs]`: seconds predicted and measured.

    `clock` says of what: "call" of a whole call, "device" of a CUDA device's work in a graph, without the host's.
    """

    dtype: str
    rows: int
    inputs: int
    outputs: int
    predicted: float
    measured: float
    clock: str

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def compare(machine: Machine, device: torch.device, threads: int) -> list[Comparison]:
    """Predict and measure linear maps of many sizes in float32 and bfloat16 on so many threads, in a few seconds.

    On CUDA the device's time is compared, which is what the model describes, and not the time of a lone call.
    """
    with using_threads(threads):
        return list(_comparisons(machine, device))


def _comparisons(machine: Machine, device: torch.device) -> Iterator[Comparison]:
    on_card = device.type == "cuda"
    clock, measure = ("device", linear_device_seconds) if on_card else ("call", linear_seconds)
    # Calls of a card overlap, and small ones take what the host takes: its part is a fact of its own, `launch`.
    facts = machine.in_graph() if on_card else machine
    for dtype in (torch.float32, torch.bfloat16):
        for inputs, outputs in _WIDTHS:
            for rows in _ROWS:
                if 2 * rows * inputs * outputs <= _MOST_FLOPS:
                    predicted = facts.linear_seconds(rows, inputs, outputs, dtype.itemsize)
                    measured = measure(device, dtype, rows, inputs, outputs)
                    name = str(dtype).removeprefix("torch.")
                    yield Comparison(name, rows, inputs, outputs, predicted, measured, clock)
