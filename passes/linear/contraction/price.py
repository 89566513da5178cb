"""What a run of products costs: as the graph has it, and as one product."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...graph.nodes import val
from ..algebra.values import size_at
from ..plan.price import Costs
from .contraction import Contraction
from .steps import Run, Scaled


def seconds_apart(run: Run, costs: Costs) -> float:
    """Seconds of a run as the graph has it."""
    total = 0.0
    for step in run.steps:
        if isinstance(step, Contraction):
            total += contraction_seconds(Run([step]), costs)
        elif isinstance(step, Scaled):
            total += costs.elementwise(
                1, int(math.prod(size_at(n, costs.symbols) for n in val(step.node).shape))
            )
        else:
            total += costs.view()
    return total


def contraction_seconds(run: Run, costs: Costs) -> float:
    """Seconds of a run as one product."""
    groups, rows, inputs, outputs = extents(run, costs.symbols)
    machine = costs.machine
    return groups * machine.work_seconds(rows, inputs, outputs, costs.itemsize) + machine.launch_seconds(
        costs.itemsize
    )


def extents(run: Run, symbols: int | None = None) -> tuple[int, int, int, int]:
    """How many matrices, rows of each, and their widths."""

    def extent(labels: Iterable[int]) -> int:
        return math.prod(size_at(run.sizes[label], symbols) for label in labels)

    source, matrix, result = set(run.source), set(run.matrix), set(run.result)
    return (
        extent(source & matrix & result),
        extent(source - matrix),
        extent((source & matrix) - result),
        extent(matrix - source),
    )


def contraction_flops(run: Run) -> int:
    """Floating-point operations of a run as one product."""
    return 2 * math.prod(extents(run))
