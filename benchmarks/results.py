"""Measured cases as a table and as a JSON document."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from stonefx.benchmarks.allocations import HOW, bytes_text
from stonefx.benchmarks.case import CaseResult, Settings
from stonefx.terminal import table

SCHEMA = 1
_UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9))


def seconds_text(seconds: float) -> str:
    """A time in three digits with its unit.

    >>> [seconds_text(t) for t in (1.5e-6, 0.00042, 2.0)]
    ['1.50 us', '420 us', '2.00 s']
    """
    unit, limit = next((one for one in _UNITS if seconds >= one[1]), _UNITS[-1])
    return f"{seconds / limit:#.3g}".rstrip(".") + f" {unit}"


def interval_text(interval: tuple[float, float]) -> str:
    """An interval of ratios.

    >>> interval_text((2.284, 2.351))
    '2.28 to 2.35'
    """
    return " to ".join(f"{end:.2f}" for end in interval)


def result_table(results: Sequence[CaseResult]) -> str:
    """One table of all cases: time a call, spread (half the interquartile range), first call, speed-up, error.

    Args:
        results: of one suite; the first arm of each case is the baseline of its speed-ups.

    >>> print(result_table([]))
    nothing was measured
    """
    if not results:
        return "nothing was measured"
    rows = []
    for result in results:
        for position, arm in enumerate(result.arms):
            low, high = arm.quartiles
            rows.append(
                (
                    result.name if position == 0 else "",
                    arm.name,
                    seconds_text(arm.seconds),
                    f"+-{50 * (high - low) / arm.seconds:.0f} %" if arm.seconds else "",
                    "" if arm.first_seconds is None else seconds_text(arm.first_seconds),
                    f"{arm.speedup:.2f}x",
                    "" if arm.interval is None or position == 0 else interval_text(arm.interval),
                    bytes_text(arm.peak_bytes),
                    "nan" if math.isnan(arm.error) else f"{arm.error:.1e}",
                )
            )
    headers = (
        "case",
        "arm",
        "a call",
        "spread",
        "first call",
        f"vs {results[0].arms[0].name}",
        "95 %",
        "memory",
        "error",
    )
    noisy = [_remark(result) for result in results if result.noisy]
    return "\n".join([table(rows, headers, right=range(2, len(headers))), *noisy])


def left_out_lines(results: Sequence[CaseResult]) -> list[str]:
    """A line for each arm that was left out and each reason, with the cases where they are not all."""
    cases: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for arm, reason in result.left_out.items():
            cases.setdefault((arm, reason), []).append(result.name)
    lines = []
    for (arm, reason), names in cases.items():
        of = "" if len(names) == len(results) else f" of {', '.join(names)}"
        lines.append(f"{arm} left out{of}: {reason}")
    return lines


def _remark(result: CaseResult) -> str:
    return (
        f"noisy: in {result.name}, {result.disturbed} rounds were thrown away because a core was taken by "
        f"another program ({result.rounds} kept); run it again on a quiet machine"
    )


def result_document(
    suites: dict[str, list[CaseResult]],
    machine: dict[str, Any],
    settings: Settings,
    load: float | None,
    ceilings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Everything measured in JSON's own types; times in seconds. A case of another commit than `machine` names its own.

    Args:
        suites: suite name -> its cases.
        machine: as `machine_facts` gives it.
        settings: how it was measured.
        load: load average before the run.
        ceilings: what the machine can do, as `roofline.ceilings` gives it.
    """
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine,
        "load_before": load,
        "settings": asdict(settings),
        **({} if ceilings is None else {"ceilings": ceilings}),
        "measured": HOW,
        "suites": {
            name: [_case(result, machine.get("commit")) for result in results]
            for name, results in suites.items()
        },
    }


def _case(result: CaseResult, commit: str | None) -> dict[str, Any]:
    return {
        "case": result.name,
        **({"commit": result.commit} if result.commit not in (None, commit) else {}),
        "rounds": result.rounds,
        "disturbed": result.disturbed,
        "noisy": result.noisy,
        **({"facts": result.facts} if result.facts else {}),
        **({"left_out": dict(result.left_out)} if result.left_out else {}),
        "arms": [
            {
                "arm": arm.name,
                "seconds": arm.seconds,
                "quartiles": list(arm.quartiles),
                "speedup": arm.speedup,
                "error": arm.error if math.isfinite(arm.error) else str(arm.error),
                "calls_per_sample": arm.calls_per_sample,
                "interval": None if arm.interval is None else list(arm.interval),
                "first_seconds": arm.first_seconds,
                "peak_bytes": arm.peak_bytes,
                **({} if arm.host_seconds is None else {"host_seconds": arm.host_seconds}),
                **({} if arm.work is None else asdict(arm.work)),
            }
            for arm in result.arms
        ],
    }
