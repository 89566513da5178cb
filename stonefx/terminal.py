"""What a terminal shows: how wide, in which colours, in which letters; tables that fit."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Collection, Sequence
from typing import TextIO

from tabulate import tabulate

_BREAKS = "._/:, "
_NARROW = 10  # letters below which a column of words is no column any more
_LEAST = 20


def asked_width() -> int | None:
    """The columns of the terminal, or what `COLUMNS` says; None where the output is a file or a pipe."""
    asked = os.environ.get("COLUMNS", "")
    if asked.isdecimal() and int(asked) > 0:
        return max(_LEAST, int(asked))
    try:
        found = os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 0
    except (AttributeError, OSError, ValueError):
        return None
    return max(_LEAST, found) if found else None


def takes_colour(stream: TextIO | None) -> bool:
    """Whether what is printed to a stream is shown in colour.

    On a terminal, unless `NO_COLOR` asks for none or it is a dumb one; elsewhere where `FORCE_COLOR` asks for it.

    >>> import io
    >>> takes_colour(io.StringIO())
    False
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    if os.environ.get("TERM") == "dumb":
        return False
    return stream is not None and not stream.closed and stream.isatty()


def printable(text: str, stream: TextIO | None) -> str:
    r"""A text in the letters that a stream can write, the others escaped.

    >>> import io
    >>> printable("größe -> 1", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    'gr\\xf6\\xdfe -> 1'
    """
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        return text.encode(encoding, "backslashreplace").decode(encoding)
    except LookupError:
        return text


def fit(text: str, width: int | None = None) -> str:
    """A text whose lines are no longer than asked, broken between words; what goes on is indented.

    Args:
        text: any lines; those of tables fit by themselves.
        width: at most so many letters a line; what the terminal shows, if left out.

    >>> print(fit("accuracy kept: 0.99, on 64 samples", 24))
    accuracy kept: 0.99, on
      64 samples
    """
    width = asked_width() if width is None else width
    if width is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        if len(line) <= width or "\x1b" in line:
            lines.append(line)
        else:
            lines += wrapped(line, width, " " * (len(line) - len(line.lstrip(" "))))
    return "\n".join(lines)


def wrapped(text: str, width: int, indent: str = "", later: str | None = None) -> list[str]:
    """Lines of at most `width` letters; a word that is longer is broken.

    Args:
        text: words, without regard to its own indentation.
        width: of a line.
        indent: before the first line.
        later: before the others; two letters more, if left out.
    """
    return textwrap.wrap(
        text.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  " if later is None else later,
        break_on_hyphens=False,
    )


def table(
    rows: Sequence[Sequence[str]],
    headers: Sequence[str] = (),
    *,
    right: Collection[int] = (),
    width: int | None = None,
) -> str:
    """A table that fits: columns of words are made narrower, and where that is not enough each row is a list.

    Args:
        rows: cells; all rows of one length.
        headers: of the columns; without them nothing is drawn between the rows.
        right: numbers of the columns that are aligned on the right and not broken.
        width: at most so many letters a line; what the terminal shows, if left out.

    >>> print(table([["layer.0.attention.output", "1"]], ["layer", "rank"], right=[1], width=24))
    layer               rank
    ----------------  ------
    layer.0.               1
    attention.output
    >>> print(table([["layer.0.attention.output", "dense"]], ["layer", "form"], width=17))
    layer: layer.0.
      attention.
      output
    form: dense
    """
    width = asked_width() if width is None else width
    count = max([len(headers), *map(len, rows)], default=0)
    # tabulate makes a column two wider than its header.
    least = [len(header) + 2 for header in headers] or [0] * count
    widths = [max([least[i], *(len(row[i]) for row in rows)]) for i in range(count)]
    if width is not None:
        room = width - 2 * (count - 1)
        floors = [widths[i] if i in right else min(widths[i], max(least[i], _NARROW)) for i in range(count)]
        if sum(floors) > room:
            return _as_lists(rows, headers, width)
        while sum(widths) > room:
            widest = max((i for i in range(count) if widths[i] > floors[i]), key=widths.__getitem__)
            widths[widest] -= 1
    cells = [["\n".join(_broken(row[i], widths[i])) for i in range(count)] for row in rows]
    text = tabulate(
        cells,
        headers=headers,
        disable_numparse=True,
        tablefmt="simple" if headers else "plain",
        colalign=["right" if i in right else "left" for i in range(count)] if rows else None,
    )
    return "\n".join(line.rstrip() for line in text.splitlines())


def _as_lists(rows: Sequence[Sequence[str]], headers: Sequence[str], width: int) -> str:
    blocks = []
    for row in rows:
        lines: list[str] = []
        if headers:
            pairs = [(head, cell) for head, cell in zip(headers, row, strict=True) if cell]
        else:
            pairs = [(row[0], " ".join(row[1:]))]
        for head, cell in pairs:
            words = f"{head}: {cell}" if head else cell
            for number, part in enumerate(_pieces(words, width)):
                lines.append(part if number == 0 else f"  {part}")
        blocks.append("\n".join(lines))
    return ("\n\n" if headers else "\n").join(blocks)


def _pieces(text: str, width: int) -> list[str]:
    first, *rest = _broken(text, width)
    return [first, *(_broken("".join(rest), width - 2) if rest else [])]


def _broken(text: str, width: int) -> list[str]:
    """A path or name in pieces that fit, broken behind dots and slashes where there are any."""
    lines: list[str] = []
    for rest in text.split("\n"):
        while len(rest) > width:
            at = max((rest.rfind(mark, 0, width) + 1 for mark in _BREAKS), default=0)
            at = at if at > width // 3 else width
            lines.append(rest[:at].rstrip())
            rest = rest[at:].lstrip()
        lines.append(rest)
    return lines
