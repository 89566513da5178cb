"""A small drawing of some nodes of a graph: boxes, lines between them and where each goes; networkx lays it out."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from stonefx.passes.site import Site
from stonefx.report.page.listed import Line

# A graph of networkx, which has no types; and a node in it: a value by name, or a place that an edge passes.
Graph: TypeAlias = Any
Stop: TypeAlias = str | tuple[str, str, int]

_MOST = 24
_LETTER, _ROW, _PAD = 7.2, 62, 10
_BOX, _GAP = 38, 16


@dataclass(frozen=True)
class Box:
    """A node: its operator, its type, its middle, and what it is: `input`, `weight`, `node` or `end`."""

    title: str
    type: str
    kind: str
    x: float
    y: float
    width: float
    height: float = _BOX


@dataclass(frozen=True)
class Drawing:
    """Boxes and the paths (of SVG) between them; equal drawings are equal, whatever their nodes are called."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    paths: tuple[str, ...]
    left_out: int = 0


def nodes_before(site: Site, values: Mapping[str, Line]) -> list[str]:
    """The values of a site in the graph before the passes and those between them, in its order."""
    named = {f"%{name}" for name in (*site.nodes, site.output) if name}
    found = {name for name in named if name in values}
    if not found:
        return []
    first, last = (pick(values[name].number for name in found) for pick in (min, max))
    lines = list(values.values())
    start, end = (bisect(lines, number, key=lambda line: line.number) for number in (first, last - 1))
    between = [line for line in lines[start:end] if line.name.startswith("%") and line.operator != "input"]
    # What is computed from one of them and read by another one.
    behind = set(found)
    for line in between:
        if not behind.isdisjoint(line.reads):
            behind.add(line.name)
    ahead = set(found)
    for line in sorted((values[name] for name in behind), key=lambda line: -line.number):
        if line.name in ahead:
            ahead.update(line.reads)
    return sorted(behind & ahead, key=lambda name: values[name].number)


def nodes_after(site: Site, values: Mapping[str, Line], before: Mapping[str, Line]) -> list[str]:
    """What computes the site's output now: from it back to what the site is given.

    Args:
        site: a site.
        values: the lines of the graph after the passes, by name.
        before: the lines of the graph before them; a value that it has outside of the site is given.
    """
    inside = set(nodes_before(site, before))
    given = {f"%{name}" for name in site.inputs} | (before.keys() - inside)
    last = f"%{site.replacement or site.output or (site.nodes[-1] if site.nodes else '')}"
    found: dict[str, None] = {}
    stack = [last]
    while stack and len(found) < 4 * _MOST:
        name = stack.pop()
        line = values.get(name)
        if line is None or line.operator == "input" or name in found or (name in given and name != last):
            continue
        found[name] = None
        if line.operator != "fold":
            stack += line.reads
    return sorted(found, key=lambda name: values[name].number)


def draw(names: Iterable[str], values: Mapping[str, Line]) -> Drawing | None:
    """Draw some values, with what they read as inputs above them; None where there is nothing to draw.

    Args:
        names: the values, in the order of the graph.
        values: the lines of the graph by name.
    """
    import networkx

    chosen = list(names)
    shown = chosen[-_MOST:]
    if not shown:
        return None
    graph = networkx.DiGraph()
    for name in shown:
        graph.add_node(name)
        # Weights are named in the formula; a drawing of them would be all weights.
        for read in values[name].reads if values[name].operator != "fold" else ():
            if (read.startswith("%") or read in shown) and read != name:
                graph.add_edge(read, name)
    places, rows = _places(graph)
    widths: dict[Stop, float] = {name: _width(values.get(name), name in shown) for name in graph}
    across = max(sum(widths.get(stop, 0) + _GAP for stop in row) for row in rows)
    middle = _middles(places, rows, widths, across)
    boxes = []
    for name in graph:
        line, inside = values.get(name), name in shown
        kind = "input" if not inside else "weight" if line and line.operator == "fold" else "node"
        if inside and graph.out_degree(name) == 0:
            kind = "end"
        x, y = middle[name]
        boxes.append(Box(_title(line, inside), line.type if line else "", kind, x, y, widths[name]))
    paths = tuple(_path(middle, edge) for edge in _routes(graph, rows))
    height = len(rows) * _ROW - (_ROW - _BOX) + 4
    return Drawing(round(across, 1), height, tuple(boxes), paths, len(chosen) - len(shown))


