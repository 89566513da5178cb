"""The report as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tabulate import tabulate

from stonefx.passes.site import Site
from stonefx.report.listing import short_source

_HEADERS = ("target", "status", "module", "source", "what", "error / bound", "reason")
_WIDTHS = (None, None, 30, None, 30, None, 44)
_MOST_WEIGHTS = 8
_STATUS_ORDER = {"rewritten": 0, "refused": 1, "near miss": 2}


def report_text(
    sites: Sequence[Site],
    summary: Mapping[str, int],
    notes: Sequence[str],
    backend: Mapping[str, str],
    weights: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Table of the sites, a summary line, the facts of the run, and what was left out.

    Args:
        sites: in any order; equal ones (a block that repeats) share a row.
        summary: as `Report.summary` gives it.
        notes: one line each.
        backend: facts of the run.
        weights: old name of each weight that has none any more -> names of those that hold it.

    >>> print(report_text([], {}, ["decoder: not captured"], {"door": "optimize"}))
    nothing to rewrite was found
    door optimize
    notes:
      decoder: not captured
    """
    parts = [_table(sites)] if sites else ["nothing to rewrite was found"]
    if sites:
        parts.append(_counts(sites))
    parts += _totals(summary)
    if backend:
        parts.append(", ".join(f"{name} {value}" for name, value in backend.items()))
    parts += _weights(weights or {})
    if notes:
        parts += ["notes:", *(f"  {note}" for note in notes)]
    return "\n".join(parts)


def _table(sites: Sequence[Site]) -> str:
    groups: dict[tuple[str, ...], list[Site]] = {}
    for site in sites:
        key = (site.target, site.status, short_source(site.source) or "-", _what(site), site.reason or "-")
        groups.setdefault(key, []).append(site)
    rows = [
        (target, status, _modules(members), source, what, _error(members), reason)
        for (target, status, source, what, reason), members in sorted(
            groups.items(), key=lambda item: _STATUS_ORDER[item[0][1]]
        )
    ]
    # A column in which nothing stands is left out.
    columns = [i for i in range(len(_HEADERS)) if any(row[i] != "-" for row in rows)]
    return tabulate(
        [[row[i] for i in columns] for row in rows],
        headers=[_HEADERS[i] for i in columns],
        maxcolwidths=[_WIDTHS[i] for i in columns],
        disable_numparse=True,
    )


def _modules(members: Sequence[Site]) -> str:
    first = members[0].module_path or "-"
    return first if len(members) == 1 else f"{first} (+{len(members) - 1} more)"


def _what(site: Site) -> str:
    changes = [
        f"{name} {short_number(before)} -> {short_number(after)}"
        for name, before, after in (
            ("params", site.params_before, site.params_after),
            ("flops", site.flops_before, site.flops_after),
        )
        if before != after
    ]
    guards = [f"{name} {value}" for name, value in site.guards.items()]
    return "\n".join([*changes, *guards]) or "-"


def _error(members: Sequence[Site]) -> str:
    errors = [site.max_error for site in members if site.max_error is not None]
    before = [site.original_error for site in members if site.original_error is not None]
    bounds = [site.bound for site in members if site.bound is not None]
    if not errors and not bounds:
        return "-"
    error = f"{max(errors):.1e}" if errors else "not run"
    if errors and before:
        error = f"{max(before):.1e} -> {error}"
    return f"{error} / {max(bounds):.1e}" if bounds else error


def _counts(sites: Sequence[Site]) -> str:
    count = {status: sum(site.status == status for site in sites) for status in _STATUS_ORDER}
    plural = "near miss" if count["near miss"] == 1 else "near misses"
    return f"{count['rewritten']} rewritten, {count['refused']} refused, {count['near miss']} {plural}"


def _totals(summary: Mapping[str, int]) -> list[str]:
    parts = []
    for name, label in (("parameters", "parameters"), ("flops", "FLOPs a call"), ("bytes", "bytes moved")):
        before, after = summary.get(f"{name}_before", 0), summary.get(f"{name}_after", 0)
        if before:
            parts.append(f"{label} {before:,} -> {after:,} ({100 * after / before:.2f} %)")
    return ["; ".join(parts)] if parts else []


def _weights(weights: Mapping[str, Sequence[str]]) -> list[str]:
    """One line for each new weight, with the old ones that it holds."""
    sources: dict[str, list[str]] = {}
    for old, names in weights.items():
        for new in names:
            sources.setdefault(new, []).append(old)
    lines = [f"  {', '.join(old)} -> {new}" for new, old in sources.items()]
    left = len(lines) - _MOST_WEIGHTS
    if left > 0:
        lines[_MOST_WEIGHTS:] = [f"  and {left} more: report.weights"]
    return ["weights:", *lines] if lines else []


def short_number(number: int) -> str:
    """A count in at most five characters.

    >>> [short_number(n) for n in (7, 4128, 76256, 33_554_432)]
    ['7', '4.13k', '76.3k', '33.6M']
    """
    for limit, suffix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit:
            return f"{number / limit:.3g}{suffix}"
    return str(number)
