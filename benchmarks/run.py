"""Measure every case of a suite, with a progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import torch
from tqdm import tqdm

from stonefx.benchmarks.allocations import peak_bytes
from stonefx.benchmarks.case import Case, CaseResult, Planned, Settings
from stonefx.benchmarks.cuda_events import EventTimer, cache_flush
from stonefx.benchmarks.engines import with_engines
from stonefx.benchmarks.harness import measure
from stonefx.benchmarks.load import ONE_THREAD, cache_eviction, parallel_spin, quiet_spin_seconds
from stonefx.benchmarks.suites import SUITES


class UnknownCase(ValueError):
    """A suite has no case of a name that was asked for."""


def measure_watched(
    case: Case,
    settings: Settings | None = None,
    on_round: Callable[[], object] = lambda: None,
    device: str = "cpu",
) -> CaseResult:
    """Measure one case while watching for other programs on the cores; arguments as for `measure`.

    On CUDA the seconds are those of events, and one core is watched: that which launches.
    """
    cold = settings is not None and settings.cold
    if device == "cuda":
        share = max(1, ONE_THREAD // torch.get_num_threads())
        return measure(
            case,
            settings,
            spin=parallel_spin(share),
            quiet=quiet_spin_seconds(share * torch.get_num_threads()),
            on_round=on_round,
            peak=partial(peak_bytes, device=device),
            timer=EventTimer(cache_flush(), cold=cold),
        )
    return measure(
        case,
        settings,
        spin=parallel_spin(),
        quiet=quiet_spin_seconds(),
        evict=cache_eviction(device) if cold else lambda: None,
        on_round=on_round,
        peak=partial(peak_bytes, device=device),
    )


def run_suite(
    name: str,
    device: str = "cpu",
    settings: Settings | None = None,
    *,
    only: Collection[str] = (),
    done: Collection[str] = (),
    engines: Sequence[str] = (),
    on_result: Callable[[CaseResult], object] = lambda result: None,
    on_failure: Callable[[str, Exception], object] | None = None,
) -> list[CaseResult]:
    """Measure one suite.

    Args:
        name: a key of `SUITES`.
        device: "cpu" or "cuda".
        settings: how long.
        only: names of the cases wanted; all where it is empty.
        done: names of cases that need not be measured again.
        engines: keys of `ENGINES` whose arms are added where a case has a model.
        on_result: called with each result as it is there.
        on_failure: called with the name and the error of a case that fails, and the next one follows; None: it raises.

    Raises:
        KeyError: there is no such suite.
        UnknownCase: the suite has no case of a name in `only`; the message lists those that it has.
    """
    results, seen = [], []
    # `disable=None` leaves the bar out where the output is no terminal.
    with tqdm(desc=name, unit=" rounds", disable=None, leave=False) as bar:
        for item in SUITES[name](device):
            seen.append(item.name)
            if item.name in done or (only and item.name not in only):
                continue
            bar.set_postfix_str(f"{item.name}, compiling")
            try:
                case = with_engines(item.make() if isinstance(item, Planned) else item, engines)
                bar.set_postfix_str(case.name)
                results.append(measure_watched(case, settings, bar.update, device))
            except Exception as error:
                if on_failure is None:
                    raise
                on_failure(item.name, error)
                continue
            on_result(results[-1])
    if unknown := [wanted for wanted in only if wanted not in seen]:
        raise UnknownCase(f"suite {name!r} has no case {unknown[0]!r}; it has {', '.join(seen)}")
    return results
