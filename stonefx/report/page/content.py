"""What the page shows, worked out from the report alone."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from stonefx.passes.hyperbolic.formulas import FORMULAS
from stonefx.passes.refusal import Refusal
from stonefx.passes.site import Site
from stonefx.report.kinds import STATUSES, Kind, kinds, saving
from stonefx.report.listing import short_source
from stonefx.report.page.drawing import Drawing, draw, nodes_after, nodes_before
from stonefx.report.page.formula import Formula, after_formula, before_formula
from stonefx.report.page.listed import Listing
from stonefx.report.page.modules import Module, module_tree
from stonefx.report.page.sides import Stretch, side_by_side
from stonefx.report.page.sources import Excerpt, excerpt
from stonefx.report.text import short_number, short_seconds

if TYPE_CHECKING:
    from stonefx.report.record import Report

# A page has less than two megabytes: letters in all, those of sites among them, and kinds that are left.
_LETTERS, _SITE_LETTERS, _MOST_CARDS = 1_550_000, 1_000_000, 100


@dataclass(frozen=True)
class Bar:
    """A total before and after.

    Args:
        label: what is counted.
        before, after: as text.
        width: the part of the longer bar that `before` and `after` take, in percent.
        change: such as `27 %` of what it was.
    """

    label: str
    before: str
    after: str
    width: tuple[float, float]
    change: str


@dataclass(frozen=True)
class Row:
    """A site as the page shows it; `same_line` is the number of an earlier site at the same line, or 0."""

    number: int
    site: Site
    excerpt: Excerpt | None
    same_line: int
    formula: Formula | None
    new_formula: Formula | None
    drawing: int | None
    new_drawing: int | None

    @property
    def code(self) -> str:
        """The code of a refusal."""
        return self.site.code

    @property
    def source(self) -> str:
        """File and line without the folders."""
        return short_source(self.site.source)

    @property
    def saving(self) -> float:
        """Predicted seconds that are saved, or would be."""
        return saving(self.site)

    @property
    def error(self) -> str:
        """The measured error of the original and of the rewrite, from float64."""
        site = self.site
        if site.max_error is None:
            return "not measured" if site.bound is not None else ""
        before = "" if site.original_error is None else f" (the original's: {site.original_error:.1e})"
        return f"{site.max_error:.1e}{before}"

    @property
    def error_part(self) -> float | None:
        """How much of the bound the error takes up, in percent of the digits between the bound and 1e-6 of it."""
        site = self.site
        if site.max_error is None or not site.bound or not math.isfinite(site.bound):
            return None
        part = max(site.max_error / site.bound, 1e-6)
        return round(min(100.0, 100 * (1 + math.log10(part) / 6)), 1)


@dataclass(frozen=True)
class Content:
    """All that the template writes; of what would be too much for a page, how much was left out."""

    report: Report
    counts: dict[str, int]
    bars: list[Bar]
    left: list[Kind]
    more_left: int
    rows: list[Row]
    shown: frozenset[int]
    drawings: list[Drawing]
    modules: Module
    stretches: list[Stretch]
    more_lines: int
    targets: list[str]
    codes: list[str]


def content_of(report: Report) -> Content:
    """Work out what the page of a report shows."""
    before, after = Listing(report.before), Listing(report.after)
    drawings: dict[Drawing, int] = {}
    excerpts: dict[str, tuple[int, Excerpt | None]] = {}
    left: dict[int, tuple[int, ...]] = {}
    right: dict[int, tuple[int, ...]] = {}
    rows = []
    shown = shown_sites(report.sites)
    for number in shown:
        site = report.sites[number - 1]
        old = before.values(site)
        inside = nodes_before(site, old)
        new_values = after.values(site) if site.status == "rewritten" else {}
        new = nodes_after(site, new_values, old)
        if site.status == "rewritten":
            _mark(left, number, (old[name].number for name in inside))
            _mark(right, number, (new_values[name].number for name in new))
        if site.source not in excerpts:
            excerpts[site.source] = number, excerpt(site.source)
        first, lines = excerpts[site.source]
        earlier = first if first != number else 0
        drawn = [draw(inside, old), draw(new, new_values)]
        numbers = [None if each is None else drawings.setdefault(each, len(drawings)) for each in drawn]
        formulas: tuple[Formula | None, Formula | None] = (None, None)
        if site.status != "near miss":
            # A near miss is not what the table says, which stands in what can be done about it.
            formulas = (
                before_formula(site, old, frozenset(inside)),
                after_formula(site, new_values, frozenset(new)),
            )
        rows.append(Row(number, site, lines, earlier, *formulas, *numbers))
    kept = left_on_the_table(report.sites)
    room = (_LETTERS - sum(_letters(row.site) for row in rows)) // 2
    (old_text, more_old), (new_text, more_new) = (_cut(text, room) for text in (report.before, report.after))
    return Content(
        report=report,
        counts={status: sum(site.status == status for site in report.sites) for status in STATUSES},
        bars=_bars(report),
        left=kept[:_MOST_CARDS],
        more_left=len(kept[_MOST_CARDS:]),
        rows=rows,
        drawings=list(drawings),
        modules=module_tree([row.site for row in rows]),
        shown=frozenset(shown),
        stretches=side_by_side(old_text, new_text, left, right),
        more_lines=more_old + more_new,
        targets=sorted({site.target for site in report.sites}),
        codes=sorted({site.code for site in report.sites} - {""}),
    )


def shown_sites(sites: Sequence[Site]) -> list[int]:
    """The numbers of the sites that a page has room for: one of each kind first, what would save most before all.

    >>> shown_sites([Site(pass_name="p", target="t", status="refused")] * 3)
    [1, 2, 3]
    """
    room = _SITE_LETTERS
    found: set[int] = set()
    first = [kind.numbers[0] for kind in left_on_the_table(sites)]
    first += [kind.numbers[0] for kind in kinds(sites) if kind.first.status == "rewritten"]
    for number in dict.fromkeys([*first, *range(1, len(sites) + 1)]):
        room -= _letters(sites[number - 1])
        if room < 0 and found:
            break
        found.add(number)
    return sorted(found)


def _letters(site: Site) -> int:
    """About how many letters of the page a site takes."""
    return 1700 + 9 * len(site.module_path) + 4 * len(short_source(site.source)) + 2 * len(str(site.reason))


def _cut(text: str, room: int) -> tuple[str, int]:
    """The lines of a graph that a page has room for, and how many are left out."""
    lines = text.splitlines()
    ends = list(accumulate(60 + len(line) for line in lines))
    count = bisect(ends, room)
    return "\n".join(lines[:count]), len(lines) - count


def left_on_the_table(sites: Iterable[Site]) -> list[Kind]:
    """The refused sites and near misses by kind: what would save most first, then those of which something can be done.

    >>> slow = Site(pass_name="p", target="t", status="refused", seconds_before=2.0, seconds_after=1.0)
    >>> near = Site(pass_name="p", target="u", status="near miss")
    >>> [kind.saving for kind in left_on_the_table([near, slow])]
    [1.0, 0.0]
    """
    found = [kind for kind in kinds(sites) if kind.first.status != "rewritten"]
    return sorted(found, key=lambda kind: (-kind.saving, not _curable(kind.first)))


def cure_of(site: Site) -> str:
    """What a user can do about a site that was left as it is; empty where nothing should be done."""
    if isinstance(site.reason, Refusal):
        return site.reason.cure
    if site.status == "near miss" and site.target in FORMULAS:
        return f"Where it is meant to be {site.target}, spell it as y = {FORMULAS[site.target].text}."
    return ""


def _curable(site: Site) -> bool:
    cure = cure_of(site)
    return bool(cure) and not cure.startswith("Nothing")


def _mark(lines: dict[int, tuple[int, ...]], site: int, numbers: Iterable[int]) -> None:
    for number in numbers:
        lines[number] = (*lines.get(number, ()), site)


def _bars(report: Report) -> list[Bar]:
    summary = report.summary()
    bars = [
        _bar(label, summary[f"{name}_before"], summary[f"{name}_after"], short_number)
        for name, label in (("parameters", "parameters"), ("flops", "FLOPs a call"), ("bytes", "bytes moved"))
        if summary[f"{name}_before"]
    ]
    timed = [s for s in report.rewritten() if s.seconds_before is not None and s.seconds_after is not None]
    if timed:
        before, after = (sum(getattr(s, f"seconds_{when}") for s in timed) for when in ("before", "after"))
        bars.append(_bar("predicted time of what was rewritten", before, after, short_seconds))
    if report.measured:
        measured = report.measured
        bars.append(_bar("measured time of a call", measured["before"], measured["after"], short_seconds))
    return bars


def _bar(label: str, before: float, after: float, text: Any) -> Bar:
    if not (math.isfinite(before) and math.isfinite(after)):
        return Bar(label, text(before), text(after), (0.0, 0.0), "not a number to compare")
    longest = max(before, after) or 1
    part = 100 * (after / before) if before else 100.0
    change = "no change" if before == after else f"{part:.3g} %"
    return Bar(label, text(before), text(after), (100 * (before / longest), 100 * (after / longest)), change)
