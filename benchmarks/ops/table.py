"""The results of the suite `ops`, one line a case: how many times the time of ours the others take."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean, median

from stonefx.benchmarks.case import CaseResult
from stonefx.benchmarks.ops.rowwise import ROWWISE
from stonefx.benchmarks.ops.steps import OWN
from stonefx.benchmarks.results import seconds_text
from stonefx.terminal import table


def ops_table(results: Sequence[CaseResult]) -> str:
    """A table, the geometric mean over the rowwise operators against inductor, and what a call costs."""
    rows = []
    for result in results:
        seconds = next(arm.seconds for arm in result.arms if arm.name == OWN)
        others = ", ".join(f"{name} {ratio:.3g}x" for name, ratio in result.facts["ratios"].items())
        failed = ", ".join(f"{name} fails" for name in result.facts["left_out"])
        mark = " (noisy)" if result.noisy else ""
        rows.append([result.name + mark, seconds_text(seconds), ", ".join(filter(None, [others, failed]))])
    lines = [table(rows, ["operator", OWN, f"time of the others over that of {OWN}"])]
    for mode in ("forward", "forward+backward"):
        against = [
            result.facts["ratios"]["inductor"]
            for result in results
            if "inductor" in result.facts["ratios"]
            and result.name.split(" [")[0] in ROWWISE
            and result.name.endswith(f" {mode}")
        ]
        if against:
            lines.append(
                f"{mode}: geometric mean of {len(against)} rowwise cases against inductor "
                f"{geometric_mean(against):.2f}x, least {min(against):.2f}x"
            )
    shares = [result.facts["share_of_copy"] for result in results if "share_of_copy" in result.facts]
    if shares:
        lines.append(
            f"share of the bandwidth of a copy: median {median(shares):.0%} of {len(shares)} cases, "
            f"least {min(shares):.0%}"
        )
    beyond = [
        result.facts["seconds_beyond_tanh"] for result in results if "seconds_beyond_tanh" in result.facts
    ]
    if beyond:
        lines.append(
            f"a call: {seconds_text(median(beyond))} more than torch.tanh in the middle of {len(beyond)} "
            f"operators, at most {seconds_text(max(beyond))}"
        )
    return "\n".join(lines)
