"""Measure every case of a suite, with a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable

from tqdm import tqdm

from stonefx.benchmarks.case import Case, CaseResult, Settings
from stonefx.benchmarks.harness import measure
from stonefx.benchmarks.load import parallel_spin, quiet_spin_seconds
from stonefx.benchmarks.suites import SUITES


def measure_watched(
    case: Case, settings: Settings | None = None, on_round: Callable[[], object] = lambda: None
) -> CaseResult:
    """Measure one case while watching for other programs on the cores; arguments as for `measure`."""
    return measure(case, settings, spin=parallel_spin(), quiet=quiet_spin_seconds(), on_round=on_round)


def run_suite(name: str, device: str = "cpu", settings: Settings | None = None) -> list[CaseResult]:
    """Measure one suite.

    Args:
        name: a key of `SUITES`.
        device: "cpu" or "cuda".
        settings: how long.

    Raises:
        KeyError: there is no such suite.
    """
    results = []
    # `disable=None` leaves the bar out where the output is no terminal.
    with tqdm(desc=name, unit=" rounds", disable=None, leave=False) as bar:
        for case in SUITES[name](device):
            bar.set_postfix_str(case.name)
            results.append(measure_watched(case, settings, bar.update))
    return results