def _middles(
    places: Mapping[Stop, float], rows: Sequence[Sequence[Stop]], widths: Mapping[Stop, float], across: float
) -> dict[Stop, tuple[float, float]]:
    """The middle of each box, rows centred one below the other."""
    middle: dict[Stop, tuple[float, float]] = {}
    for level, row in enumerate(rows):
        left = (across - sum(widths.get(stop, 0) + _GAP for stop in row)) / 2
        for stop in sorted(row, key=lambda each: places[each]):
            own = widths.get(stop, 0) + _GAP
            middle[stop] = (round(left + own / 2, 1), level * _ROW + _BOX / 2 + 2)
            left += own
    return middle


def _places(graph: Graph) -> tuple[dict[Stop, float], list[list[Stop]]]:
    """The place of each node within its row, and the rows, from what is given to what comes out.

    An edge that passes rows has an invisible node in each, so that it goes around the boxes.
    """
    import networkx

    level: dict[Stop, int] = {}
    for number, generation in enumerate(networkx.topological_generations(graph)):
        level.update(dict.fromkeys(generation, number))
    # What is given stands right above what reads it.
    for name in list(graph):
        if graph.in_degree(name) == 0:
            level[name] = min((level[user] for user in graph.successors(name)), default=1) - 1
    full = networkx.DiGraph()
    full.add_nodes_from(graph)
    for start, end in graph.edges:
        stops = [start, *((start, end, step) for step in range(level[start] + 1, level[end])), end]
        for step, stop in enumerate(stops[1:-1], level[start] + 1):
            level[stop] = step
        networkx.add_path(full, stops)
    networkx.set_node_attributes(full, {name: level[name] for name in full}, "level")
    layout = networkx.multipartite_layout(full, subset_key="level", align="horizontal")
    place = {name: float(position[0]) for name, position in layout.items()}
    rows = [[name for name in full if level[name] == number] for number in range(max(level.values()) + 1)]
    for row in [*rows, *reversed(rows), *rows]:
        near = {
            name: [place[other] for other in (*full.predecessors(name), *full.successors(name))]
            for name in row
        }
        centre = {name: sum(each) / len(each) if each else place[name] for name, each in near.items()}
        # What only passes goes by on the right, in every row alike.
        ordered = sorted(row, key=lambda name: (round(centre[name], 3), isinstance(name, tuple), place[name]))
        for name, new in zip(ordered, sorted(place[each] for each in row), strict=True):
            place[name] = new
    return place, rows


def _routes(graph: Graph, rows: Sequence[Sequence[Stop]]) -> list[list[Stop]]:
    passing: dict[tuple[str, str], list[Stop]] = {}
    for row in rows:
        for name in row:
            if isinstance(name, tuple):
                passing.setdefault((name[0], name[1]), []).append(name)
    return [[start, *passing.get((start, end), []), end] for start, end in graph.edges]


def _path(middle: Mapping[Stop, tuple[float, float]], stops: Sequence[Stop]) -> str:
    """A smooth line from the lower edge of the first box to the upper edge of the last one."""
    points = [middle[stop] for stop in stops]
    (x, y), (end_x, end_y) = points[0], points[-1]
    points = [(x, y + _BOX / 2), *points[1:-1], (end_x, end_y - _BOX / 2)]
    steps = [f"M{points[0][0]:g} {points[0][1]:g}"]
    for (x, y), (to_x, to_y) in pairwise(points):
        half = (y + to_y) / 2
        steps.append(f"C{x:g} {half:g} {to_x:g} {half:g} {to_x:g} {to_y:g}")
    return "".join(steps)


def _title(line: Line | None, inside: bool) -> str:
    if not inside or line is None:
        return "input"
    if line.operator == "fold":
        return "folded weight"
    return (
        line.operator.removeprefix("aten.").split(".")[0]
        if line.operator.startswith("aten.")
        else line.operator
    )


def _width(line: Line | None, inside: bool) -> float:
    longest = max(len(_title(line, inside)), len(line.type) if line else 0)
    return round(longest * _LETTER + 2 * _PAD, 1)
