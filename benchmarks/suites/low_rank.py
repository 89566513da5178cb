"""Where a product by low rank breaks even: dense, a pair of linear maps, our operator, and CUDA graphs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
from stonefx.passes.cost.gpu_times import GpuTimes
from stonefx.passes.cost.machine import Machine
from stonefx.terminal import table

ROWS, WIDTHS = (1, 16, 256, 4096, 65536), (1024, 4096, 16384)
RANKS = (16, 64, 256, 1024, 2048)
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
CPU_CELLS = ((1, 256, 16), (64, 256, 16), (64, 256, 128))
# A dense product of more would take longer than a cell may.
MOST_FLOPS = {4: 3e12, 2: 4e13}
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
    for dtype in dtypes:
        for rows, width, rank in cells:
            if product_flops(rows, width, width) <= MOST_FLOPS[dtype.itemsize]:
                name = f"{str(dtype).removeprefix('torch.')} rows {rows} width {width} rank {rank}"
                yield Planned(
                    name=name, make=partial(_case, name, device, dtype, (rows, width, rank), machine)
                )


def _all_cells() -> list[Cell]:
    return [(rows, width, rank) for width in WIDTHS for rows in ROWS for rank in RANKS if rank < width]


def _case(name: str, device: str, dtype: torch.dtype, cell: Cell, machine: Machine | None) -> Case:
    rows, width, rank = cell
    source = torch.Generator(device).manual_seed(0)
    x, a, b = (
        torch.randn(shape, generator=source, device=device).mul_(shape[1] ** -0.5).to(dtype)
        for shape in ((rows, width), (rank, width), (width, rank))
    )
    weight = b @ a
    with torch.no_grad():
        truth = linear(linear(x.double(), a.double()), b.double())
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
    for how, facts in (("", machine), (GRAPH, _in_graph(machine))):
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


def _in_graph(machine: Machine) -> Machine:
    """The same machine where the host has nothing to do."""
    times = {
        name: replace(found, launch=0.0)
        for name in ("single", "half")
        if isinstance(found := getattr(machine, name), GpuTimes)
    }
    return replace(machine, **times)


def low_rank_table(results: Sequence[CaseResult]) -> str:
    """Times, the fastest arm and the model's picks of each cell; the share of picks within 5 % of the faster arm."""
    names = list(dict.fromkeys(arm.name for result in results for arm in result.arms))
    rows, ratios = [], []
    for result in results:
        seconds = {arm.name: seconds_text(arm.seconds) for arm in result.arms}
        picks = result.facts["picks"]
        ratios += [pick["over_fastest"] for pick in picks.values()]
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
    if not ratios:
        return text
    share = sum(ratio <= NEAR for ratio in ratios) / len(ratios)
    return (
        f"{text}\nthe model's pick is within 5 % of the faster of dense and pair "
        f"in {share:.0%} of {len(ratios)} picks"
    )
