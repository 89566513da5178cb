"""`stonefx doctor`."""

from __future__ import annotations

import json
from typing import Any

import click

from stonefx.cli.common import CheckFailed, give_json, json_option, say


@click.command()
@click.option(
    "--measure", is_flag=True, help="Measure this machine for the cost model and check its predictions."
)
@json_option("The facts")
def doctor(measure: bool, json_to: str | None) -> None:
    """Print what is built and what is missing.

    \b
    stonefx doctor
    stonefx doctor --json
    stonefx doctor --measure

    Exit code 1: something is missing, which the last lines name with the command that mends it.
    """
    from stonefx import doctor as facts
    from stonefx.report import plain

    found: dict[str, Any] = facts.measure() if measure else facts.report()
    give_json(json.dumps(plain(found), indent=2, allow_nan=False), json_to)
    say(facts.measure_text(found) if measure else facts.text(found), json_to)
    if found.get("problems"):
        raise CheckFailed(
            f"{len(found['problems'])} missing: " + "; ".join(p["what"] for p in found["problems"])
        )
