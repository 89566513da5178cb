"""Two runs of the same suites: what became slower, what became faster, and what cannot be told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stonefx.benchmarks.results import SCHEMA, interval_text
from stonefx.terminal import table

# What two runs of one program may differ by; a smaller difference is none.
TOLERANCE = 0.03


@dataclass(frozen=True, kw_only=True)
class Change:
    """An arm of one case in both runs, by its speed-up over the case's first arm.

    Args:
        suite, case, arm: where.
        before, now: the speed-ups.
        before_interval, now_interval: in which they lie with 95 % confidence; None where a run did not say.
    """

    suite: str
    case: str
    arm: str
    before: float
    now: float
    before_interval: tuple[float, float] | None
    now_interval: tuple[float, float] | None

    @property
    def ratio(self) -> float:
        """How many times as fast as before, beside the first arm."""
        return self.now / self.before

    @property
    def verdict(self) -> Literal["slower", "faster", "same"]:
        """ "slower" or "faster" where the intervals are apart and the difference is more than `TOLERANCE`."""
        old = self.before_interval or (self.before, self.before)
        new = self.now_interval or (self.now, self.now)
        if new[1] < old[0] and self.ratio < 1 - TOLERANCE:
            return "slower"
        return "faster" if new[0] > old[1] and self.ratio > 1 + TOLERANCE else "same"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs beside each other.

    Args:
        changes: of what both have, but for the first arm of each case.
        only_before, only_now: what one of them has alone, as `suite: case: arm`.
        differs: facts of the machine that differ, in words.
    """

    changes: list[Change]
    only_before: list[str]
    only_now: list[str]
    differs: list[str]

    @property
    def slower(self) -> list[Change]:
        """What became slower."""
        return [change for change in self.changes if change.verdict == "slower"]

    def to_json(self) -> dict[str, Any]:
        """Everything in JSON's own types."""
        rows = [
            asdict(change) | {"ratio": change.ratio, "verdict": change.verdict} for change in self.changes
        ]
        return {
            "changes": rows,
            "only_before": self.only_before,
            "only_now": self.only_now,
            "differs": self.differs,
        }

    def __str__(self) -> str:
        order = {"slower": 0, "faster": 1, "same": 2}
        told = sorted(self.changes, key=lambda change: (order[change.verdict], change.ratio))
        rows = [
            (
                change.verdict,
                f"{change.suite}: {change.case}",
                change.arm,
                _speedup(change.before, change.before_interval),
                _speedup(change.now, change.now_interval),
                f"{change.ratio:.2f}x",
            )
            for change in told
            if change.verdict != "same"
        ]
        same = len(told) - len(rows)
        lines = [f"measured with another {fact}" for fact in self.differs]
        if rows:
            lines.append(table(rows, ("", "case", "arm", "before", "now", "change")))
        lines.append(f"{len(self.slower)} slower, {len(rows) - len(self.slower)} faster, {same} the same")
        for title, names in (("not measured now", self.only_before), ("new", self.only_now)):
            lines += [f"{title}: {', '.join(names)}"] if names else []
        return "\n".join(lines)


def compare(before: dict[str, Any], now: dict[str, Any]) -> Comparison:
    """Compare two documents of `result_document`.

    Raises:
        ValueError: one of them is none.

    >>> arm = {"arm": "fast", "seconds": 1.0, "speedup": 2.0, "interval": [1.9, 2.1]}
    >>> case = {"case": "a", "arms": [arm | {"arm": "eager", "speedup": 1.0, "interval": [1, 1]}, arm]}
    >>> old = {"schema": 1, "machine": {}, "suites": {"chain": [case]}}
    >>> new = {"schema": 1, "machine": {}, "suites": {"chain": [case | {"arms": [
    ...     case["arms"][0], arm | {"speedup": 1.5, "interval": [1.4, 1.6]}]}]}}
    >>> [change.verdict for change in compare(old, new).changes]
    ['slower']
    """
    for document in (before, now):
        if not isinstance(document, dict) or document.get("schema") != SCHEMA or "suites" not in document:
            raise ValueError(
                f"expected results of `stonefx bench --json`, schema {SCHEMA}, got "
                f"{document.get('schema') if isinstance(document, dict) else type(document).__name__}"
            )
    old, new = dict(_arms(before)), dict(_arms(now))
    changes = [
        Change(
            suite=key[0],
            case=key[1],
            arm=key[2],
            before=old[key]["speedup"],
            now=new[key]["speedup"],
            before_interval=_interval(old[key]),
            now_interval=_interval(new[key]),
        )
        for key in new
        if key in old
    ]
    machines = before.get("machine", {}), now.get("machine", {})
    facts = ("cpu", "cores", "threads", "torch", "gpu")
    return Comparison(
        changes=changes,
        only_before=[": ".join(key) for key in old if key not in new],
        only_now=[": ".join(key) for key in new if key not in old],
        differs=[
            f"{fact}: {machines[0].get(fact)} before, {machines[1].get(fact)} now"
            for fact in facts
            if machines[0].get(fact) != machines[1].get(fact)
        ],
    )


def _arms(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str, str], dict[str, Any]]]:
    for suite, cases in document["suites"].items():
        for case in cases:
            for arm in case["arms"][1:]:
                yield (suite, case["case"], arm["arm"]), arm


def _interval(arm: dict[str, Any]) -> tuple[float, float] | None:
    found = arm.get("interval")
    return (found[0], found[1]) if found else None


def _speedup(ratio: float, interval: tuple[float, float] | None) -> str:
    return f"{ratio:.2f}x" + (f" ({interval_text(interval)})" if interval else "")
