"""The table of the zoo: one row an architecture, speed against inductor, agreement with float64."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean

from stonefx.benchmarks.case import CaseResult
from stonefx.benchmarks.results import seconds_text
from stonefx.terminal import table

_DOORS = ("optimize", "compile(stone)")
# What the measuring itself may differ by: below it an arm counts as slower.
SLOWER = 0.97


def zoo_table(results: Sequence[CaseResult]) -> str:
    """Eager's and inductor's time, both doors against inductor, sites, and whether errors are within the bound.

    Args:
        results: of the suite `zoo`.

    >>> print(zoo_table([]))
    nothing was measured
    """
    if not results:
        return "nothing was measured"
    rows = [_row(result) for result in results]
    means = [geometric_mean([result.facts[door]["vs_inductor"] for result in results]) for door in _DOORS]
    rows.append(("geometric mean", "", "", *(f"{mean:.2f}x" for mean in means), "", "", ""))
    headers = (
        "model",
        "eager",
        "inductor",
        *(f"{door} vs inductor" for door in _DOORS),
        "sites",
        "error",
        "agrees",
    )
    return "\n".join([table(rows, headers), *_remarks(results)])


def _row(result: CaseResult) -> tuple[str, ...]:
    arms = {arm.name: arm for arm in result.arms}
    facts = [result.facts[door] for door in _DOORS]
    sites = facts[0]["sites"]
    return (
        result.name + (" (noisy)" if result.noisy else ""),
        seconds_text(arms["eager"].seconds),
        seconds_text(arms["inductor"].seconds),
        *(f"{fact['vs_inductor']:.2f}x" for fact in facts),
        f"{sites.get('rewritten', 0)} of {sum(sites.values())}",
        f"{max(arms[door].error for door in _DOORS):.1e} / {max(fact['allowed'] for fact in facts):.1e}",
        "yes" if all(fact["agrees"] for fact in facts) else "NO",
    )


def _remarks(results: Sequence[CaseResult]) -> list[str]:
    """Which architectures are slower than inductor or disagree; a sentence each door."""
    lines = []
    for door in _DOORS:
        slow = [result.name for result in results if result.facts[door]["vs_inductor"] < SLOWER]
        wrong = [result.name for result in results if not result.facts[door]["agrees"]]
        lines.append(f"{door}: below {SLOWER}x of inductor on {len(slow)} of {len(results)}" + _named(slow))
        lines += [f"{door}: beyond the bound on {', '.join(wrong)}"] if wrong else []
    return lines


def _named(names: Sequence[str]) -> str:
    return f": {', '.join(names)}" if names else ""
