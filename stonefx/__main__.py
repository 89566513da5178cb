"""The command line: `stonefx demo`, `explain`, `compress`, `bench` and `doctor`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

# Each command imports what it alone needs, so that --help and doctor work where a part is broken.


class Refused(click.ClickException):
    """What stonefx cannot do for these arguments, said on one line."""

    exit_code = 2

    def __init__(self, error: Exception) -> None:
        super().__init__(" ".join(str(error).split()))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stonefx")
def main() -> None:
    """Rewrite PyTorch graphs: linear chains merged, hyperbolic geometry fused."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def demo(as_json: bool) -> None:
    """Optimize two small models and time them."""
    from stonefx.demo import MissingPackage, run_demo

    try:
        results = run_demo(say=(lambda text: None) if as_json else click.echo)
    except MissingPackage as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(results, indent=2))


@main.command()
@click.argument("factory")
@click.option(
    "--input", "inputs", multiple=True, metavar="SHAPE", help="Such as 8x128 or 2x16:int64; once each."
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--diff", is_flag=True, help="Print the difference of the graphs as well.")
def explain(factory: str, inputs: tuple[str, ...], as_json: bool, diff: bool) -> None:
    """Report what would be rewritten in a model.

    FACTORY is pkg.module:function, where the function returns the model, or the model and its example inputs
    (a tuple, or a dictionary of keyword arguments); nothing is replaced.
    """
    import stonefx
    from stonefx.arguments import load_model, parse_inputs
    from stonefx.capture import CaptureError
    from stonefx.passes.site import RewriteError

    try:
        given = parse_inputs(inputs)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--input") from None
    try:
        model, examples = load_model(factory)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="FACTORY") from None
    if not inputs and examples is None:
        raise click.UsageError(
            "give at least one --input, such as --input 8x128, or let FACTORY return the model and its inputs"
        )
    try:
        report = stonefx.explain(model, given if inputs or examples is None else examples)
    except (CaptureError, RewriteError) as error:
        raise Refused(error) from None
    if as_json:
        click.echo(report.to_json())
        return
    click.echo(str(report))
    if diff:
        click.echo(f"\n{report.diff()}")


