"""Reads the lines of `graph_text` again: which value is computed by what, from what, in which part of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stonefx.passes.site import Site


@dataclass(frozen=True)
class Line:
    """One line of a listing.

    Args:
        number: its place in the text, counted from 0.
        text: the whole line.
        part: the submodule or nested graph whose heading it stands under; empty without a heading.
        name: the value that it gives, such as `%linear_1`, or the name of a fold; empty for headings and `return`.
        type: the value's type, such as `f32[4, 8]`; may be empty.
        operator: such as `aten.linear`; `input` and `fold` for these.
        arguments: what it is called with, split at the outer commas.
    """

    number: int
    text: str
    part: str
    name: str = ""
    type: str = ""
    operator: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The values and folds that the arguments name, each once."""
        names = (name for argument in self.arguments for name in _REFERENCE.findall(argument))
        return tuple(dict.fromkeys(names))


_VALUE = re.compile(r"\s*(\S+?)(?:: ([a-z]\w*(?:\[.*?\])?))? = (\S+?)(?:\((.*)\))?(?:  # .*)?$")
_HEADING = re.compile(r"(\s*)(\S.*):$")
_REFERENCE = re.compile(
    r"%[\w.]+|[A-Za-z_][\w.]*(?:\+[A-Za-z_0-9][\w.]*)*|\d+(?:\.\d+)*\.[A-Za-z_][\w.]*(?:\+[\w.]+)*"
)


def read_listing(text: str) -> list[Line]:
    """The lines of a graph, as `graph_text` writes it.

    >>> line = read_listing("%y: f32[4, 2] = aten.linear(%x, head.weight, None)  # model.py:12")[0]
    >>> line.name, line.type, line.operator, line.arguments
    ('%y', 'f32[4, 2]', 'aten.linear', ('%x', 'head.weight', 'None'))
    """
    lines, part = [], ""
    for number, line in enumerate(text.splitlines()):
        heading = _HEADING.fullmatch(line)
        if heading:
            part = heading[2]
            lines.append(Line(number, line, part))
            continue
        value = _VALUE.fullmatch(line)
        if value is None:
            lines.append(Line(number, line, part))
            continue
        name, kind, operator, arguments = value.groups()
        lines.append(Line(number, line, part, name, kind or "", operator, _split(arguments or "")))
    return lines


class Listing:
    """A listing in which values are looked up by the site that names them.

    Args:
        text: as `graph_text` writes it, or several of these under headings.
    """

    def __init__(self, text: str) -> None:
        self.lines = read_listing(text)
        self._parts: dict[str, dict[str, Line]] = {}
        for line in self.lines:
            if line.name:
                # Several graphs may have one heading: the first that has a name is meant, as it is the one shown first.
                self._parts.setdefault(line.part, {}).setdefault(line.name, line)

    def values(self, site: Site) -> dict[str, Line]:
        """The lines by name, of the part of the model that a site stands in."""
        inside = [part for part in self._parts if not part or f"{site.module_path}.".startswith(f"{part}.")]
        names = {f"%{name}" for name in (*site.nodes, site.output) if name}
        best = max(
            inside or list(self._parts), key=lambda part: len(names & self._parts[part].keys()), default=""
        )
        return self._parts.get(best, {})


def _split(arguments: str) -> tuple[str, ...]:
    """Arguments apart, at the commas that stand in no bracket."""
    found, depth, start = [], 0, 0
    for place, letter in enumerate(arguments):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            found.append(arguments[start:place].strip())
            start = place + 1
    last = arguments[start:].strip()
    return (*found, last) if last else tuple(found)
