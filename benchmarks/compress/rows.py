"""One row of the results: what was asked of a model, what it became, and what it then scored."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stonefx.benchmarks.machine import machine_facts
from stonefx.files import save_figure
from stonefx.terminal import table as fitted

SCHEMA = 1
VERSIONS = ("torch", "transformers", "numpy", "scipy", "scikit-learn", "gensim", "gguf", "torchao")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm of a case.

    Args:
        case: as in `CASES`.
        arm: the recipe.
        asked: the ratio or the floor, as text: "0.8", "floor 0.99".
        ratio: bytes after over before of the layers worked on; None where nothing came of it.
        metrics: name -> value.
        intervals: name of a metric -> 95 % interval.
        seconds: stage -> seconds.
        splits: how many samples calibrated, selected, confirmed, tested.
        seed: of data and probes.
        note: what a reader should know.
        commit: of the code that measured it.
    """

    case: str
    arm: str
    asked: str = ""
    ratio: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    note: str = ""
    commit: str = ""

    @property
    def key(self) -> tuple[str, str, str, int]:
        """What tells it from other rows."""
        return self.case, self.arm, self.asked, self.seed


class UnusableFile(ValueError):
    """A file of results cannot be read or drawn; the message says why."""


Wanted = Callable[..., bool]
"""`wanted(arm, asked="", seed=0)`: whether a row of the case is still to be measured."""


def versions() -> dict[str, str]:
    """Of the packages that figures depend on, where they are installed."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def document(rows: Sequence[Row]) -> dict[str, Any]:
    """All rows in JSON's own types."""
    return {
        "schema": SCHEMA,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "versions": versions(),
        "rows": [asdict(row) for row in rows],
    }


def earlier(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file.

    Raises:
        UnusableFile: it holds something else.
    """
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    if found.get("schema") != SCHEMA or not isinstance(found.get("rows"), list):
        raise UnusableFile(f"{path} holds no rows of schema {SCHEMA}; choose another file")
    return [
        Row(**row | {"intervals": {k: (v[0], v[1]) for k, v in row["intervals"].items()}})
        for row in found["rows"]
    ]


def table(rows: Sequence[Row]) -> str:
    """Rows as text, a table a case.

    >>> print(table([Row(case="a", arm="dense", ratio=1.0, metrics={"cosine": 1.0})]))
    a
    arm    asked      bytes    cosine
    -----  -------  -------  --------
    dense                 1         1
    """
    parts = []
    for case in dict.fromkeys(row.case for row in rows):
        own = [row for row in rows if row.case == case]
        names = list(dict.fromkeys(name for row in own for name in row.metrics))
        seeds = len({row.seed for row in own}) > 1
        body = [
            [
                row.arm,
                row.asked,
                *([str(row.seed)] if seeds else []),
                "" if row.ratio is None else f"{row.ratio:.4g}",
                *(_figure(row, name) for name in names),
            ]
            for row in own
        ]
        headers = ["arm", "asked", *(["seed"] if seeds else []), "bytes", *names]
        parts.append(f"{case}\n{fitted(body, headers, right=range(2, len(headers)))}")
    return "\n\n".join(parts)


def _figure(row: Row, name: str) -> str:
    if name not in row.metrics:
        return ""
    value = f"{row.metrics[name]:.4g}"
    if name in row.intervals:
        low, high = row.intervals[name]
        return f"{value} [{low:.4g}, {high:.4g}]"
    return value


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the first metric of each case over the bytes, a line an arm.

    Raises:
        UnusableFile: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UnusableFile("--plot needs matplotlib; run: pip install matplotlib") from None
    drawn = [row for row in rows if row.ratio is not None and row.metrics]
    cases = list(dict.fromkeys(row.case for row in drawn))
    figure = Figure(figsize=(6, 4 * max(len(cases), 1)), layout="constrained")
    for place, case in enumerate(cases, start=1):
        axes = figure.add_subplot(len(cases), 1, place)
        own = [row for row in drawn if row.case == case]
        metric = next(iter(own[-1].metrics))
        for arm in dict.fromkeys(row.arm for row in own):
            points = sorted((r.ratio, r.metrics[metric]) for r in own if r.arm == arm and metric in r.metrics)
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", label=arm)
        axes.set(title=case, xlabel="bytes after over before", ylabel=metric)
        axes.legend(fontsize="x-small")
    save_figure(figure, path, dpi=120)
