"""The record of one run over a model: every site, both graphs, and what was left out."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stonefx.passes.refusal import Refusal
from stonefx.passes.site import Site
from stonefx.report.files import write_atomically
from stonefx.report.listing import graph_text
from stonefx.report.text import report_text
from stonefx.report.totals import Totals

__all__ = ["SCHEMA", "Report", "Totals", "graph_text"]

SCHEMA = 2
_READ = (1, 2)  # 1 had no codes and figures
_PUBLIC = (
    "pass_name",
    "target",
    "status",
    "reason",
    "code",
    "figures",
    "module_path",
    "source",
    "nodes",
    "guards",
    "params_before",
    "params_after",
    "flops_before",
    "flops_after",
    "original_error",
    "max_error",
    "bound",
)


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

    >>> print(Report(sites=[Site(pass_name="linear_chains", target="linear_chain", status="refused",
    ...     reason="the value between the layers is returned", module_path="head", source="model.py:12")]))
    target        status    module    source       reason
    ------------  --------  --------  -----------  ----------------------------------------
    linear_chain  refused   head      model.py:12  the value between the layers is returned
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

    def __str__(self) -> str:
        return report_text(self.sites, self.summary(), self.notes, self.backend, self.weights)

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

        Numbers that JSON cannot hold are written as the strings "inf", "-inf" and "nan".

        Raises:
            FileNotFoundError: the folder of `path` does not exist.

        >>> json.loads(Report().to_json())["schema"]
        2
        """
        document = {
            "schema": SCHEMA,
            "backend": self.backend,
            "summary": self.summary(),
            "sites": [{name: getattr(site, name) for name in _PUBLIC} for site in self.sites],
            "notes": self.notes,
            "seconds": self.seconds,
            "weights": self.weights,
            "before": self.before,
            "after": self.after,
        }
        text = json.dumps(_plain(document), indent=2, allow_nan=False)
        if path is not None:
            write_atomically(path, text + "\n")
        return text

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote.

        Raises:
            ValueError: the text has another schema.

        >>> Report.from_json(Report(notes=["decoder: not captured"]).to_json()).notes
        ['decoder: not captured']
        """
        document = json.loads(text)
        if document.get("schema") not in _READ:
            raise ValueError(f"expected a report of schema {SCHEMA} or 1, got {document.get('schema')!r}")
        summary = document["summary"]
        before, after = (
            Totals(**{name: summary[f"{name}_{when}"] for name in ("parameters", "flops", "bytes")})
            for when in ("before", "after")
        )
        same = ("before", "after", "notes", "seconds", "backend", "weights")
        return cls(
            sites=[_site(facts) for facts in document["sites"]],
            totals_before=before,
            totals_after=after,
            **{name: document[name] for name in same},
        )

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


def _site(facts: dict[str, Any]) -> Site:
    # JSON has no infinity, and no tuples.
    numbers = {
        name: float(facts[name])
        for name in ("original_error", "max_error", "bound")
        if facts.get(name) is not None
    }
    code, figures = facts.pop("code", ""), facts.pop("figures", {})
    site = Site(**facts | numbers | {"nodes": tuple(facts["nodes"])})
    if code:
        site.reason = Refusal.restored(str(site.reason), str(code), dict(figures))
    return site


def _plain(value: Any) -> Any:
    """The same value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    return str(value)
