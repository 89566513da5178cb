"""Where to cut a chain of linear maps: the matrix-chain problem, solved for least predicted time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cost import Machine, linear_flops

# Where the number of rows varies from call to call, a plan must not lose anywhere between these.
FEWEST_ROWS, MOST_ROWS = 1, 8192
_ROWS_TRIED = (FEWEST_ROWS, 16, 256, MOST_ROWS)
_TIE = 1e-9


@dataclass(frozen=True)
class Part:
    """Some neighbouring maps of a chain that become one node.

    Args:
        start, stop: the part holds the maps `start`, ..., `stop - 1`.
        cut: None for one dense map; else the maps before `cut` become the first factor of a low-rank pair
            and those from `cut` on the second.
    """

    start: int
    stop: int
    cut: int | None = None

    def factors(self) -> list[tuple[int, int]]:
        """The `(start, stop)` of every matrix that the part holds."""
        if self.cut is None:
            return [(self.start, self.stop)]
        return [(self.start, self.cut), (self.cut, self.stop)]


@dataclass(frozen=True)
class Plan:
    """A chain cut into parts, in order."""

    parts: tuple[Part, ...]

    @property
    def merges(self) -> bool:
        """Whether the plan changes anything: some part holds more than one map."""
        return any(part.stop - part.start > 1 for part in self.parts)

    @property
    def low_rank(self) -> bool:
        """Whether some part is a low-rank pair."""
        return any(part.cut is not None for part in self.parts)

    def factors(self) -> list[tuple[int, int]]:
        """The `(start, stop)` of every matrix that is left."""
        return [factor for part in self.parts for factor in part.factors()]

    def parameters(self, widths: Sequence[int]) -> int:
        """Entries of all the matrices that are left."""
        return sum(widths[start] * widths[stop] for start, stop in self.factors())

    def flops(self, widths: Sequence[int], rows: int) -> int:
        """Floating-point operations of the plan for so many rows."""
        return sum(linear_flops(rows, widths[start], widths[stop]) for start, stop in self.factors())

    def seconds(self, widths: Sequence[int], rows: int, itemsize: int, machine: Machine) -> float:
        """Predicted time of the plan for so many rows."""
        return sum(part_seconds(part, widths, rows, itemsize, machine) for part in self.parts)


@dataclass(frozen=True)
class Decision:
    """The plan chosen for a chain and, where that leaves the chain alone, why.

    Args:
        plan: the plan to carry out.
        reason: empty if `plan` is to be carried out; else why nothing is to be done.
        seconds_before, seconds_after: predicted at the example number of rows.
    """

    plan: Plan
    reason: str
    seconds_before: float
    seconds_after: float


def part_seconds(part: Part, widths: Sequence[int], rows: int, itemsize: int, machine: Machine) -> float:
    """Predicted time of one part for so many rows."""
    inputs, outputs = widths[part.start], widths[part.stop]
    if part.cut is None:
        return machine.linear_seconds(rows, inputs, outputs, itemsize)
    return machine.pair_seconds(rows, inputs, widths[part.cut], outputs, itemsize)


def unmerged(widths: Sequence[int]) -> Plan:
    """The chain as it stands: every map on its own."""
    return Plan(tuple(Part(index, index + 1) for index in range(len(widths) - 1)))


def merged(widths: Sequence[int]) -> Plan:
    """The whole chain as one dense map."""
    return Plan((Part(0, len(widths) - 1),))


def fastest(widths: Sequence[int], rows: int, itemsize: int, machine: Machine) -> Plan:
    """Cut a chain for least predicted time at so many rows; on a tie, for fewest parameters.

    Dynamic programming over the last part, cubic in the number of maps. `widths[i]` and `widths[i + 1]` are
    the input and output width of map `i`.

    >>> fastest([128, 256, 128, 64, 32], rows=32, itemsize=4, machine=Machine()).parts
    (Part(start=0, stop=4, cut=None),)
    """
    count = len(widths) - 1
    best: list[tuple[float, Plan]] = [(0.0, Plan(()))]
    for stop in range(1, count + 1):
        found: tuple[float, Plan] | None = None
        for start in range(stop):
            before, prefix = best[start]
            for cut in (None, *range(start + 1, stop)):
                part = Part(start, stop, cut)
                seconds = before + part_seconds(part, widths, rows, itemsize, machine)
                candidate = (seconds, Plan((*prefix.parts, part)))
                if found is None or _better(candidate, found, widths):
                    found = candidate
        assert found is not None
        best.append(found)
    return best[-1][1]


def _better(new: tuple[float, Plan], old: tuple[float, Plan], widths: Sequence[int]) -> bool:
    if abs(new[0] - old[0]) > _TIE * old[0]:
        return new[0] < old[0]
    return new[1].parameters(widths) < old[1].parameters(widths)


def decide(
    widths: Sequence[int], rows: int, itemsize: int, machine: Machine, *, rows_vary: bool = False
) -> Decision:
    """Choose how to cut a chain, or to leave it as it is.

    Args:
        widths: `count + 1` widths of a chain of `count` maps.
        rows: the number of rows to be fastest at.
        itemsize: bytes of an element.
        machine: the cost model.
        rows_vary: the plan must also be no slower than the chain as it stands at 1 and at 8192 rows.

    >>> decide([512, 8, 512], rows=4096, itemsize=4, machine=Machine()).plan.low_rank
    True
    """
    current = unmerged(widths)
    candidates = [fastest(widths, rows, itemsize, machine)]
    if rows_vary:
        candidates += [fastest(widths, tried, itemsize, machine) for tried in _ROWS_TRIED]
    held = {rows, FEWEST_ROWS, MOST_ROWS} if rows_vary else {rows}
    allowed = [
        plan
        for plan in candidates
        if plan.merges
        and all(
            plan.seconds(widths, count, itemsize, machine)
            <= current.seconds(widths, count, itemsize, machine) * (1 + _TIE)
            for count in held
        )
    ]
    before = current.seconds(widths, rows, itemsize, machine)
    chosen: tuple[float, Plan] = (before, current)
    for plan in allowed:
        candidate = (plan.seconds(widths, rows, itemsize, machine), plan)
        if _better(candidate, chosen, widths):
            chosen = candidate
    reason = "" if chosen[1].merges else _why_not(candidates, widths, sorted(held), rows, itemsize, machine)
    return Decision(chosen[1], reason, before, chosen[0])


def _why_not(
    candidates: Sequence[Plan],
    widths: Sequence[int],
    held: Sequence[int],
    rows: int,
    itemsize: int,
    machine: Machine,
) -> str:
    current = unmerged(widths)
    alternative = next((plan for plan in candidates if plan.merges), merged(widths))
    chain = " -> ".join(map(str, widths))
    worst = max(
        held,
        key=lambda count: (
            alternative.seconds(widths, count, itemsize, machine)
            / current.seconds(widths, count, itemsize, machine)
        ),
    )
    now, then = (1e6 * plan.seconds(widths, worst, itemsize, machine) for plan in (current, alternative))
    verdict = "would be slower" if then > now * (1 + _TIE) else "would be no faster"
    return (
        f"merging {chain} {verdict}: predicted {then:.3g} us against {now:.3g} us as it stands "
        f"at {worst} rows, {alternative.parameters(widths):,} against {current.parameters(widths):,} weights"
    )
