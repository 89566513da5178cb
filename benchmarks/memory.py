"""Peak memory and time of `stonefx.optimize`: `python -m stonefx.benchmarks.memory --json out.json`.

Each case runs in a process of its own. The model is a row of blocks, each two linear layers that become one, with an
activation behind; its size is the bytes of all weights, its sites the number of blocks.
"""

from __future__ import annotations

import datetime
import gc
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from tabulate import tabulate
from torch import nn

import stonefx
from stonefx.benchmarks.machine import machine_facts
from stonefx.files import write_atomically

MIB = 2**20
SIZES = (100, 500, 2000)
SITES = (10, 50, 200)
MODES = ("copy", "inplace")


@dataclass(frozen=True)
class Case:
    """One measurement.

    Args:
        mib: weights of the model.
        sites: pairs of layers that are merged.
        mode: "copy", or "inplace" for `inplace=True`.
        verify: as of `optimize`.
    """

    mib: int
    sites: int
    mode: str = "copy"
    verify: bool = True

    @property
    def width(self) -> int:
        """Of the model: `8 width**2` floats are one site."""
        return max(8, int((self.mib * MIB / (4 * 8 * self.sites)) ** 0.5))

    def example(self) -> torch.Tensor:
        """An example input."""
        return torch.ones(4, self.width)

    def model(self) -> nn.Sequential:
        """Blocks of a layer `width -> 4 width` and one back."""
        width = self.width
        blocks = (
            [nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.Tanh()] for _ in range(self.sites)
        )
        return nn.Sequential(*(layer for block in blocks for layer in block)).eval()


@dataclass(frozen=True)
class Measured:
    """What one case needed, in MiB and seconds: `peak` and `kept` are above what the process had before, with the
    model in it.
    """

    weights: float
    result: float
    peak: float
    kept: float
    seconds: float

    @property
    def ratio(self) -> float:
        """The peak over the model's weights."""
        return self.peak / self.weights


def measure(case: Case) -> Measured:
    """Optimize the model of a case in this process."""
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):
        # Imports, and what torch and stonefx set up once.
        stonefx.optimize(Case(1, 2).model(), Case(1, 2).example())
        model = case.model()
        weights = sum(parameter.nbytes for parameter in model.parameters())
        example = case.example()
        gc.collect()
        before = resident()
        start = time.perf_counter()
        with watched() as peak:
            fast = stonefx.optimize(model, example, verify=case.verify, inplace=case.mode == "inplace")
        seconds = time.perf_counter() - start
    gc.collect()
    result = sum(parameter.nbytes for parameter in fast.parameters())
    # Of a model that was taken over, the weights that went are memory gained.
    sizes = [size / MIB for size in (weights, result, peak[0] - before, resident() - before)]
    return Measured(sizes[0], sizes[1], sizes[2], sizes[3], seconds)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def watched(interval: float = 0.001) -> Iterator[list[int]]:
    """Watch the memory of this process; gives a list with its peak."""
    peak = [resident()]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(interval):
            peak[0] = max(peak[0], resident())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def in_fresh_process(case: Case) -> Measured:
    """Measure a case in a process that has done nothing else.

    Raises:
        RuntimeError: the process failed, with what it printed.
    """
    # Freed weights go back to the system at once, so that what is resident is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "stonefx.benchmarks.memory", "--one", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{case} failed:\n{done.stderr[-2000:]}")
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def table(results: dict[Case, Measured]) -> str:
    """One row a case."""
    rows = [
        (case.mib, case.sites, case.mode, one.weights, one.result, one.peak, one.ratio, one.kept, one.seconds)
        for case, one in results.items()
    ]
    headers = ("MiB", "sites", "mode", "weights", "result", "peak", "peak / weights", "kept", "seconds")
    return tabulate(rows, headers=headers, floatfmt=("", "", "", ".0f", ".0f", ".0f", ".2f", ".0f", ".1f"))


def document(results: dict[Case, Measured]) -> dict[str, Any]:
    """Everything measured in JSON's own types."""
    return {
        "schema": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "cases": [asdict(case) | asdict(one) | {"ratio": one.ratio} for case, one in results.items()],
    }


@click.command()
@click.option(
    "--mib", type=int, multiple=True, default=SIZES, show_default=True, help="Weights of the models."
)
@click.option("--sites", type=int, multiple=True, default=SITES, show_default=True, help="Pairs of layers.")
@click.option("--mode", type=click.Choice(MODES), multiple=True, default=MODES, show_default=True)
@click.option("--verify/--no-verify", default=True, help="Verify as `optimize` does by default.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the results here."
)
@click.option("--one", hidden=True, help="Measure this case in this process, and print it as JSON.")
def main(
    mib: tuple[int, ...],
    sites: tuple[int, ...],
    mode: tuple[str, ...],
    verify: bool,
    path: Path | None,
    one: str | None,
) -> None:
    """Measure peak memory and time of optimize, each case in a fresh process."""
    if one is not None:
        click.echo(json.dumps(asdict(measure(Case(**json.loads(one))))))
        return
    cases = [Case(size, count, how, verify) for how in mode for size in mib for count in sites]
    results: dict[Case, Measured] = {}
    for case in cases:
        results[case] = in_fresh_process(case)
        click.echo(
            f"{case}: {results[case].ratio:.2f} of the weights, {results[case].seconds:.1f} s", err=True
        )
        if path is not None:
            write_atomically(path, json.dumps(document(results), indent=2) + "\n")
    click.echo(table(results))


if __name__ == "__main__":
    main()
