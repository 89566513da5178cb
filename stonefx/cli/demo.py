"""`stonefx demo`."""

from __future__ import annotations

import json
import secrets
import tempfile
from contextlib import nullcontext
from pathlib import Path

import click

from stonefx.cli.common import Refused, give_json, html_option, json_option, note, say
from stonefx.files import unfinished


@click.command()
@json_option("The results")
@html_option("the report of the second model")
def demo(json_to: str | None, html_to: Path | None) -> None:
    """Optimize two small models, time them, and write the report of one as a page.

    \b
    stonefx demo
    stonefx demo --html report.html
    stonefx demo --json results.json
    """
    from stonefx.demo import MissingPackage, run_demo
    from stonefx.report import plain

    try:
        results, report = run_demo(say=lambda text: say(text, json_to))
    except MissingPackage as error:
        raise Refused(error) from None
    # A page whose name was not said is of no use.
    folder = Path(tempfile.gettempdir()) / f"stonefx-{secrets.token_hex(4)}"
    with nullcontext() if html_to is not None else unfinished(folder):
        if html_to is None:
            folder.mkdir(mode=0o700)
        page = html_to or folder / "report.html"
        report.to_html(page)
        document = plain({**results, "page": str(page.absolute())})
        give_json(json.dumps(document, indent=2, allow_nan=False), json_to)
        note(f"\nThe report of the second model, as a page: {page.absolute()}", json_to)
