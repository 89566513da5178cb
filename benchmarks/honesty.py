"""Does the harness tell the truth? The same call against itself, and against itself made a tenth slower.

`python -m stonefx.benchmarks.honesty` runs both on this machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import click
import torch
from tqdm import tqdm

from stonefx.benchmarks.case import Arm, Case, CaseResult, Settings
from stonefx.benchmarks.load import load_average
from stonefx.benchmarks.machine import machine_facts
from stonefx.benchmarks.run import measure_watched
from stonefx.benchmarks.suites.chain import seed_chain

# By how much the slower call takes longer, and what its speed-up is then.
_SLOWDOWN = 0.10
_SLOWER = 1 / (1 + _SLOWDOWN)
_BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Honesty:
    """What many measurements of known ratios said.

    Args:
        runs: how many of each kind.
        equal: of the call against itself, in how many the interval of the speed-up held 1.
        found: of the call against the slower one, in how many the interval lay below 1.
        held: of these, in how many it held the true ratio.
        noisy: in how many the load check said that nothing can be told.
    """

    runs: int
    equal: int
    found: int
    held: int
    noisy: int

    def __str__(self) -> str:
        return (
            f"A against A: 1 lies in the interval of {self.equal} of {self.runs} runs\n"
            f"A against A made {_SLOWDOWN:.0%} slower: found in {self.found} of {self.runs} runs; "
            f"the true ratio lies in the interval of {self.held}\n"
            f"noisy: {self.noisy} of {2 * self.runs} runs"
        )


def honesty(
    runs: int,
    settings: Settings,
    measure: Callable[[Case, Settings], CaseResult] = measure_watched,
    on_run: Callable[[], object] = lambda: None,
) -> Honesty:
    """Measure a chain of linear layers against itself, and against itself with a wait of a tenth of its time.

    Args:
        runs: how often, each.
        settings: of each run.
        measure: the harness.
        on_run: called after each run.
    """
    model, x = seed_chain().eval(), torch.randn(_BATCH, 128, generator=torch.Generator().manual_seed(0))
    truth = [model.double()(x.double()).detach()]
    model.float()

    def call() -> torch.Tensor:
        return model(x)

    def slower() -> torch.Tensor:
        start = time.perf_counter()
        result = model(x)
        # In proportion to this very call, so that the ratio is known however slow the machine is at the moment.
        until = start + (time.perf_counter() - start) * (1 + _SLOWDOWN)
        while time.perf_counter() < until:
            pass
        return result

    equal = found = held = noisy = 0
    for run in range(runs):
        for kind, other in (("equal", call), ("slower", slower)):
            arms = [Arm(name="A", call=call), Arm(name="B", call=other)]
            result = measure(
                Case(name=f"{kind} {run}", arms=arms, truth=truth),
                Settings(**asdict(settings) | {"seed": run}),
            )
            interval = result.arms[1].interval
            assert interval is not None
            noisy += result.noisy
            if kind == "equal":
                equal += interval[0] <= 1 <= interval[1]
            else:
                found += interval[1] < 1
                held += interval[0] <= _SLOWER <= interval[1]
            on_run()
    return Honesty(runs=runs, equal=equal, found=found, held=held, noisy=noisy)


@click.command(help=__doc__)
@click.option("--runs", type=click.IntRange(min=1), default=100, show_default=True, help="Of each kind.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--rounds", type=click.IntRange(min=7), default=100, show_default=True)
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write the result to this file.")
def main(runs: int, seconds: float, rounds: int, path: str | None) -> None:
    load = load_average()
    with tqdm(total=2 * runs, unit=" runs", disable=None, leave=False) as bar, torch.no_grad():
        result = honesty(runs, Settings(seconds=seconds, rounds=rounds), on_run=bar.update)
    click.echo(str(result))
    if path is not None:
        from stonefx.files import write_atomically

        document: dict[str, Any] = {"machine": machine_facts(), "load_before": load, **asdict(result)}
        write_atomically(path, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
