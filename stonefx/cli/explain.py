"""`stonefx explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stonefx.cli.common import CheckFailed, Refused, give_json, html_option, json_option, note, say
from stonefx.cli.traced import (
    MODELS,
    find_named,
    find_with_inputs,
    given_passes,
    input_option,
    model_argument,
    passes_option,
)

if TYPE_CHECKING:
    from stonefx.report import Report
REGRESSION = "regression"

HELP = f"""Report what would be rewritten in a model, and what not and why; nothing is replaced.

    {MODELS}, whose report is printed

    \b
    stonefx explain my_models.py:build --input 8x128
    stonefx explain my_models.py:build --input ids=2x16:int64 --input mask=2x16:bool
    stonefx explain ./all-MiniLM-L6-v2 --html report.html

    In continuous integration: keep the JSON of a good state, and fail where a linear chain is refused that was
    rewritten there.

    \b
    stonefx explain my_models.py:build --input 8x128 --json good.json
    stonefx explain my_models.py:build --input 8x128 --against good.json --fail-on refused:linear_chain
    stonefx explain my_models.py:build --input 8x128 --against good.json --fail-on regression

    Exit code 1: a site is of the kind that --fail-on names; with --against, has become so.
    """


@click.command(help=HELP)
@model_argument
@input_option
@passes_option
@click.option("--diff", is_flag=True, help="Print the difference of the graphs as well.")
@click.option(
    "--fail-on",
    multiple=True,
    metavar="STATUS[:TARGET[:CODE]]",
    help="Exit code 1 where a site is such: rewritten, refused or near-miss; of a target; for a reason. "
    "With --against also: regression, for whatever became worse.",
)
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="OLD.json",
    help="Compare with an earlier --json; --fail-on then means what has become so since.",
)
@json_option("The report")
@html_option("the report")
def explain(
    name: str,
    inputs: tuple[str, ...],
    passes: str | None,
    diff: bool,
    fail_on: tuple[str, ...],
    against: Path | None,
    json_to: str | None,
    html_to: Path | None,
) -> None:
    """Report what would be rewritten in a model."""
    from stonefx.cli.checks import failure_text, failures, parse_rule

    try:
        rules = [parse_rule(text) for text in fail_on if text != REGRESSION]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fail-on") from None
    if REGRESSION in fail_on and against is None:
        raise click.UsageError(
            f"--fail-on {REGRESSION} compares with an earlier report: name it with --against"
        )
    chosen = given_passes(passes)
    old = None if against is None else _earlier(against)
    report = _report(name, inputs, chosen)
    give_json(report.to_json(), json_to)
    say(str(report), json_to)
    if diff and json_to != "-":
        # Lines of a graph are compared by programs too, and are not broken.
        note(f"\n{report.diff()}", None)
    if html_to is not None:
        report.to_html(html_to)
        note(f"page: {html_to}", json_to)
    if old is not None:
        changes = report.compare(old)
        note(f"\n{changes}", json_to)
        if REGRESSION in fail_on and changes.regressions:
            raise CheckFailed("; ".join(changes.regressions))
    if found := failures(rules, report.sites, [] if old is None else old.sites):
        raise CheckFailed(failure_text(found))


def _report(name: str, inputs: tuple[str, ...], passes: str | tuple[str, ...]) -> Report:
    import stonefx
    from stonefx.capture import CaptureError
    from stonefx.passes.site import RewriteError

    if not inputs and name.endswith(".safetensors"):
        found = find_named(name)
        if found.saved:
            report: Report = found.model.report  # type: ignore[assignment]
            return report
    found, examples = find_with_inputs(name, inputs)
    try:
        return stonefx.explain(found.model, examples, passes=passes)
    except (CaptureError, RewriteError, TypeError) as error:
        raise Refused(error) from None


def _earlier(path: Path) -> Report:
    from stonefx.report import Report

    try:
        return Report.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = "no JSON" if isinstance(error, json.JSONDecodeError) else f"no report: {error}"
        raise click.BadParameter(
            f"{path} is {what}; expected what stonefx explain --json wrote", param_hint="--against"
        ) from None
