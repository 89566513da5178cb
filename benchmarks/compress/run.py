"""The command `stonefx bench compress`: cases that are wanted, rows as they come, one JSON file that grows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection

from stonefx.benchmarks.compress.cases import CASES
from stonefx.benchmarks.compress.rows import Row, document


class UnknownCase(ValueError):
    """There is no case of a name that was asked for."""


def run(
    only: Collection[str] = (),
    *,
    done: Collection[Row] = (),
    on_row: Callable[[Row], object] = lambda row: None,
) -> list[Row]:
    """Measure cases.

    Args:
        only: names of `CASES`; all where it is empty.
        done: rows that need not be measured again.
        on_row: called with each new row.

    Returns:
        Earlier rows and new ones.

    Raises:
        UnknownCase: a name is none of them.
        MissingPackage: a case needs one; the message says which.
    """
    for name in only:
        if name not in CASES:
            raise UnknownCase(f"suite 'compress' has no case {name!r}; it has {', '.join(CASES)}")
    rows = list(done)
    keys = {row.key for row in rows}
    for name, measure in CASES.items():
        if only and name not in only:
            continue

        def wanted(arm: str, asked: str = "", seed: int = 0, case: str = name) -> bool:
            return (case, arm, asked, seed) not in keys

        for row in measure(wanted):
            rows.append(row)
            on_row(row)
    return rows


def as_text(rows: Collection[Row]) -> str:
    """All rows as JSON."""
    return json.dumps(document(list(rows)), indent=1, allow_nan=False)
