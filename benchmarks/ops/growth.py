"""How the cost of a butterfly grows with its dimension: `python -m stonefx.benchmarks.ops.growth RESULTS PICTURE`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stonefx.benchmarks.ops.steps import OWN
from stonefx.plot.disk import COLORS, pyplot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CASE = re.compile(r"(?P<line>(?:hyper_)?butterfly) \[\d+, (?P<dim>\d+)\] (?P<mode>\S+)")


def costs(document: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Seconds of a call by dimension, for each operator and mode, out of a results file of the suite `ops`.

    Raises:
        ValueError: the file has no butterfly of two dimensions or more.

    >>> arms = [{"arm": "stonefx", "seconds": 2e-4}]
    >>> suite = [{"case": f"butterfly [4096, {dim}] forward", "arms": arms} for dim in (64, 256)]
    >>> costs({"suites": {"ops": suite}})
    {'butterfly, forward': {64: 0.0002, 256: 0.0002}}
    """
    found: dict[str, dict[int, float]] = {}
    for case in document.get("suites", {}).get("ops", []):
        named = _CASE.fullmatch(case["case"])
        if named is not None:
            seconds = next(arm["seconds"] for arm in case["arms"] if arm["arm"] == OWN)
            line = f"{named['line']}, {named['mode']}"
            found.setdefault(line, {})[int(named["dim"])] = seconds
    if not any(len(line) > 1 for line in found.values()):
        raise ValueError(
            "expected results of the suite ops with butterflies of two dimensions or more; measure them with "
            "`stonefx bench ops --json FILE`"
        )
    return found


def growth(document: dict[str, Any]) -> Figure:
    """Times against N log N and N^2, both scaled to meet the first point of each line.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: as `costs`.
    """
    lines = costs(document)
    figure, axes = pyplot().subplots(figsize=(6.4, 4.4), layout="constrained")
    for color, (name, line) in zip(COLORS, lines.items(), strict=False):
        dims = sorted(line)
        axes.plot(dims, [1e3 * line[dim] for dim in dims], "o-", color=color, label=name)
        first = dims[0]
        expected = [
            1e3 * line[first] * dim * (dim.bit_length() - 1) / first / (first.bit_length() - 1)
            for dim in dims
        ]
        axes.plot(dims, expected, ":", color=color, label="N log N" if name == list(lines)[-1] else None)
    first = min(min(line) for line in lines.values())
    least = min(line[first] for line in lines.values() if first in line)
    dims = sorted({dim for line in lines.values() for dim in line})
    axes.plot(dims, [1e3 * least * (dim / first) ** 2 for dim in dims], "--", color="0.6", label="N²")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("dimension N")
    axes.set_ylabel("milliseconds a call, 4096 rows")
    axes.set_title("Butterflies cost N log N")
    axes.grid(True, which="major", color="0.9")
    axes.legend(frameon=False)
    return figure


@click.command(help=__doc__)
@click.argument("results", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("picture", type=click.Path(dir_okay=False, path_type=Path))
def main(results: Path, picture: Path) -> None:
    """Draw the picture of a results file."""
    try:
        figure = growth(json.loads(results.read_text(encoding="utf-8")))
    except (ValueError, ImportError) as error:
        raise click.ClickException(str(error)) from error
    temporary = picture.with_name(f".{picture.name}.part{picture.suffix}")
    figure.savefig(temporary, dpi=80)
    temporary.replace(picture)
    click.echo(f"written to {picture}")


if __name__ == "__main__":
    main()
