"""The suites of `stonefx bench` that run by themselves: growth and compress."""

from __future__ import annotations

from pathlib import Path

import click

from stonefx.cli.common import Refused, check_folders, check_picture, say
from stonefx.cli.kept import Kept


def bench_growth(threads: int | None, kept: Kept, only: tuple[str, ...], picture: Path | None) -> None:
    """How the time of `optimize` grows with the model."""
    import torch

    from stonefx.benchmarks.growth import Growth, UnknownGrowth, as_text, plot, run, table

    check_folders({"--json": kept.path, "--plot": picture})
    check_picture(picture)
    if threads is not None:
        torch.set_num_threads(threads)
    results: list[Growth] = []

    def take(result: Growth) -> None:
        results.append(result)
        click.echo(f"{result.case}, {result.layers} layers: {result.total:.1f} s", err=True)
        kept.put(as_text(results))

    try:
        with kept.whole():
            run(only, on_result=take)
            kept.put(as_text(results))
    except UnknownGrowth as error:
        raise click.UsageError(f"--only: {error}") from None
    except ImportError as error:
        raise Refused(f"{error}; install it with `pip install stonefx[bench]`") from None
    say(table(results))
    if picture is not None:
        plot(results, picture)


def bench_compress(
    threads: int | None,
    kept: Kept,
    only: tuple[str, ...],
    resume: bool,
    picture: Path | None,
    keep: Path | None,
) -> None:
    """Models compressed, beside the recipes of others."""
    import torch

    from stonefx.benchmarks.compress.packages import MissingPackage
    from stonefx.benchmarks.compress.rows import Row, UnusableFile, earlier, plot, table
    from stonefx.benchmarks.compress.run import UnknownCase, as_text, run
    from stonefx.benchmarks.compress.work import KEPT

    check_folders({"--json": kept.path, "--plot": picture})
    check_picture(picture)
    if threads is not None:
        torch.set_num_threads(threads)
    rows: list[Row] = []
    KEPT[:] = [keep] if keep is not None else []
    try:
        rows = earlier(kept.path) if resume and kept.path is not None else []

        def take(row: Row) -> None:
            rows.append(row)
            click.echo(f"{row.case}, {row.arm} {row.asked}".rstrip(), err=True)
            kept.put(as_text(rows))

        with kept.whole(", and --resume --json {} goes on"):
            run(only, done=tuple(rows), on_row=take)
            kept.put(as_text(rows))
        say(table(rows))
        if picture is not None:
            plot(rows, picture)
    except UnknownCase as error:
        raise click.UsageError(f"--case: {error}") from None
    except (MissingPackage, UnusableFile) as error:
        raise Refused(str(error)) from None
