"""`stonefx compress`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click

from stonefx.cli.common import (
    CheckFailed,
    Refused,
    check_folders,
    check_picture,
    give_json,
    html_option,
    is_stated,
    json_option,
    names_files,
    note,
    say,
)


@click.command()
@click.argument("name", metavar="MODEL", shell_complete=names_files)
@click.option(
    "--data",
    "data_name",
    metavar="DATA",
    shell_complete=names_files,
    help="pkg.module:factory, file.py:factory, or a text file, a sample a line.",
)
@click.option(
    "-o", "--output", "path", required=True, type=click.Path(path_type=Path), help="What to write; see above."
)
@click.option(
    "--min-accuracy", type=float, default=0.95, show_default=True, help="Share of the metric to keep."
)
@click.option("--max-ratio", type=float, help="Instead of a floor: this share of the bytes.")
@click.option("--max-seconds", type=float, help="Instead of a floor: this long a call.")
@click.option(
    "--metric", default="cosine", show_default=True, help="cosine, relative, top1 or pkg.module:function."
)
@click.option("--forms", metavar="NAME,...", help="What layers may become: pair,pifa,width,heads,int8.")
@click.option("--layers", multiple=True, metavar="PATTERN", help="Layers that may change; may be repeated.")
@click.option("--energy", type=float, help="Ranks by the share of squared singular values to keep.")
@click.option("--refine", is_flag=True, help="Train what was replaced towards the original's results.")
@click.option("--cost", type=click.Choice(["both", "bytes", "seconds"]), default="both", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder where what is found is kept; the same command goes on from there after a stop.",
)
@click.option("--memory", type=click.IntRange(min=1), help="Bytes that statistics and spectra may take.")
@json_option("The report")
@html_option("the report")
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curve.")
@click.option(
    "--plain", "as_plain", is_flag=True, help="Write layers of torch alone, to load without stonefx."
)
@click.option("--quiet", is_flag=True, help="Show no bars.")
def compress(
    name: str,
    data_name: str | None,
    path: Path,
    json_to: str | None,
    html_to: Path | None,
    plot_path: Path | None,
    as_plain: bool,
    metric: str,
    forms: str | None,
    layers: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Write the smallest model that keeps the accuracy asked for.

    MODEL is a function that gives the model, as pkg.module:factory or path/to/file.py:factory, or a model of
    transformers: its folder, or its id where it is on this disk. DATA is a function that gives the data, or the data;
    of a model of transformers it may be a text file.

    \b
    -o NAME.safetensors   a stonefx file, for stonefx.load
    -o NAME.pt            a whole model, for torch.load(..., weights_only=False)
    -o NAME               a folder of transformers

    \b
    stonefx compress my_models.py:build --data my_data.py:batches -o small.pt --plain
    stonefx compress ./all-MiniLM-L6-v2 --data texts.txt --max-ratio 0.5 -o ./small --html report.html
    stonefx compress my_models.py:build --energy 0.99 -o small.pt --json stats.json

    What was written is read back, and its accuracy measured. Exit code 1: what was asked for was not reached, and what
    was written is the model with its layers as they were, or what came nearest to the ratio or the time.

    Processes share the work, and the first one writes: torchrun --nproc-per-node N -m stonefx compress ... --cost bytes
    """
    from stonefx.cli.data import load_data
    from stonefx.cli.objects import load_object
    from stonefx.cli.output import write_model
    from stonefx.cli.traced import find_named
    from stonefx.compress import compress as compress_model
    from stonefx.compress import data as user_data
    from stonefx.compress import processes, reloaded_accuracy

    check_folders({"--output": path, "--plot": plot_path})
    if not path.suffix and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise click.UsageError(f"--output: {path} exists and is not empty; name a new folder")
    if as_plain and path.suffix in ("", ".safetensors"):
        raise click.UsageError(
            "--plain is for a file such as -o small.pt; a folder of transformers is plain anyway"
        )
    if plot_path is not None and data_name is None:
        raise click.UsageError("--plot draws what was evaluated on data: give --data too")
    check_picture(plot_path)
    if path.suffix == ".safetensors" and data_name is None:
        raise click.UsageError(
            "--output: a .safetensors file needs --data, whose first batch the model is traced with"
        )
    found = find_named(name)
    model, tokenizer = found.model, found.tokenizer
    if found.saved:
        raise click.BadParameter(
            f"{name} is optimized already; compress the original, then optimize what comes out",
            param_hint="MODEL",
        )
    if not path.suffix and not type(model).__module__.startswith("transformers."):
        raise click.UsageError(
            f"--output: a folder is for a model of transformers, and MODEL is a {type(model).__name__}; "
            f"name a file such as {path}.pt"
        )
    measured: Any = metric
    if ":" in metric:
        try:
            measured = _named(metric, load_object(metric))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--metric") from None
    batches = None
    if data_name is not None:
        try:
            given = load_data(data_name, tokenizer, options["batch_size"])
            batches = user_data.read(given, model, batch_size=options["batch_size"], what="--data")
        except (TypeError, ValueError) as error:
            raise click.BadParameter(" ".join(str(error).split()), param_hint="--data") from None
    if forms is not None:
        options["forms"] = tuple(form.strip() for form in forms.split(","))
    try:
        with processes.from_torchrun():
            shown = not quiet and sys.stderr.isatty()
            small, stats = compress_model(
                model,
                batches,
                metric=measured,
                layers=layers or None,
                progress=shown,
                **options,
            )
            first = processes.rank() == 0
        if not first:
            return
        example = None if batches is None else (batches[0].kwargs or batches[0].args)
        reloaded = write_model(small, path, example, as_plain=as_plain, tokenizer=tokenizer)
        if batches is not None:
            how = {"metric": measured, "seed": options["seed"], "batch_size": options["batch_size"]}
            stats.reloaded_accuracy = reloaded_accuracy(reloaded, model, batches, **how)
        give_json(stats.to_json(), json_to)
        if html_to is not None:
            stats.to_html(html_to)
        if plot_path is not None:
            stats.plot(plot_path)
    except click.ClickException:
        raise
    except KeyboardInterrupt:
        checkpoint = options["checkpoint"]
        raise KeyboardInterrupt(
            "with --checkpoint FOLDER the same command would go on where it was"
            if checkpoint is None
            else f"the same command goes on with what is in {checkpoint}"
        ) from None
    except Exception as error:
        # What the package states, and what the system says of files; all else is a defect, and shows where.
        if is_stated(error) or isinstance(error, OSError):
            raise Refused(error) from None
        raise
    say(str(stats), json_to)
    if html_to is not None:
        note(f"page: {html_to}", json_to)
    note(f"written to {path}", json_to)
    if stats.reached is False:
        raise CheckFailed("what was asked for was not reached; the notes above say why")


def _named(name: str, metric: Any) -> Any:
    """A metric whose own errors name it."""
    if not callable(metric):
        return metric

    @functools.wraps(metric)
    def called(*arguments: Any) -> Any:
        try:
            return metric(*arguments)
        except Exception as error:
            raise click.BadParameter(
                f"{name} raised {type(error).__name__}: {error}", param_hint="--metric"
            ) from error

    return called
