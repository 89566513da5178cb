"""Measure every case of a suite, with a progress bar on a terminal."""

from __future__ import annotations

from tqdm import tqdm

from stonefx.benchmarks.case import CaseResult, Settings
from stonefx.benchmarks.harness import measure
from stonefx.benchmarks.load import parallel_spin
from stonefx.benchmarks.suites import SUITES


def run_suite(name: str, device: str = "cpu", settings: Settings | None = None) -> list[CaseResult]:
    """Measure one suite.

    Args:
        name: a key of `SUITES`.
        device: "cpu" or "cuda".
        settings: how long.

    Raises:
        KeyError: there is no such suite.
    """
    settings = settings or Settings()
    spin = parallel_spin()
    results = []
    # `disable=None` leaves the bar out where the output is no terminal.
    with tqdm(desc=name, unit=" rounds", disable=None, leave=False) as bar:
        for case in SUITES[name](device):
            bar.set_postfix_str(case.name)
            results.append(measure(case, settings, spin=spin, on_round=bar.update))
    return results