@main.command()
@click.argument("name", metavar="MODEL")
@click.option(
    "--data", "data_name", metavar="DATA", help="pkg.module:factory, or a text file, a sample a line."
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
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as JSON."
)
@click.option("--plot", "plot_path", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curve.")
@click.option(
    "--plain", "as_plain", is_flag=True, help="Write layers of torch alone, to load without stonefx."
)
@click.option("--quiet", is_flag=True, help="Show no bars.")
def compress(
    name: str,
    data_name: str | None,
    path: Path,
    json_path: Path | None,
    plot_path: Path | None,
    as_plain: bool,
    metric: str,
    forms: str | None,
    layers: tuple[str, ...],
    quiet: bool,
    **options: Any,
) -> None:
    """Write the smallest model that keeps the accuracy asked for.

    MODEL is pkg.module:factory, where the function returns the model, or a folder of transformers. DATA is a function
    that returns the data, or the data; of a folder of transformers it may be a text file.

    \b
    -o NAME.safetensors   a stonefx file, for stonefx.load
    -o NAME.pt            a whole model, for torch.load(..., weights_only=False)
    -o NAME               a folder of transformers

    What was written is read back, and its accuracy measured. Exit code 1: what was asked for was not reached, and what
    was written is the model with its layers as they were, or what came nearest to the ratio or the time.

    Processes share the work, and the first one writes: torchrun --nproc-per-node N -m stonefx compress ... --cost bytes
    """
    from stonefx.arguments import load_object, load_user_data, load_user_model
    from stonefx.compress import compress as compress_model
    from stonefx.compress import data as user_data
    from stonefx.compress import processes, reloaded_accuracy
    from stonefx.output import write_model

    _check_folders({"--output": path, "--json": json_path, "--plot": plot_path})
    if not path.suffix and path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise click.UsageError(f"--output: {path} exists and is not empty; name a new folder")
    if as_plain and path.suffix in ("", ".safetensors"):
        raise click.UsageError(
            "--plain is for a file such as -o small.pt; a folder of transformers is plain anyway"
        )
    if plot_path is not None and data_name is None:
        raise click.UsageError("--plot draws what was evaluated on data: give --data too")
    if path.suffix == ".safetensors" and data_name is None:
        raise click.UsageError(
            "--output: a .safetensors file needs --data, whose first batch the model is traced with"
        )
    try:
        model, tokenizer = load_user_model(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="MODEL") from None
    if not path.suffix and not type(model).__module__.startswith("transformers."):
        raise click.UsageError(
            f"--output: a folder is for a model of transformers, and MODEL is a {type(model).__name__}; "
            f"name a file such as {path}.pt"
        )
    measured: Any = metric
    if ":" in metric:
        try:
            measured = load_object(metric)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--metric") from None
    batches = None
    if data_name is not None:
        try:
            given = load_user_data(data_name, tokenizer, options["batch_size"])
            batches = user_data.read(given, model, batch_size=options["batch_size"], what="--data")
        except (TypeError, ValueError) as error:
            raise click.BadParameter(" ".join(str(error).split()), param_hint="--data") from None
    if forms is not None:
        options["forms"] = tuple(form.strip() for form in forms.split(","))
    try:
        with processes.from_torchrun():
            small, stats = compress_model(
                model, batches, metric=measured, layers=layers or None, progress=not quiet, **options
            )
            first = processes.rank() == 0
        if not first:
            return
        example = None if batches is None else (batches[0].kwargs or batches[0].args)
        reloaded = write_model(small, path, example, as_plain=as_plain, tokenizer=tokenizer)
        if batches is not None:
            how = {"metric": measured, "seed": options["seed"], "batch_size": options["batch_size"]}
            stats.reloaded_accuracy = reloaded_accuracy(reloaded, model, batches, **how)
        if json_path is not None:
            stats.to_json(json_path)
        if plot_path is not None:
            stats.plot(plot_path)
    except (TypeError, ValueError, OSError, ImportError, NotImplementedError) as error:
        raise Refused(error) from None
    click.echo(str(stats))
    click.echo(f"written to {path}")
    if stats.reached is False:
        raise click.ClickException("what was asked for was not reached; the notes above say why")


@main.command()
@click.argument("suites", nargs=-1, metavar="[SUITE ...]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Intra-op threads of torch; its own choice if left out."
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Time limit of each case.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the results to this file."
)
@click.option(
    "--only",
    "--case",
    "only",
    multiple=True,
    metavar="CASE",
    help="Measure this case alone; may be repeated.",
)
@click.option("--resume", is_flag=True, help="Keep what the --json file has, and write it after each case.")
@click.option(
    "--plot",
    "picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the rows of compress or growth here.",
)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Keep statistics of compress in this folder, for a run that goes on; empty it when stonefx changes.",
)
def bench(
    suites: tuple[str, ...],
    device: str,
    threads: int | None,
    seconds: float | None,
    path: Path | None,
    only: tuple[str, ...],
    resume: bool,
    picture: Path | None,
    keep: Path | None,
) -> None:
    """Time against eager, inductor and by hand.

    The suites are chain, hyperbolic, integrations, ops, regions and zoo, and compress and growth, which run by
    themselves. Without a name chain and hyperbolic run; the others need packages of the extra `bench`. zoo takes
    most of an hour, compress several hours.
    """
    if "growth" in suites:
        if suites != ("growth",) or device != "cpu" or seconds is not None or resume or keep is not None:
            raise click.UsageError(
                "growth runs by itself, on the CPU, with --only, --threads, --json and --plot alone"
            )
        _bench_growth(threads, path, only, picture)
        return
    if "compress" in suites:
        if suites != ("compress",) or device != "cpu" or seconds is not None:
            raise click.UsageError("compress runs by itself, on the CPU, without --seconds")
        _bench_compress(threads, path, only, resume, picture, keep)
        return
    if picture is not None:
        raise click.UsageError("--plot: only the suites compress and growth have a picture")
    if keep is not None:
        raise click.UsageError("--keep: only the suite compress has statistics to keep")
    import torch

    from stonefx.benchmarks import Settings, result_document, result_table
    from stonefx.benchmarks.case import CaseResult
    from stonefx.benchmarks.load import load_average, load_warning
    from stonefx.benchmarks.machine import machine_facts, usable_cores
    from stonefx.benchmarks.resume import OtherMachine, earlier_results, merged_results
    from stonefx.benchmarks.run import UnknownCase, run_suite
    from stonefx.benchmarks.suites import LONG, SUITES, TABLES
    from stonefx.report import write_atomically

    unknown = [name for name in suites if name not in SUITES]
    if unknown:
        names = ", ".join([*SUITES, "compress", "growth"])
        raise click.UsageError(f"there is no suite {unknown[0]!r}; choose from {names}")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device on this machine"
        )
    _check_folders({"--json": path})
    if resume and path is None:
        raise click.UsageError("--resume goes on in a file: name it with --json")
    if threads is not None:
        torch.set_num_threads(threads)

    load = load_average()
    if warning := load_warning(load, usable_cores()):
        click.echo(warning, err=True)
    settings = Settings() if seconds is None else Settings(seconds=seconds)
    machine = machine_facts(device)
    click.echo(", ".join(f"{name} {value}" for name, value in machine.items() if value))
    results: dict[str, list[CaseResult]] = {}
    if resume and path is not None:
        try:
            results = earlier_results(path, machine)
        except OtherMachine as error:
            raise click.UsageError(f"--resume: {error}") from None

    def write(to: Path | None = path) -> None:
        if to is not None:
            document = result_document(results, machine, settings, load)
            write_atomically(to, json.dumps(document, indent=2, allow_nan=False) + "\n")

    for name in suites or [name for name in SUITES if name not in LONG]:

        def add(result: CaseResult, name: str = name) -> None:
            nonlocal results
            results = merged_results(results, name, result)
            if resume:
                write()

        done = [result.name for result in results.get(name, [])]
        try:
            run_suite(name, device, settings, only=only, done=done, on_result=add)
        except UnknownCase as error:
            raise click.UsageError(f"--only: {error}") from None
        except BaseException:
            if path is not None and results and not resume:
                part = path.with_name(f"{path.name}.part")
                write(part)
                click.echo(
                    f"stopped; what was measured is in {part}, and --resume --json {part} goes on", err=True
                )
            raise
        click.echo(f"\n{name}\n{TABLES.get(name, result_table)(results.get(name, []))}")
    if path is not None:
        write()
        click.echo(f"\nwritten to {path}")


