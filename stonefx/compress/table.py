"""`stats.report`: the layers as a table, and what it all came to."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..terminal import fit, printable, table

if TYPE_CHECKING:
    from .stats import CompressionStats, LayerRow

_HEADERS = ("layer", "shape", "form", "rank", "bytes", "microseconds a call", "loss", "why")


def report_text(stats: CompressionStats) -> str:
    """The table, the reasons, the totals and the notes.

    Layers in a row that stay for the same reason share a line. A long reason is a number in the table and written once
    below it.
    """
    numbers: dict[str, int] = {}
    headers, rows = cells(stats, numbers)
    parts = []
    if rows:
        ranks = [i for i, header in enumerate(headers) if header == "rank"]
        parts.append(table(rows, headers, right=ranks))
    parts += [f"[{number}] {reason}" for reason, number in numbers.items()]
    parts += totals(stats)
    parts += [f"note: {note}" for note in stats.notes]
    return printable(fit("\n".join(parts)), sys.stdout)


def cells(
    stats: CompressionStats, numbers: dict[str, int] | None = None
) -> tuple[list[str], list[list[str]]]:
    """The headers and the rows of the table, without the columns that are empty.

    Args:
        stats: what is shown.
        numbers: takes long reasons, each with the number that stands in the table for it; without it they stand there.
    """
    rows = [_row(group, numbers) for group in _groups(stats.layers)]
    columns = [i for i in range(len(_HEADERS)) if any(row[i] != "" for row in rows)]
    return [_HEADERS[i] for i in columns], [[row[i] for i in columns] for row in rows]


def _groups(rows: list[LayerRow]) -> list[list[LayerRow]]:
    groups: dict[Any, list[LayerRow]] = {}
    for row in rows:
        alone = row.path if row.form != "dense" else ""
        groups.setdefault((alone, row.shape, row.form, row.reason), []).append(row)
    return list(groups.values())


def _row(group: list[LayerRow], numbers: dict[str, int] | None) -> list[str]:
    row = group[0]
    path = row.path or "the model"
    if len(group) > 1:
        path += f" (+{len(group) - 1} more)"
    before, after = sum(r.bytes_before for r in group), sum(r.bytes_after for r in group)
    size = short_bytes(before) if before == after else f"{short_bytes(before)} -> {short_bytes(after)}"
    losses = [f"{v:.2g}" for v in (row.predicted, row.measured) if v is not None]
    return [
        path,
        row.shape,
        row.form,
        "" if row.rank is None else str(row.rank),
        size,
        _microseconds(row),
        " / ".join(losses),
        _why(row.reason, numbers),
    ]


def _microseconds(row: LayerRow) -> str:
    if row.seconds_before is None:
        return ""
    before = f"{1e6 * row.seconds_before:,.0f}"
    if row.seconds_after is None or row.form == "dense":
        return before
    return f"{before} -> {1e6 * row.seconds_after:,.0f}"


def _why(reason: str, numbers: dict[str, int] | None) -> str:
    if numbers is None or len(reason) <= 44:
        return reason
    return f"[{numbers.setdefault(reason, len(numbers) + 1)}]"


def totals(stats: CompressionStats) -> list[str]:
    """What it all came to, a sentence a line."""
    lines = [
        f"stored: {stats.compression_ratio:.2%} of the bytes of the layers chosen, {stats.model_ratio:.2%} of the "
        f"model's; exact merging alone leaves {stats.lossless_ratio:.2%} of the parameters"
    ]
    if stats.call_seconds_before and stats.call_seconds_after:
        before, after = stats.call_seconds_before, stats.call_seconds_after
        lines.append(
            f"a call of the model: {1e3 * before:.3g} -> {1e3 * after:.3g} milliseconds "
            f"({before / after:.2f} times as fast)"
        )
    confidence = stats.settings.get("confidence", 0.95)
    if stats.accuracy_preserved is not None:
        samples = stats.samples.get("confirm", 0)
        line = f"accuracy kept: {stats.accuracy_preserved:.4f}"
        if stats.accuracy_lower is not None and samples:
            line += f", at least {stats.accuracy_lower:.4f} with {confidence:.0%} confidence"
        lines.append(line + (f", on {samples} samples that chose nothing" if samples else ""))
    if stats.reloaded_accuracy is not None:
        lines.append(f"accuracy of the saved model, read back: {stats.reloaded_accuracy:.4f}")
    lines.append(f"{_asked(stats)}: {_REACHED[stats.reached]}")
    return lines


_REACHED = {True: "reached", False: "not reached", None: "not checked, since there was no data"}


def _asked(stats: CompressionStats) -> str:
    settings = stats.settings
    if settings.get("max_ratio") is not None:
        return f"at most {settings['max_ratio']:.2%} of the bytes"
    if settings.get("max_seconds") is not None:
        return f"at most {1e3 * settings['max_seconds']:.3g} milliseconds a call"
    return f"at least {settings.get('min_accuracy', 0.95):g} of the accuracy"


def short_bytes(size: int) -> str:
    """A number of bytes in a few characters.

    >>> [short_bytes(n) for n in (0, 999, 4128, 33_554_432)]
    ['0 B', '999 B', '4.13 kB', '33.6 MB']
    """
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= limit:
            return f"{size / limit:.3g} {unit}"
    return f"{size} B"
