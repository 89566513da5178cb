"""`stonefx bench`."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from stonefx.cli.common import Refused, check_folders, json_option

_NO_FILE = "--resume goes on in a file: name it with --json"


def _suites(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    from stonefx.benchmarks.suites import SUITES

    return [CompletionItem(name) for name in (*SUITES, "compress", "growth") if name.startswith(start)]


@click.command()
@click.argument("suites", nargs=-1, metavar="[SUITE ...]", shell_complete=_suites)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Intra-op threads of torch; its own choice if left out."
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Time limit of each case.")
@json_option("The results")
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
def bench(suites: tuple[str, ...], json_to: str | None, resume: bool, **options: Any) -> None:
    """Time against eager, inductor and by hand.

    The suites are chain, hyperbolic, integrations, ops, regions and zoo, and compress and growth, which run by
    themselves. Without a name chain and hyperbolic run; the others need packages of the extra `bench`. zoo takes
    most of an hour, compress several hours.

    \b
    stonefx bench chain --threads 2
    stonefx bench chain --case "batch 8" --seconds 5
    stonefx bench zoo --json zoo.json --resume
    """
    if json_to != "-":
        _bench(suites, None if json_to is None else Path(json_to), resume, **options)
        return
    if resume:
        raise click.UsageError(_NO_FILE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        with contextlib.redirect_stdout(sys.stderr):
            _bench(suites, path, resume, **options)
        click.echo(path.read_text(encoding="utf-8").rstrip("\n"))


def _bench(
    suites: tuple[str, ...],
    path: Path | None,
    resume: bool,
    *,
    device: str,
    threads: int | None,
    seconds: float | None,
    only: tuple[str, ...],
    picture: Path | None,
    keep: Path | None,
) -> None:
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
        if resume and path is None:
            raise click.UsageError(_NO_FILE)
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
    check_folders({"--json": path})
    if resume and path is None:
        raise click.UsageError(_NO_FILE)
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


def _bench_growth(
    threads: int | None, path: Path | None, only: tuple[str, ...], picture: Path | None
) -> None:
    import torch

    from stonefx.benchmarks.growth import Growth, UnknownGrowth, plot, run, table, write

    check_folders({"--json": path, "--plot": picture})
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
        raise Refused(f"{error}; install it with `pip install stonefx[bench]`") from None
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

    check_folders({"--json": path, "--plot": picture})
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
        raise Refused(str(error)) from None
