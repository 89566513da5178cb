"""The suites of `stonefx bench` that run by themselves: growth and compress."""

from __future__ import annotations

from pathlib import Path

import click

from stonefx.cli.common import Refused, check_folders


def bench_growth(threads: int | None, path: Path | None, only: tuple[str, ...], picture: Path | None) -> None:
    """How the time of `optimize` grows with the model."""
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


def bench_compress(
    threads: int | None,
    path: Path | None,
    only: tuple[str, ...],
    resume: bool,
    picture: Path | None,
    keep: Path | None,
) -> None:
    """Models compressed, beside the recipes of others."""
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
