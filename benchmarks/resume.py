"""Results that grow case by case in one JSON file, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from stonefx.benchmarks.case import ArmResult, CaseResult, Work
from stonefx.benchmarks.results import SCHEMA


class OtherMachine(ValueError):
    """The file was measured somewhere else, or with other threads."""


def earlier_results(path: Path, machine: dict[str, Any]) -> dict[str, list[CaseResult]]:
    """The results in a file by suite; none where there is no file. Single samples are not in it.

    Args:
        path: as written from `result_document`.
        machine: where the rest will be measured, as `machine_facts` gives it.

    Raises:
        OtherMachine: what is in the file cannot stand beside what will be measured; the message says why.
    """
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise OtherMachine(f"{path} is no JSON that stonefx bench wrote; choose another file")
    if document.get("schema") != SCHEMA:
        raise OtherMachine(
            f"{path} has schema {document.get('schema')}, expected {SCHEMA}; choose another file"
        )
    for name in ("cpu", "cores", "threads", "torch", "gpu"):
        before, now = document["machine"].get(name), machine.get(name)
        if before != now:
            raise OtherMachine(
                f"{path} was measured with {name} {before}, this run has {name} {now}; choose another file"
            )
    commit = document["machine"].get("commit")
    return {suite: [_result(case, commit) for case in cases] for suite, cases in document["suites"].items()}


def merged_results(
    earlier: dict[str, list[CaseResult]], name: str, new: CaseResult
) -> dict[str, list[CaseResult]]:
    """The results with one more in suite `name`, in place of an earlier one of the same case.

    >>> one = CaseResult(name="a", arms=[], rounds=1, disturbed=0, noisy=False, samples={})
    >>> [result.name for result in merged_results({"chain": [one]}, "chain", one)["chain"]]
    ['a']
    """
    kept = [result for result in earlier.get(name, []) if result.name != new.name]
    return earlier | {name: [*kept, new]}


def _result(case: dict[str, Any], commit: str | None) -> CaseResult:
    return CaseResult(
        name=case["case"],
        arms=[
            ArmResult(
                name=arm["arm"],
                seconds=arm["seconds"],
                quartiles=(arm["quartiles"][0], arm["quartiles"][1]),
                speedup=arm["speedup"],
                error=_number(arm["error"]),
                calls_per_sample=arm["calls_per_sample"],
                interval=tuple(arm["interval"]) if arm.get("interval") else None,
                first_seconds=arm.get("first_seconds"),
                peak_bytes=arm.get("peak_bytes"),
                work=Work(flops=arm["flops"], bytes=arm["bytes"]) if "flops" in arm else None,
                host_seconds=arm.get("host_seconds"),
            )
            for arm in case["arms"]
        ],
        rounds=case["rounds"],
        disturbed=case["disturbed"],
        noisy=case["noisy"],
        samples={},
        facts=case.get("facts", {}),
        left_out=case.get("left_out", {}),
        commit=case.get("commit", commit),
    )


def _number(error: float | str) -> float:
    return math.nan if error == "nan" else float(error)
