"""Writes the page: the template, with style and script inside, so that the file needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stonefx.report.kinds import STATUSES
from stonefx.report.listing import short_source
from stonefx.report.page.content import content_of, cure_of
from stonefx.report.text import short_number, short_seconds

if TYPE_CHECKING:
    from stonefx.report.record import Report

_FOLDER = Path(__file__).parent


def page(report: Report) -> str:
    """The whole page of a report as HTML.

    Everything that comes from the user's model, such as names and lines of code, is escaped, and the page allows no
    script but its own: a policy names its hash.
    """
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    content = content_of(report)
    return _template().render(
        {name: getattr(content, name) for name in content.__dataclass_fields__},
        statuses=STATUSES,
        style=_read("page.css"),
        script=script,
        digest=digest,
    )


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()


@lru_cache(maxsize=1)
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "number": short_number,
        "seconds": short_seconds,
        "breakable": _breakable,
        "cure": cure_of,
        "short": short_source,
    }
    return environment.get_template("page.html")


def _breakable(name: str) -> Any:
    """A name or path that may be broken behind its dots and underscores."""
    import markupsafe

    parts = re.split(r"(?<=[._/:])", name)
    return markupsafe.Markup("<wbr>").join(parts)
