"""Two installations of stonefx on one machine, case by case in turn, so that its moods fall on both.

`python -m stonefx.benchmarks.versions --other PYTHON zoo chain --before before.json --now now.json`
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from tqdm import tqdm

from stonefx.benchmarks.compare import compare
from stonefx.benchmarks.suites import SUITES


def in_turn(
    cases: Sequence[tuple[str, str]], pythons: Sequence[tuple[str, Path]], run: Callable[[list[str]], object]
) -> None:
    """Measure each case with each interpreter, the first one changing from case to case.

    Args:
        cases: suite and case.
        pythons: an interpreter that imports stonefx, and the file of its results; cases that are there are kept.
        run: starts a command and waits for it.
    """
    for index, (suite, case) in enumerate(cases):
        for python, file in pythons if index % 2 == 0 else pythons[::-1]:
            file.parent.mkdir(parents=True, exist_ok=True)
            where = ["--json", str(file), "--resume"]
            run([python, "-m", "stonefx", "bench", suite, "--only", case, *where])


def _names(suite: str) -> list[str]:
    return [item.name for item in SUITES[suite]("cpu")]


@click.command(help=__doc__)
@click.argument("suites", nargs=-1, required=True, type=click.Choice(tuple(SUITES)))
@click.option("--other", required=True, help="The interpreter of the environment to compare with.")
@click.option("--before", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Its results.")
@click.option("--now", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Ours.")
@click.option("--threads", type=click.IntRange(min=1), help="Intra-op threads of torch.")
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Time limit of each case.")
@click.option("--only", multiple=True, help="These cases alone.")
def main(
    suites: tuple[str, ...],
    other: str,
    before: Path,
    now: Path,
    threads: int | None,
    seconds: float | None,
    only: tuple[str, ...],
) -> None:
    options = [
        *(["--threads", str(threads)] if threads else []),
        *(["--seconds", str(seconds)] if seconds else []),
    ]
    known = [(suite, name) for suite in suites for name in _names(suite)]
    if unknown := [name for name in only if name not in {case for _, case in known}]:
        raise click.UsageError(f"--only: there is no case {unknown[0]!r}; {', '.join(n for _, n in known)}")
    cases = [(suite, name) for suite, name in known if not only or name in only]
    with tqdm(total=2 * len(cases), unit=" runs", disable=None) as bar:

        def run(command: list[str]) -> None:
            # The folder of a checkout must not decide which stonefx is imported.
            try:
                done = subprocess.run(
                    [*command, *options], cwd=Path(sys.prefix), capture_output=True, text=True, check=False
                )  # fmt: skip
            except OSError as error:
                raise click.BadParameter(f"{error.strerror}: {command[0]}", param_hint="--other") from None
            if done.returncode:
                raise click.ClickException(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
            bar.update()

        in_turn(cases, [(other, before.resolve()), (sys.executable, now.resolve())], run)
    texts = [json.loads(file.read_text(encoding="utf-8")) for file in (before, now)]
    click.echo(compare(texts[0], texts[1]))


if __name__ == "__main__":
    main()
