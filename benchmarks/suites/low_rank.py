"""Where a product by low rank breaks even: dense, a pair of linear maps, our operator, and CUDA graphs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch.nn.functional import linear

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx import machine as machines
from stonefx.benchmarks.case import Arm, Case, CaseResult, Planned, Work
from stonefx.benchmarks.cuda_graphs import with_graphs
from stonefx.benchmarks.results import seconds_text
from stonefx.passes.cost.flops import product_flops
from stonefx.passes.cost.machine import Machine
from stonefx.terminal import table

ROWS, WIDTHS = (1, 16, 256, 4096, 65536), (1024, 4096, 16384)
RANKS = (16, 64, 256, 1024, 2048)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CPU_CELLS = ((1, 256, 16), (64, 256, 16), (64, 256, 128))
# A dense product of more would take longer than about 40 ms on a large card, and a cell than its share of the minutes.
MOST_FLOPS = {4: 2e12, 2: 3e13}
# What a cell may allocate, of a card of 80 GB.
MOST_BYTES = 60 << 30
# A float64 truth of more would take longer than the arms; float32 is exact enough beside 16 bits and other orders.
MOST_EXACT_FLOPS = 2e11
# float16 runs on the same units as bfloat16: one width shows that it does not differ.
FLOAT16_WIDTH = 4096
NEAR = 1.05
DENSE, PAIR, OPERATOR, GRAPH = "dense", "pair", "stone.low_rank_linear", ", CUDA graph"

Cell = tuple[int, int, int]


def low_rank_cases(
    device: str = "cpu", cells: Sequence[Cell] | None = None, machine: Machine | None = None
) -> Iterator[Planned]:
    """One case for each number of rows, width, rank and dtype; a few small ones on the CPU.

    Args:
        device: "cpu" or "cuda".
        cells: rows, width and rank of each; None for those of the device.
        machine: whose predictions are held against the times; None for the facts of the device.
    """
    if cells is None:
        cells = _all_cells() if device == "cuda" else CPU_CELLS
    dtypes = DTYPES if device == "cuda" else DTYPES[:2]
    for rows, width, rank in cells:
        for dtype in dtypes:
            if _fits(dtype, rows, width, rank):
                name = f"{str(dtype).removeprefix('torch.')} rows {rows} width {width} rank {rank}"
                yield Planned(
                    name=name, make=partial(_case, name, device, dtype, (rows, width, rank), machine)
                )


def _fits(dtype: torch.dtype, rows: int, width: int, rank: int) -> bool:
    if dtype == torch.float16 and width != FLOAT16_WIDTH:
        return False
    # Input, five results, the truth and three copies in float64 to compare with it; the weight and its factors.
    needed = rows * width * (6 * dtype.itemsize + 4 * 8) + dtype.itemsize * width * (width + 2 * rank)
    return product_flops(rows, width, width) <= MOST_FLOPS[dtype.itemsize] and needed <= MOST_BYTES


def _all_cells() -> list[Cell]:
    """The cells of a card, those first that say most: where the minutes end, the others are left out."""
    cells = [(rows, width, rank) for rows in ROWS for width in WIDTHS for rank in RANKS if rank < width]
    # The break-even of usual widths and ranks; then what is wide, or has many rows, and takes longest.
    return sorted(cells, key=lambda cell: (cell[0] > 4096, cell[1] > 4096, cell[2] in (16, 2048)))


def _case(name: str, device: str, dtype: torch.dtype, cell: Cell, machine: Machine | None) -> Case:
    rows, width, rank = cell
    source = torch.Generator(device).manual_seed(0)
    x, a, b = (
        torch.randn(shape, generator=source, device=device).mul_(shape[1] ** -0.5).to(dtype)
        for shape in ((rows, width), (rank, width), (width, rank))
    )
    weight = b @ a
    with torch.no_grad():
        exact = product_flops(rows, width, rank) * 2 <= MOST_EXACT_FLOPS
        truth = linear(*(each.to(torch.float64 if exact else torch.float32) for each in (x, a)))
        truth = linear(truth, b.to(truth.dtype))
    moved = dtype.itemsize * 2 * rows * width
    dense = Work(flops=product_flops(rows, width, width), bytes=moved + dtype.itemsize * width * width)
    pair = Work(
        flops=2 * product_flops(rows, width, rank), bytes=moved + dtype.itemsize * 2 * rank * (width + rows)
    )
    arms = [
        Arm(name=DENSE, call=partial(linear, x, weight), work=dense),
        Arm(name=PAIR, call=lambda: linear(linear(x, a), b), work=pair),
        Arm(name=OPERATOR, call=lambda: torch.ops.stone.low_rank_linear_forward(x, a, b, None), work=pair),
    ]
    left_out: dict[str, str] = {}
    if device == "cuda":
        arms, left_out = with_graphs(arms, (DENSE, PAIR))
    return Case(
        name=name,
        arms=arms,
        truth=[truth],
        left_out=left_out,
        synchronize=torch.cuda.synchronize if device == "cuda" else None,
        facts=partial(_facts, machine or _machine(device), cell, dtype.itemsize),
    )


def _machine(device: str) -> Machine:
    if os.environ.get("STONEFX_MACHINE") == "default":
        return Machine.of(torch.device(device))
    return machines.facts(torch.device(device))


def _facts(machine: Machine, cell: Cell, itemsize: int, result: CaseResult) -> dict[str, Any]:
    """The fastest arm, and for plain calls and graphs what the model picked and how far that is from the faster one."""
    seconds = {arm.name: arm.seconds for arm in result.arms}
    picks = {}
    for how, facts in (("", machine), (GRAPH, machine.in_graph())):
        if DENSE + how in seconds and PAIR + how in seconds:
            rows, width, rank = cell
            dense = facts.linear_seconds(rows, width, width, itemsize)
            pair = facts.pair_seconds(rows, width, rank, width, itemsize)
            picked = (PAIR if pair < dense else DENSE) + how
            best = min(seconds[DENSE + how], seconds[PAIR + how])
            picks[picked] = {
                "predicted": {DENSE: dense, PAIR: pair},
                "over_fastest": seconds[picked] / best,
            }
    return {"fastest": min(seconds, key=lambda name: seconds[name]), "picks": picks}


def low_rank_table(results: Sequence[CaseResult]) -> str:
    """Times, the fastest arm and the model's picks of each cell; the share of picks within 5 % of the faster arm."""
    names = list(dict.fromkeys(arm.name for result in results for arm in result.arms))
    rows: list[list[str]] = []
    for result in results:
        seconds = {arm.name: seconds_text(arm.seconds) for arm in result.arms}
        picks = result.facts["picks"]
        mark = " (noisy)" if result.noisy else ""
        rows.append(
            [
                result.name + mark,
                *(seconds.get(name, "") for name in names),
                result.facts["fastest"],
                "; ".join(picks),
            ]
        )
    text = table(rows, ["cell", *names, "fastest", "the model's picks"])
    return "\n".join([text, *shares(result.facts for result in results)])


def shares(facts: Iterable[Mapping[str, Any]]) -> list[str]:
    """How often the model picked within 5 % of the faster of dense and pair: a line for calls, one for graphs.

    >>> shares([{"picks": {"pair": {"over_fastest": 1.0}, "dense, CUDA graph": {"over_fastest": 1.2}}}])[0]
    "in calls the model's pick is within 5 % of the faster of dense and pair in 100% of 1 cells"
    """
    ratios: dict[str, list[float]] = {"in calls": [], "in CUDA graphs": []}
    for each in facts:
        for name, pick in each["picks"].items():
            ratios["in CUDA graphs" if name.endswith(GRAPH) else "in calls"].append(pick["over_fastest"])
    return [
        f"{where} the model's pick is within 5 % of the faster of dense and pair in "
        f"{sum(ratio <= NEAR for ratio in found) / len(found):.0%} of {len(found)} cells"
        for where, found in ratios.items()
        if found
    ]
