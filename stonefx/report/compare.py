"""What is different between two reports of one model: for a check that fails when a rewrite is lost."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stonefx.passes.site import Site
from stonefx.report.listing import short_source
from stonefx.report.text import WIDTH, short_number
from stonefx.terminal import asked_width, printable, wrapped

if TYPE_CHECKING:
    from stonefx.report.record import Report

# What remains of a total after the passes may grow so much, in parts of what it was.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Comparison:
    """What became of the sites of an earlier report.

    Args:
        regressions: one line for each site that was rewritten and is not any more, and for each total of which a
            larger part remains than did; empty where nothing became worse.
        improvements: one line for each site that was not rewritten and is now.
        changes: one line for each other site that came, went, or is refused for another reason.

    >>> print(Comparison())
    no difference
    """

    regressions: tuple[str, ...] = ()
    improvements: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything is different."""
        return bool(self.regressions or self.improvements or self.changes)

    def __str__(self) -> str:
        parts: list[str] = []
        width = min(WIDTH, asked_width() or WIDTH)
        for label in ("regressions", "improvements", "changes"):
            lines = getattr(self, label)
            if lines:
                parts.append(f"{label}: {len(lines)}")
            for line in lines:
                parts += wrapped(line, width, "  ")
        return printable("\n".join(parts) or "no difference", sys.stdout)


def compare(new: Report, old: Report) -> Comparison:
    """Compare a report with an earlier one.

    Sites are told apart by target and module path, since lines move and nodes are renamed when code changes; of several
    sites of one module and target, as many as were rewritten must still be.
    """
    regressions: list[str] = []
    improvements: list[str] = []
    changes: list[str] = []
    before, after = _places(old), _places(new)
    for place in dict.fromkeys([*before, *after]):
        was, now = before.get(place, []), after.get(place, [])
        _one_place(place, was, now, regressions, improvements, changes)
    regressions += _totals(new, old)
    return Comparison(tuple(regressions), tuple(improvements), tuple(changes))


def _places(report: Report) -> dict[tuple[str, str], list[Site]]:
    places: dict[tuple[str, str], list[Site]] = {}
    for site in report.sites:
        places.setdefault((site.target, site.module_path), []).append(site)
    return places


def _one_place(
    place: tuple[str, str],
    was: Sequence[Site],
    now: Sequence[Site],
    regressions: list[str],
    improvements: list[str],
    changes: list[str],
) -> None:
    target, path = place
    where = f"{target} in {path}" if path else target
    done_before = [site for site in was if site.status == "rewritten"]
    done = [site for site in now if site.status == "rewritten"]
    left = [site for site in now if site.status != "rewritten"]
    known = {(site.status, site.code or str(site.reason)) for site in was}
    fresh = [site for site in left if (site.status, site.code or str(site.reason)) not in known]
    if len(done) < len(done_before):
        lost = _counted(len(done_before) - len(done))
        because = "; ".join(dict.fromkeys(_said(site) for site in fresh or left))
        line = _line(done_before[-1])
        regressions.append(f"{where}{line}: {lost} no longer rewritten{f': {because}' if because else ''}")
        return
    if len(done) > len(done_before):
        improvements.append(
            f"{where}{_line(done[-1])}: {_counted(len(done) - len(done_before))} rewritten now"
        )
    elif fresh:
        said = "; ".join(dict.fromkeys(_said(site) for site in fresh))
        changes.append(f"{where}{_line(fresh[0])}: {said}")
    elif len(left) < len(was) - len(done_before):
        changes.append(f"{where}: {_counted(len(was) - len(done_before) - len(left))} no longer found")


def _counted(number: int) -> str:
    return "1 site" if number == 1 else f"{number} sites"


def _line(site: Site) -> str:
    return f" ({short_source(site.source)})" if site.source else ""


def _said(site: Site) -> str:
    return f"{site.status}, {site.reason}" if site.reason else site.status


def _totals(new: Report, old: Report) -> list[str]:
    """The totals of which more remains than did, each as a part of what the model had before the passes."""
    lines = []
    now, was = new.summary(), old.summary()
    for name, label in (("parameters", "parameters"), ("flops", "FLOPs a call"), ("bytes", "bytes moved")):
        if not was[f"{name}_before"] or not now[f"{name}_before"]:
            continue
        part_was, part = (each[f"{name}_after"] / each[f"{name}_before"] for each in (was, now))
        if part > part_was + _TOLERANCE:
            lines.append(
                f"{label}: {100 * part:.2f} % remain where {100 * part_was:.2f} % did "
                f"({short_number(was[f'{name}_after'])} -> {short_number(now[f'{name}_after'])})"
            )
    return lines