def _check_folders(files: Mapping[str, Path | None]) -> None:
    """What is written at the end must have a folder at the start; files by the option that names them."""
    for option, file in files.items():
        if file is not None and not file.absolute().parent.is_dir():
            raise click.UsageError(f"{option}: there is no folder {file.absolute().parent}; create it first")


def _bench_growth(
    threads: int | None, path: Path | None, only: tuple[str, ...], picture: Path | None
) -> None:
    import torch

    from stonefx.benchmarks.growth import Growth, UnknownGrowth, plot, run, table, write

    _check_folders({"--json": path, "--plot": picture})
    if threads is not None:
        torch.set_num_threads(threads)
    results: list[Growth] = []

    def take(result: Growth) -> None:
        results.append(result)
        click.echo(f"{result.case}, {result.layers} layers: {result.total:.1f} s", err=True)
        if path is not None:
            write(results, path)

    try:
        run(only, on_result=take)
    except UnknownGrowth as error:
        raise click.UsageError(f"--only: {error}") from None
    except ImportError as error:
        raise click.ClickException(f"{error}; install it with `pip install stonefx[bench]`") from None
    click.echo(table(results))
    if picture is not None:
        plot(results, picture)


def _bench_compress(
    threads: int | None,
    path: Path | None,
    only: tuple[str, ...],
    resume: bool,
    picture: Path | None,
    keep: Path | None,
) -> None:
    import torch

    from stonefx.benchmarks.compress.packages import MissingPackage
    from stonefx.benchmarks.compress.rows import Row, UnusableFile, earlier, plot, table
    from stonefx.benchmarks.compress.run import UnknownCase, run, write
    from stonefx.benchmarks.compress.work import KEPT

    _check_folders({"--json": path, "--plot": picture})
    if resume and path is None:
        raise click.UsageError("--resume goes on in a file: name it with --json")
    if threads is not None:
        torch.set_num_threads(threads)
    rows: list[Row] = []
    KEPT[:] = [keep] if keep is not None else []
    try:
        rows = earlier(path) if resume and path is not None else []

        def take(row: Row) -> None:
            rows.append(row)
            click.echo(f"{row.case}, {row.arm} {row.asked}".rstrip(), err=True)
            if path is not None:
                write(rows, path)

        run(only, done=tuple(rows), on_row=take)
        click.echo(table(rows))
        if picture is not None:
            plot(rows, picture)
    except UnknownCase as error:
        raise click.UsageError(f"--case: {error}") from None
    except (MissingPackage, UnusableFile) as error:
        raise click.ClickException(str(error)) from None


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.option(
    "--measure", is_flag=True, help="Measure this machine for the cost model and check its predictions."
)
def doctor(as_json: bool, measure: bool) -> None:
    """Print what is built and what is missing."""
    from stonefx import doctor as facts

    if measure:
        click.echo(json.dumps(facts.measure(), indent=2) if as_json else facts.measure_text())
        return
    click.echo(json.dumps(facts.report(), indent=2, default=str) if as_json else facts.text())


if __name__ == "__main__":
    main(prog_name="stonefx")
