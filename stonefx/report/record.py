"""The record of one run over a model: every site, both graphs, and what was left out."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stonefx.files import write_atomically
from stonefx.passes.site import Site
from stonefx.report.compare import Comparison, compare
from stonefx.report.document import SCHEMA, document_of, fields_of
from stonefx.report.listing import graph_text
from stonefx.report.text import WIDTH, report_text
from stonefx.report.timing import alternating_seconds
from stonefx.report.totals import Totals
from stonefx.terminal import asked_width, printable, takes_colour

__all__ = ["SCHEMA", "Report", "Totals", "graph_text"]


@dataclass(kw_only=True)
class Report:
    """What stonefx did to one model; `str` gives a table.

    Args:
        sites: every site that a pass looked at: rewritten, refused or near miss.
        before: the graph before the passes, as `graph_text` writes it.
        after: the graph after the passes.
        notes: what was left out and why: submodules not captured, capture failures, graph breaks.
        seconds: pass name -> seconds it took.
        totals_before: parameters, FLOPs and bytes before the passes.
        totals_after: the same after the passes.
        backend: facts of the run: `door` ("optimize", "compile" or "explain"), `inner`, `torch`.
        weights: name of each weight that is no part of the optimized module -> names of those that hold it now.
        measured: seconds of a call `before` and `after`, where `measure` was asked for them.

    >>> print(Report(sites=[Site(pass_name="linear_chains", target="linear_chain", status="refused",
    ...     reason="the value between the layers is returned", module_path="head", source="model.py:12")]))
          sites  target        status    module    source
    --  -------  ------------  --------  --------  -----------
     1        1  linear_chain  refused   head      model.py:12
    1. the value between the layers is returned
    0 rewritten, 1 refused, 0 near misses
    """

    sites: list[Site] = field(default_factory=list)
    before: str = ""
    after: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    totals_before: Totals = field(default_factory=Totals)
    totals_after: Totals = field(default_factory=Totals)
    backend: dict[str, str] = field(default_factory=dict)
    weights: dict[str, list[str]] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """As wide as the terminal and at most 80 columns, in the colours and letters that standard output shows."""
        width = min(WIDTH, asked_width() or WIDTH)
        return printable(self.text(colour=takes_colour(sys.stdout), width=width), sys.stdout)

    def text(self, *, colour: bool = False, width: int = WIDTH) -> str:
        """What `str` gives, in colour or not, in lines of at most `width` letters.

        >>> Report().text()
        'nothing to rewrite was found'
        """
        return report_text(self, colour=colour, width=width)

    def rewritten(self, target: str | None = None) -> list[Site]:
        """The rewritten sites, of one target where it is given.

        >>> Report().rewritten("linear_chain")
        []
        """
        return [s for s in self.sites if s.status == "rewritten" and target in (None, s.target)]

    def summary(self) -> dict[str, int]:
        """Parameters, FLOPs and bytes of one call before and after (`bytes`: operands and results of nodes).

        >>> Report(totals_before=Totals(parameters=8), totals_after=Totals(parameters=2)).summary()
        ... # doctest: +NORMALIZE_WHITESPACE
        {'parameters_before': 8, 'parameters_after': 2, 'flops_before': 0, 'flops_after': 0,
         'bytes_before': 0, 'bytes_after': 0}
        """
        return {
            f"{name}_{when}": getattr(totals, name)
            for name in ("parameters", "flops", "bytes")
            for when, totals in (("before", self.totals_before), ("after", self.totals_after))
        }

    def diff(self) -> str:
        """A unified diff of the graph before and after; empty where nothing changed.

        >>> print(Report(before="%y = aten.neg(%x)", after="%y = aten.abs(%x)").diff())
        --- before
        +++ after
        @@ -1 +1 @@
        -%y = aten.neg(%x)
        +%y = aten.abs(%x)
        """
        lines = difflib.unified_diff(
            self.before.splitlines(), self.after.splitlines(), "before", "after", n=2, lineterm=""
        )
        return "\n".join(lines)

    def to_json(self, path: str | os.PathLike[str] | None = None) -> str:
        """The whole record as JSON; written to `path` in one step where it is given.

        `stonefx.report.json_schema()` is its JSON Schema.
        Numbers that JSON cannot hold are written as the strings "inf", "-inf" and "nan".

        Raises:
            FileNotFoundError: the folder of `path` does not exist.

        >>> json.loads(Report().to_json())["schema"]
        3
        """
        text = json.dumps(document_of(self), indent=2, allow_nan=False)
        if path is not None:
            write_atomically(path, text + "\n")
        return text

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote.

        Raises:
            ValueError: the text is no such report, or one of another schema.

        >>> Report.from_json(Report(notes=["decoder: not captured"]).to_json()).notes
        ['decoder: not captured']
        """
        return cls(**fields_of(json.loads(text)))

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one page that needs nothing but itself: totals, sites, graphs, what is left to win.

        Args:
            path: the file, written in one step; its folder must exist.

        Returns:
            The path written.

        Raises:
            FileNotFoundError: the folder of `path` does not exist.

        >>> import tempfile
        >>> Report().to_html(os.path.join(tempfile.mkdtemp(), "report.html")).name
        'report.html'
        """
        # The template library takes longer to import than most reports to make.
        from stonefx.report.page.render import page

        return write_atomically(path, page(self))

    def compare(self, other: Report) -> Comparison:
        """What is different from an earlier report of the same model; `regressions` is empty where nothing got worse.

        Args:
            other: the earlier report, such as `Report.from_json(text)` of one that was kept.

        Raises:
            TypeError: `other` is no report.

        >>> kept = Report(sites=[Site(pass_name="p", target="expmap0", status="rewritten")])
        >>> print(Report().compare(kept))
        regressions: 1
          expmap0: 1 site no longer rewritten
        """
        if not isinstance(other, Report):
            raise TypeError(
                f"expected a Report to compare with, got {type(other).__name__}; Report.from_json reads a kept one"
            )
        return compare(self, other)

    def measure(self, before: Callable[[], Any], after: Callable[[], Any]) -> None:
        """Time a call of the original and of what came out, in turns, and keep the medians in `measured`.

        Args:
            before, after: the calls, such as `lambda: model(x)` and `lambda: fast(x)`.

        >>> report = Report()
        >>> report.measure(lambda: None, lambda: None)
        >>> report.measured["before"] >= 0
        True
        """
        self.measured = alternating_seconds(before, after)

    @classmethod
    def merge(cls, reports: Mapping[str, Report] | Iterable[tuple[str, Report]]) -> Report:
        """One report of several submodules, module paths prefixed with the submodule's own.

        Args:
            reports: path of the submodule -> its report, in the order to be shown; as pairs where several graphs
                have one path.

        >>> site = Site(pass_name="p", target="expmap0", status="rewritten", module_path="inner")
        >>> Report.merge({"encoder.0": Report(sites=[site])}).sites[0].module_path
        'encoder.0.inner'
        """
        merged = cls()
        for path, report in reports.items() if isinstance(reports, Mapping) else reports:
            merged.sites += [
                dataclasses.replace(site, module_path=_join(path, site.module_path)) for site in report.sites
            ]
            merged.before = _section(merged.before, path, report.before)
            merged.after = _section(merged.after, path, report.after)
            merged.notes += [f"{path}: {note}" if path else note for note in report.notes]
            for name, seconds in report.seconds.items():
                merged.seconds[name] = merged.seconds.get(name, 0.0) + seconds
            merged.totals_before += report.totals_before
            merged.totals_after += report.totals_after
            merged.backend.update(report.backend)
            for old, new in report.weights.items():
                merged.weights[_join(path, old)] = [_join(path, name) for name in new]
        return merged


def _join(path: str, inner: str) -> str:
    if path and ", " in inner:
        # Several layers, all of the submodule.
        return path
    return ".".join(part for part in (path, inner) if part)


def _section(text: str, path: str, inner: str) -> str:
    return "\n".join(part for part in (text, f"{path}:" if path else "", inner) if part)
