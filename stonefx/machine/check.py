"""The cost model against the clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from ..passes.cost.machine import Machine
from .measure import linear_seconds, using_threads

_WIDTHS = ((32, 32), (64, 256), (256, 64), (512, 512), (768, 3072), (1024, 1024), (4096, 256))
_ROWS = (1, 16, 256, 4096)
# More would take longer than somebody waits.
_MOST_FLOPS = 6e9


@dataclass(frozen=True)
class Comparison:
    """One linear map `[rows, inputs] -> [rows, outputs]`: seconds predicted and measured."""

    dtype: str
    rows: int
    inputs: int
    outputs: int
    predicted: float
    measured: float

    @property
    def ratio(self) -> float:
        """Predicted over measured."""
        return self.predicted / self.measured


def compare(machine: Machine, device: torch.device, threads: int) -> list[Comparison]:
    """Predict and measure linear maps of many sizes in float32 and bfloat16 on so many threads, in a few seconds."""
    with using_threads(threads):
        return list(_comparisons(machine, device))


def _comparisons(machine: Machine, device: torch.device) -> Iterator[Comparison]:
    for dtype in (torch.float32, torch.bfloat16):
        for inputs, outputs in _WIDTHS:
            for rows in _ROWS:
                if 2 * rows * inputs * outputs <= _MOST_FLOPS:
                    predicted = machine.linear_seconds(rows, inputs, outputs, dtype.itemsize)
                    measured = linear_seconds(device, dtype, rows, inputs, outputs)
                    name = str(dtype).removeprefix("torch.")
                    yield Comparison(name, rows, inputs, outputs, predicted, measured)
