"""The report as a document of JSON's own types; `schemas/` has the JSON Schema of this document and of the others."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

from stonefx.passes.refusal import Refusal
from stonefx.passes.site import Site
from stonefx.report.totals import Totals

if TYPE_CHECKING:
    from stonefx.report.record import Report

SCHEMA = 3
_READ = (1, 2, 3)  # 1 had no codes and figures; 2 no times, and not which nodes a site reads and gives
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
    "inputs",
    "output",
    "replacement",
    "guards",
    "params_before",
    "params_after",
    "flops_before",
    "flops_after",
    "seconds_before",
    "seconds_after",
    "original_error",
    "max_error",
    "bound",
)
_SAME = ("notes", "seconds", "weights", "before", "after")
_FLOATS = ("seconds_before", "seconds_after", "original_error", "max_error", "bound")


def json_schema(document: str = "report") -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `Report.to_json` writes, or of what `--json` of another command does.

    Args:
        document: "report", "compress", "bench", "bench-growth", "bench-compress", "doctor", "doctor-measure" or "demo".

    Raises:
        ValueError: there is no such document.

    >>> json_schema()["properties"]["schema"]
    {'const': 3}
    """
    folder = resources.files("stonefx.report").joinpath("schemas")
    names = sorted(
        file.name.removesuffix(".json") for file in folder.iterdir() if file.name.endswith(".json")
    )
    if document not in names:
        raise ValueError(f"expected one of {', '.join(names)}, got {document!r}")
    return dict(json.loads(folder.joinpath(f"{document}.json").read_text(encoding="utf-8")))


def document_of(report: Report) -> dict[str, Any]:
    """The document of a report; numbers that JSON cannot hold are the strings "inf", "-inf" and "nan"."""
    document = {
        "schema": SCHEMA,
        "backend": report.backend,
        "summary": report.summary(),
        "measured": report.measured,
        "sites": [
            {name: getattr(site, name) for name in _PUBLIC} | {"cure": getattr(site.reason, "cure", "")}
            for site in report.sites
        ],
    }
    return dict(plain(document | {name: getattr(report, name) for name in _SAME}))


def fields_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a document says, as arguments of `Report`.

    Raises:
        ValueError: the document is of another schema, or no report.
    """
    if not isinstance(document, Mapping) or document.get("schema") not in _READ:
        got = document.get("schema") if isinstance(document, Mapping) else type(document).__name__
        raise ValueError(
            f"expected a report of schema {SCHEMA} or an earlier one, as report.to_json() writes it, got {got!r}"
        )
    missing = [name for name in ("summary", "sites", "backend", *_SAME) if name not in document]
    if missing:
        raise ValueError(
            f"expected a report as report.to_json() writes it, but {', '.join(missing)} is missing"
        )
    summary = document["summary"]
    before, after = (
        Totals(**{name: summary[f"{name}_{when}"] for name in ("parameters", "flops", "bytes")})
        for when in ("before", "after")
    )
    return {
        "sites": [_site(facts) for facts in document["sites"]],
        "totals_before": before,
        "totals_after": after,
        "backend": document["backend"],
        **{name: document[name] for name in _SAME},
        # JSON has no infinity.
        "seconds": {name: float(value) for name, value in document["seconds"].items()},
        "measured": {name: float(value) for name, value in document.get("measured", {}).items()},
    }


def _site(facts: Mapping[str, Any]) -> Site:
    # JSON has no infinity, and no tuples.
    known = {name: value for name, value in facts.items() if name in _PUBLIC}
    code, figures = known.pop("code", ""), known.pop("figures", {})
    numbers: dict[str, Any] = {name: float(known[name]) for name in _FLOATS if known.get(name) is not None}
    names: dict[str, Any] = {name: tuple(known[name]) for name in ("nodes", "inputs") if name in known}
    site = Site(**known | numbers | names)
    if code:
        site.reason = Refusal.restored(str(site.reason), str(code), dict(figures))
    return site


def plain(value: Any) -> Any:
    """The same value in JSON's own types; numbers that it cannot hold are "inf", "-inf" and "nan".

    >>> plain({"error": float("nan"), "shape": (2, 3)})
    {'error': 'nan', 'shape': [2, 3]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return str(value)
    if value is None or isinstance(value, bool | int):
        return value
    return str(value)
