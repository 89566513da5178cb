"""Timing of several arms in one process: interleaved, calibrated, with medians and paired ratios.

Every round times each arm once, in a new random order, so that a slow moment of the machine falls on all
arms alike. A speed-up is the median of the ratios of one round, not the ratio of two medians. A round
whose spin sample (see `load.py`) shows a stolen core is thrown away and repeated.
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from stonefx.benchmarks.case import (
    Arm,
    ArmResult,
    Case,
    CaseResult,
    Settings,
    median_interval,
    quartiles,
    relative_difference,
)
from stonefx.benchmarks.cuda_events import Sampled

Clock = Callable[[], float]
# Gives the seconds a call of so many calls in a row.
Timer = Callable[[Callable[[], Any], int], Sampled]


def measure(
    case: Case,
    settings: Settings | None = None,
    *,
    spin: Callable[[], object] | None = None,
    quiet: float = math.inf,
    clock: Clock = time.perf_counter,
    evict: Callable[[], object] = lambda: None,
    on_round: Callable[[], object] = lambda: None,
    peak: Callable[[Callable[[], Any]], int] | None = None,
    timer: Timer | None = None,
) -> CaseResult:
    """Time all arms of a case.

    Args:
        case: what to time.
        settings: how long; the defaults suit calls from a microsecond to a few hundred milliseconds.
        spin: a fixed piece of work on all threads, timed in every round; None switches the check off.
        quiet: seconds that the spin takes on a quiet machine; where it never comes within twice of that, every
            round counts as disturbed.
        clock: seconds, monotonic.
        evict: fills the caches with something else, where the settings want them cold.
        on_round: called after each round that was kept, for a progress bar.
        peak: gives the most bytes that a call allocates; None where that is not wanted.
        timer: times a sample, such as an `EventTimer`; None: by the clock, between two waits for the device.

    Returns:
        Medians, quartiles, paired speed-ups with their intervals, peaks of memory and differences from float64.
        `noisy` is set where more than a third of the rounds were disturbed.

    Raises:
        ValueError: the case has no arm, or an arm returns another shape than the truth.

    >>> case = Case(name="neg", arms=[Arm(name="eager", call=lambda: -torch.ones(2))],
    ...             truth=[-torch.ones(2, dtype=torch.float64)])
    >>> measure(case, Settings(rounds=3, seconds=1)).arms[0].error
    0.0
    """
    settings = settings or Settings()
    sample_seconds = settings.sample_seconds if case.sample_seconds is None else case.sample_seconds
    if not case.arms:
        raise ValueError(f"case {case.name!r} has no arm; give it at least one")
    wait = case.synchronize or (lambda: None)

    def by_clock(call: Callable[[], Any], count: int) -> Sampled:
        return Sampled(_sample(call, count, clock, wait))

    timer = timer or by_clock
    collecting = gc.isenabled()
    gc.disable()
    try:
        with torch.set_grad_enabled(case.grad):
            warm = {arm.name: _warm_up(arm, case.truth, settings.warmup, clock, wait) for arm in case.arms}
            counts = {arm.name: 1 for arm in case.arms}
            if not settings.cold:
                counts = {arm.name: _calibrate(arm.call, sample_seconds, timer) for arm in case.arms}
            rounds, disturbed = _rounds(
                case, settings, counts, spin, quiet, clock, wait, evict, on_round, timer
            )
            peaks = {arm.name: peak(arm.call) for arm in case.arms if peak is not None and arm.allocates}
    finally:
        if collecting:
            gc.enable()

    samples = {arm.name: [one[arm.name].seconds for one in rounds] for arm in case.arms}
    hosts = {
        arm.name: [host for one in rounds if (host := one[arm.name].host) is not None] for arm in case.arms
    }
    baseline = samples[case.arms[0].name]
    arms = []
    works = {arm.name: arm.work for arm in case.arms}
    for name, times in samples.items():
        ratios = [base / own for base, own in zip(baseline, times, strict=True)]
        first, error = warm[name]
        arms.append(
            ArmResult(
                name=name,
                seconds=statistics.median(times),
                quartiles=quartiles(times),
                speedup=statistics.median(ratios),
                error=error,
                calls_per_sample=counts[name],
                interval=median_interval(ratios),
                first_seconds=first,
                peak_bytes=peaks.get(name),
                work=works[name],
                host_seconds=statistics.median(hosts[name]) if hosts[name] else None,
            )
        )
    result = CaseResult(
        name=case.name,
        arms=arms,
        rounds=len(rounds),
        disturbed=disturbed,
        noisy=3 * disturbed > len(rounds) + disturbed,
        samples=samples,
        left_out=dict(case.left_out),
    )
    return replace(result, facts=case.facts(result)) if case.facts else result


def _warm_up(
    arm: Arm, truth: Sequence[torch.Tensor], calls: int, clock: Clock, wait: Callable[[], None]
) -> tuple[float, float]:
    """Let compilers compile; the seconds of the first call, and the difference of the last result from the truth."""
    start = clock()
    result = arm.call()
    wait()
    first = clock() - start + arm.prepared_seconds
    for _ in range(calls - 1):
        result = arm.call()
    return first, relative_difference(result, truth)


def _calibrate(call: Callable[[], Any], seconds: float, timer: Timer) -> int:
    """How many calls one sample needs: doubled until it lasts long enough."""
    count = 1
    while timer(call, count).seconds * count < seconds and count < 1 << 20:
        count *= 2
    return count


def _sample(call: Callable[[], Any], count: int, clock: Clock, wait: Callable[[], None]) -> float:
    wait()
    start = clock()
    for _ in range(count):
        call()
    wait()
    return (clock() - start) / count


def _spin_seconds(spin: Callable[[], object] | None, clock: Clock, wait: Callable[[], None]) -> float:
    """The quicker of two spins: the first one also fetches what a large arm pushed out of the caches."""
    return min(_sample(spin, 1, clock, wait) for _ in range(2)) if spin else 0.0


def _rounds(
    case: Case,
    settings: Settings,
    counts: dict[str, int],
    spin: Callable[[], object] | None,
    quiet: float,
    clock: Clock,
    wait: Callable[[], None],
    evict: Callable[[], object],
    on_round: Callable[[], object],
    timer: Timer,
) -> tuple[list[dict[str, Sampled]], int]:
    """Seconds of each arm by round, and how many rounds were thrown away.

    A disturbed round is kept when there would otherwise be fewer than `min_rounds`.
    """
    order = random.Random(settings.seed)
    taken: list[tuple[float, dict[str, Sampled]]] = []
    fastest = min((_sample(spin, 1, clock, wait) for _ in range(20)), default=0.0) if spin else 0.0
    fastest = min(fastest, 2 * quiet)
    start = clock()
    while True:
        undisturbed = sum(spun <= settings.stolen * fastest for spun, _ in taken)
        late = clock() - start > settings.seconds
        if undisturbed >= settings.rounds or (late and len(taken) >= settings.min_rounds):
            break
        arms = list(case.arms)
        order.shuffle(arms)
        before = _spin_seconds(spin, clock, wait)
        times = {}
        for arm in arms:
            if settings.cold:
                evict()
            times[arm.name] = timer(arm.call, counts[arm.name])
        after = _spin_seconds(spin, clock, wait)
        fastest = min(fastest, before, after)
        taken.append((max(before, after), times))
        on_round()
    kept = [times for spun, times in taken if spun <= settings.stolen * fastest]
    disturbed = len(taken) - len(kept)
    if len(kept) < settings.min_rounds:
        taken.sort(key=lambda one: one[0])
        kept = [times for _, times in taken[: settings.min_rounds]]
    return kept, disturbed
