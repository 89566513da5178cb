"""The report as text for the terminal, 80 columns wide."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from stonefx.passes.refusal import Refusal
from stonefx.report.kinds import STATUSES, Kind, kinds
from stonefx.report.listing import short_source
from stonefx.terminal import table, wrapped

if TYPE_CHECKING:
    from stonefx.passes.site import Site
    from stonefx.report.record import Report

WIDTH = 80
_HEADERS = ("", "sites", "target", "status", "module", "source")
_MOST_WEIGHTS, _MOST_NAMES = 4, 4
_COLOURS = {"rewritten": "\x1b[32m", "refused": "\x1b[33m", "near miss": "\x1b[35m"}
_FAINT, _PLAIN = "\x1b[2m", "\x1b[0m"


def report_text(report: Report, *, colour: bool = False, width: int = WIDTH) -> str:
    """A table of the sites by kind, what is known of each kind, a summary, and what was left out.

    Args:
        report: the report.
        colour: with the escape sequences of a terminal.
        width: of a line, in letters.
    """
    found = sorted(kinds(report.sites), key=lambda kind: STATUSES.index(kind.first.status))
    parts = [_table(found, colour, width)] if found else ["nothing to rewrite was found"]
    for number, kind in enumerate(found, 1):
        parts += _details(number, kind, colour, width)
    if found:
        parts += wrapped(_counts(report.sites), width)
    parts += _totals(report.summary(), width)
    if report.measured:
        before, after = (short_seconds(report.measured[when]) for when in ("before", "after"))
        parts += wrapped(f"measured {before} -> {after} a call", width)
    if report.backend:
        parts += wrapped(
            ", ".join(f"{name} {value}" for name, value in report.backend.items()), width, later=""
        )
    parts += _weights(report.weights, width)
    if report.notes:
        parts.append("notes:")
        for note in report.notes:
            parts += wrapped(note, width, "  ", "  ")
    return "\n".join(parts)


def _table(found: Sequence[Kind], colour: bool, width: int) -> str:
    rows = [
        [
            str(number),
            str(len(kind.sites)),
            kind.first.target,
            kind.first.status,
            kind.where or "-",
            short_source(kind.first.source) or "-",
        ]
        for number, kind in enumerate(found, 1)
    ]
    # A column in which nothing stands is left out.
    columns = [i for i in range(len(_HEADERS)) if any(row[i] != "-" for row in rows)]
    cells = [[row[i] for i in columns] for row in rows]
    return _coloured(table(cells, [_HEADERS[i] for i in columns], right=(0, 1), width=width), colour)


def _coloured(text: str, colour: bool) -> str:
    if colour:
        for status, code in _COLOURS.items():
            text = re.sub(rf"(  |status: ){status}(?= |$)", rf"\1{code}{status}{_PLAIN}", text, flags=re.M)
    return text


def _details(number: int, kind: Kind, colour: bool, width: int) -> list[str]:
    """What is known of a kind: why, what can be done, what it changes, how exact it is."""
    site, label = kind.first, f"{number}. "
    facts = _facts(kind)
    # Without a word to say there is no line.
    said = [part for part in (str(site.reason), "; ".join(facts)) if part]
    lines = wrapped(f"{label}{'; '.join(said)}", width, "", " " * len(label)) if said else []
    cure = site.reason.cure if isinstance(site.reason, Refusal) else ""
    if cure and not cure.startswith("Nothing"):
        text = wrapped(f"-> {cure}", width, " " * len(label), " " * (len(label) + 3))
        lines += [f"{_FAINT}{line}{_PLAIN}" for line in text] if colour else text
    return lines


def _facts(kind: Kind) -> list[str]:
    site = kind.first
    facts = [
        f"{name} {short_number(before)} -> {short_number(after)}"
        for name, before, after in (
            ("params", site.params_before, site.params_after),
            ("flops", site.flops_before, site.flops_after),
        )
        if before != after
    ]
    if site.status != "rewritten" and kind.saving:
        facts.append(f"would save {short_seconds(kind.saving)} a call")
    facts += [f"{name} {value}" for name, value in site.guards.items()]
    return [*facts, *_error(kind.sites)]


def _error(sites: Sequence[Site]) -> list[str]:
    errors = [site.max_error for site in sites if site.max_error is not None]
    before = [site.original_error for site in sites if site.original_error is not None]
    bounds = [site.bound for site in sites if site.bound is not None]
    if not errors and not bounds:
        return []
    error = f"{max(errors):.1e}" if errors else "not run"
    if errors and before:
        error = f"{max(before):.1e} -> {error}"
    return [f"error {error}" + (f", bound {max(bounds):.1e}" if bounds else "")]


def _counts(sites: Sequence[Site]) -> str:
    count = {status: sum(site.status == status for site in sites) for status in STATUSES}
    plural = "near miss" if count["near miss"] == 1 else "near misses"
    return f"{count['rewritten']} rewritten, {count['refused']} refused, {count['near miss']} {plural}"


def _totals(summary: Mapping[str, int], width: int) -> list[str]:
    lines = []
    for name, label in (("parameters", "parameters"), ("flops", "FLOPs a call"), ("bytes", "bytes moved")):
        before, after = summary.get(f"{name}_before", 0), summary.get(f"{name}_after", 0)
        if before:
            lines += wrapped(f"{label} {before:,} -> {after:,} ({100 * after / before:.2f} %)", width)
    return lines


def _weights(weights: Mapping[str, Sequence[str]], width: int) -> list[str]:
    """A line or two for each new weight, with the old ones that it holds."""
    sources: dict[str, list[str]] = {}
    for old, names in weights.items():
        for new in names:
            sources.setdefault(new, []).append(old)
    shown = list(sources.items())[:_MOST_WEIGHTS]
    lines = []
    for kept, held in shown:
        if len(held) > _MOST_NAMES:
            held = [*held[: _MOST_NAMES - 1], f"{len(held) - _MOST_NAMES + 1} more"]
        lines += wrapped(f"{', '.join(held)} -> {kept}", width, "  ")
    if len(sources) > len(shown):
        lines += wrapped(f"and {len(sources) - len(shown)} more: report.weights", width, "  ")
    return ["weights:", *lines] if lines else []


def short_number(number: int | float) -> str:
    """A count in at most five characters.

    >>> [short_number(n) for n in (7, 4128, 76256, 33_554_432)]
    ['7', '4.13k', '76.3k', '33.6M']
    """
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return str(number)


def short_seconds(seconds: float) -> str:
    """A time with its unit.

    >>> [short_seconds(s) for s in (0.0, 2.5e-7, 0.00123, 4.0)]
    ['0 s', '0.25 us', '1.23 ms', '4 s']
    """
    for limit, unit in ((1.0, "s"), (1e-3, "ms")):
        if abs(seconds) >= limit or seconds == 0:
            return f"{seconds / limit:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"
