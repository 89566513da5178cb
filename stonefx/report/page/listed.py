"""Reads the lines of `graph_text` again: which value is computed by what, from what, in which part of the model."""

from __future__ import annotations

import re
from dataclasses import dataclass

from stonefx.passes.site import Site
from stonefx.report.listing import short_source


@dataclass(frozen=True)
class Line:
    """One line of a listing.

    Args:
        number: its place in the text, counted from 0.
        text: the whole line.
        graph: which of the graphs of the text it belongs to, counted from 0.
        part: the heading of that graph, a submodule or the name of a graph inside of another; may be empty.
        name: the value that it gives, such as `%linear_1`, or the name of a fold; empty for headings and `return`.
        type: the value's type, such as `f32[4, 8]`; may be empty.
        operator: such as `aten.linear`; `input` and `fold` for these.
        arguments: what it is called with, split at the outer commas.
    """

    number: int
    text: str
    graph: int
    part: str
    name: str = ""
    type: str = ""
    operator: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """The values and folds that the arguments name, each once."""
        names = (name for argument in self.arguments for name in _REFERENCE.findall(argument))
        return tuple(name for name in dict.fromkeys(names) if name not in _CONSTANTS)


_CONSTANTS = ("None", "True", "False", "inf", "nan")
_VALUE = re.compile(r"\s*(\S+?)(?:: ([a-z]\w*(?:\[.*?\])?))? = (\S+?)(?:\((.*)\))?(?:  # .*)?$")
_HEADING = re.compile(r"\s*(\S.*):$")
_REFERENCE = re.compile(
    r"%[\w.]+|[A-Za-z_][\w.]*(?:\+[A-Za-z_0-9][\w.]*)*|\d+(?:\.\d+)*\.[A-Za-z_][\w.]*(?:\+[\w.]+)*"
)


def read_listing(text: str) -> list[Line]:
    """The lines of a graph, as `graph_text` writes it, or of several under the headings of `Report.merge`.

    >>> line = read_listing("%y: f32[4, 2] = aten.linear(%x, head.weight, None)  # model.py:12")[0]
    >>> line.name, line.type, line.operator, line.arguments
    ('%y', 'f32[4, 2]', 'aten.linear', ('%x', 'head.weight', 'None'))
    """
    lines: list[Line] = []
    texts = text.splitlines()
    graphs = 0
    # Indent, graph and heading of what a line may belong to; a graph inside of another one is indented.
    stack = [(0, 0, "")]
    for number, line in enumerate(texts):
        indent = _indent(line)
        while stack[-1][0] > indent and len(stack) > 1:
            stack.pop()
        heading = _HEADING.fullmatch(line)
        if heading:
            graphs += 1
            inside = _indent(texts[number + 1]) if number + 1 < len(texts) else indent
            if inside > indent:
                stack.append((inside, graphs, heading[1]))
            else:
                stack[-1] = (indent, graphs, heading[1])
        elif lines and lines[-1].text.startswith("return ") and lines[-1].graph == stack[-1][1]:
            # A graph has ended, and another one without a heading begins.
            graphs += 1
            stack[-1] = (indent, graphs, "")
        value = None if heading else _VALUE.fullmatch(line)
        place = stack[-1][1:]
        if value is None:
            lines.append(Line(number, line, *place))
            continue
        name, kind, operator, arguments = value.groups()
        lines.append(Line(number, line, *place, name, kind or "", operator, _split(arguments or "")))
    return lines


def _indent(text: str) -> int:
    return len(text) - len(text.lstrip(" "))


class Listing:
    """A listing in which values are looked up by the site that names them.

    Args:
        text: as `graph_text` writes it, or several of these under headings.
    """

    def __init__(self, text: str) -> None:
        self._graphs: dict[tuple[int, str], dict[str, Line]] = {}
        for line in read_listing(text):
            if line.name:
                self._graphs.setdefault((line.graph, line.part), {}).setdefault(line.name, line)

    def values(self, site: Site) -> dict[str, Line]:
        """The lines by name, of the graph that a site stands in."""
        graphs = list(self._graphs.items())
        inside = [
            values
            for (_, part), values in graphs
            if not part or f"{site.module_path}.".startswith(f"{part}.")
        ]
        names = {f"%{name}" for name in (*site.nodes, site.output) if name}
        source = f"# {short_source(site.source)}"

        def fit(values: dict[str, Line]) -> tuple[int, bool]:
            known = names & values.keys()
            return len(known), any(values[name].text.endswith(source) for name in known)

        return max(inside or [values for _, values in graphs], key=fit, default={})


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
