"""`stonefx optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stonefx.cli.common import (
    CheckFailed,
    Refused,
    check_folder,
    give_json,
    html_option,
    json_option,
    note,
    say,
)
from stonefx.cli.traced import (
    MODELS,
    find_with_inputs,
    given_passes,
    input_option,
    model_argument,
    passes_option,
)

HELP = f"""Write a faster model of the same meaning to a file.

    {MODELS.rpartition(chr(10))[0]}

    \b
    -o NAME.safetensors   a stonefx file, for stonefx.load; it is data, and loading runs nothing of it
    -o NAME.pt2           an exported program, for torch.export.load where stonefx is imported

    \b
    stonefx optimize my_models.py:build --input 8x128 -o fast.safetensors
    stonefx optimize my_models.py:build --input 8x128 --require linear_chain --html report.html -o fast.pt2
    stonefx optimize ./all-MiniLM-L6-v2 --keep "*.lora_*" -o fast.safetensors

    What was written is read back and called. Exit code 1: a target of --require was rewritten nowhere, and nothing
    was written.
    """


def _output(context: click.Context, parameter: click.Parameter, value: Path) -> Path:
    if value.suffix not in (".safetensors", ".pt2"):
        raise click.BadParameter(
            f"expected a file that ends in .safetensors (for stonefx.load) or .pt2 (for torch.export.load), "
            f"got {str(value)!r}"
        )
    check_folder("--output", value)
    return value


@click.command(help=HELP)
@model_argument
@click.option(
    "-o",
    "--output",
    "path",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=_output,
    help="What to write; see above.",
)
@input_option
@click.option(
    "--inner",
    type=click.Choice(["eager", "aot_eager", "inductor"]),
    default="eager",
    show_default=True,
    help="What runs the rewritten graph.",
)
@passes_option
@click.option(
    "--fixed-sizes", is_flag=True, help="Every size is the example's; else batch sizes vary freely."
)
@click.option("--keep", multiple=True, metavar="PATTERN", help="Weights that stay, such as '*.lora_*'.")
@click.option("--require", multiple=True, metavar="TARGET", help="Must be rewritten somewhere.")
@click.option("--no-verify", is_flag=True, help="Do not compare the result with the original.")
@json_option("The report")
@html_option("the report")
def optimize(
    name: str,
    path: Path,
    inputs: tuple[str, ...],
    inner: str,
    passes: str | None,
    fixed_sizes: bool,
    keep: tuple[str, ...],
    require: tuple[str, ...],
    no_verify: bool,
    json_to: str | None,
    html_to: Path | None,
) -> None:
    """Write a faster model of the same meaning to a file."""
    import stonefx
    from stonefx.capture import CaptureError
    from stonefx.cli.output import write_optimized
    from stonefx.passes.site import RewriteError

    chosen = given_passes(passes)
    found, examples = find_with_inputs(name, inputs)
    if found.saved:
        raise click.BadParameter(
            f"{name} is optimized already; expected the original model", param_hint="MODEL"
        )
    options: dict[str, Any] = {"inner": inner, "passes": chosen, "keep": keep, "require": require}
    try:
        fast = stonefx.optimize(
            found.model, examples, dynamic=not fixed_sizes, verify=not no_verify, **options
        )
        write_optimized(fast, path, examples, found.model)
    except stonefx.RequiredRewriteMissing as error:
        raise CheckFailed(" ".join(str(error).split())) from None
    except (CaptureError, RewriteError, TypeError, ValueError, OSError) as error:
        raise Refused(error) from None
    report: Any = fast.report
    give_json(report.to_json(), json_to)
    say(str(report), json_to)
    if html_to is not None:
        report.to_html(html_to)
        note(f"page: {html_to}", json_to)
    note(f"written to {path}", json_to)
