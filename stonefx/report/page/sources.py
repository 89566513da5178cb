"""The lines of the user's code around a site, where the file can still be read."""

from __future__ import annotations

import linecache
import os
from dataclasses import dataclass

_AROUND = 3
_LONGEST = 200


@dataclass(frozen=True)
class Excerpt:
    """Some lines of a file.

    Args:
        file: its path, from the folder of the process where it lies below it.
        line: the line that is meant.
        lines: number and text of each line.
    """

    file: str
    line: int
    lines: tuple[tuple[int, str], ...]

    @property
    def text(self) -> str:
        """The line that is meant."""
        return dict(self.lines)[self.line].strip()


def excerpt(source: str) -> Excerpt | None:
    """The lines around `file.py:line`, without what all of them are indented by; None where there is no such file.

    >>> excerpt("no_such_file.py:3") is None
    True
    """
    file, _, number = source.rpartition(":")
    if not file or "\0" in file or not number.isdigit():
        return None
    meant = int(number)
    numbered = [(n, linecache.getline(file, n)) for n in range(max(1, meant - _AROUND), meant + _AROUND + 1)]
    lines = [(n, text.rstrip().expandtabs()[:_LONGEST]) for n, text in numbered if text]
    if not any(n == meant for n, _ in lines):
        return None
    while not lines[-1][1]:
        lines.pop()
    indent = min((len(text) - len(text.lstrip()) for _, text in lines if text), default=0)
    return Excerpt(shown_path(file), meant, tuple((n, text[indent:]) for n, text in lines))


def shown_path(file: str) -> str:
    """A path as a page that is passed on may show it: below the folder of the process, or its last three parts.

    >>> shown_path("/home/me/lib/python/site-packages/library/models/model.py")
    '.../library/models/model.py'
    """
    parts = os.path.normpath(file).split(os.sep)
    here = os.getcwd().split(os.sep)
    if parts[: len(here)] == here:
        return os.sep.join(parts[len(here) :])
    return f".../{'/'.join(parts[-3:])}" if len(parts) > 4 else file
