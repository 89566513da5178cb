"""`stonefx bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from stonefx.cli.common import CheckFailed, check_folders, check_picture, give_json, json_option, note, say
from stonefx.cli.kept import Kept
from stonefx.cli.lone_suites import bench_compress, bench_growth

# Named here as well, since the suites themselves import torch.
NAMES = (
    "chain",
    "hyperbolic",
    "integrations",
    "low-rank",
    "ops",
    "papers",
    "regions",
    "zoo",
    "compress",
    "growth",
)


def _suites(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in NAMES if name.startswith(start)]


def _engines(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """The names of `--peers`, each once."""
    if value is None:
        return ()
    from stonefx.benchmarks.engines import ENGINES

    names = [name.strip() for name in value.split(",") if name.strip()]
    unknown = [name for name in names if name not in ENGINES]
    if unknown or not names:
        raise click.BadParameter(
            f"expected names of {', '.join(ENGINES)}, with commas between them, got {value!r}"
        )
    return tuple(dict.fromkeys(names))


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
@click.option(
    "--peers",
    "engines",
    callback=_engines,
    metavar="NAME[,NAME...]",
    help="Other engines beside ours: max-autotune, max-autotune-no-cudagraphs, reduce-overhead, torchao, "
    "onnxruntime, openvino (the extra `peers`).",
)
@click.option("--resume", is_flag=True, help="Keep what the --json file has, and write it after each case.")
@click.option(
    "--plot",
    "picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the results here; the ending chooses the format.",
)
@click.option(
    "--compare",
    "old_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="OLD.json",
    help="Compare with an earlier --json; exit code 1 where an arm became slower than both intervals allow.",
)
@click.option("--cold", is_flag=True, help="Each call finds the caches full of something else.")
@click.option(
    "--keep",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Keep statistics of compress in this folder, for a run that goes on; empty it when stonefx changes.",
)
def bench(suites: tuple[str, ...], json_to: str | None, resume: bool, **options: Any) -> None:
    """Time against eager, inductor and by hand.

    The suites are chain, hyperbolic, integrations, low-rank, ops, papers, regions and zoo, and compress and growth,
    which run by themselves. Without a name chain and hyperbolic run; most others need packages of the extra `bench`.
    zoo takes most of an hour, compress several hours.

    \b
    stonefx bench chain --threads 2
    stonefx bench chain --case "batch 8" --seconds 5
    stonefx bench regions --peers max-autotune,onnxruntime,openvino
    stonefx bench zoo --json zoo.json --resume
    stonefx bench chain --json new.json --compare old.json --plot chain.png

    Exit code 1: --compare found something slower.
    """
    kept = Kept(json_to, resume)
    if resume and kept.path is None and "growth" not in suites:
        raise click.UsageError("--resume goes on in a file: name it with --json")
    _bench(suites, kept, resume, **options)
    if json_to == "-":
        give_json(kept.text, json_to)


def _bench(
    suites: tuple[str, ...],
    kept: Kept,
    resume: bool,
    *,
    device: str,
    threads: int | None,
    seconds: float | None,
    only: tuple[str, ...],
    picture: Path | None,
    keep: Path | None,
    old_file: Path | None,
    cold: bool,
    engines: tuple[str, ...],
) -> None:
    alone = {"growth", "compress"} & {*suites}
    if alone and (old_file is not None or cold or engines):
        raise click.UsageError(f"--compare, --cold and --peers are for other suites than {alone.pop()}")
    if "growth" in suites:
        if suites != ("growth",) or device != "cpu" or seconds is not None or resume or keep is not None:
            raise click.UsageError(
                "growth runs by itself, on the CPU, with --only, --threads, --json and --plot alone"
            )
        bench_growth(threads, kept, only, picture)
        return
    if "compress" in suites:
        if suites != ("compress",) or device != "cpu" or seconds is not None:
            raise click.UsageError("compress runs by itself, on the CPU, without --seconds")
        bench_compress(threads, kept, only, resume, picture, keep)
        return
    if keep is not None:
        raise click.UsageError("--keep: only the suite compress has statistics to keep")
    import torch

    from stonefx.benchmarks import Settings, result_document, result_table
    from stonefx.benchmarks.case import CaseResult
    from stonefx.benchmarks.compare import compare
    from stonefx.benchmarks.load import load_average, load_warning
    from stonefx.benchmarks.machine import gpu_state, machine_facts, usable_cores
    from stonefx.benchmarks.picture import draw
    from stonefx.benchmarks.results import left_out_lines
    from stonefx.benchmarks.resume import OtherMachine, earlier_results, merged_results
    from stonefx.benchmarks.roofline import ceilings
    from stonefx.benchmarks.run import UnknownCase, run_suite
    from stonefx.benchmarks.suites import LONG, SUITES, TABLES

    unknown = [name for name in suites if name not in SUITES]
    if unknown:
        raise click.UsageError(f"there is no suite {unknown[0]!r}; choose from {', '.join(NAMES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device on this machine"
        )
    check_folders({"--json": kept.path, "--plot": picture})
    old = None if old_file is None else _earlier(old_file)
    check_picture(picture)
    if threads is not None:
        torch.set_num_threads(threads)

    load = load_average()
    if warning := load_warning(load, usable_cores()):
        click.echo(warning, err=True)
    settings = Settings.of(device, seconds, cold)
    machine = machine_facts(device)
    say(", ".join(f"{name} {value}" for name, value in machine.items() if value))
    results: dict[str, list[CaseResult]] = {}
    if resume and kept.path is not None:
        try:
            results = earlier_results(kept.path, machine)
        except OtherMachine as error:
            raise click.UsageError(f"--resume: {error}") from None

    reached = ceilings(device) if kept.wanted or picture is not None else None

    def document() -> dict[str, Any]:
        return result_document(results, machine, settings, load, reached)

    def put() -> None:
        kept.put(json.dumps(document(), indent=2, allow_nan=False))

    failed: list[str] = []

    def fail(name: str, error: Exception) -> None:
        lines = str(error).splitlines() or [""]
        failed.append(name)
        click.echo(f"{name} failed: {type(error).__name__}: {lines[0]}", err=True)

    # The minutes of a card are dear: there a case that fails does not stop those behind it.
    go_on = fail if device == "cuda" else None
    with kept.whole(", and --resume --json {} goes on"):
        for name in suites or [name for name in SUITES if name not in LONG]:

            def add(result: CaseResult, name: str = name) -> None:
                nonlocal results
                results = merged_results(results, name, result)
                put()

            done = [result.name for result in results.get(name, [])]
            try:
                run_suite(
                    name,
                    device,
                    settings,
                    only=only,
                    done=done,
                    engines=engines,
                    on_result=add,
                    on_failure=go_on,
                )
            except UnknownCase as error:
                kept.forget()
                raise click.UsageError(f"--only: {error}") from None
            say(f"\n{name}\n{TABLES.get(name, result_table)(results.get(name, []))}")
            for line in left_out_lines(results.get(name, [])):
                say(line)
        if device == "cuda":
            machine["after"] = gpu_state()
        put()
    if kept.path is not None:
        note(f"\nwritten to {kept.path}", None)
    if failed:
        raise CheckFailed(f"{len(failed)} cases failed: {', '.join(failed)}; the others are measured")
    if picture is not None:
        draw(document(), picture)
        note(f"picture: {picture}", None)
    if old is not None:
        # As a file would hold them, so that both sides are alike.
        comparison = compare(old, json.loads(json.dumps(document())))
        say(f"\n{comparison}")
        if comparison.slower:
            raise CheckFailed(f"{len(comparison.slower)} slower than in {old_file}")


def _earlier(file: Path) -> dict[str, Any]:
    """The results in a file of `--json`.

    Raises:
        click.BadParameter: it holds something else.
    """
    from stonefx.benchmarks.compare import compare

    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        compare(document, document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = "no JSON" if isinstance(error, json.JSONDecodeError) else f"no results: {error}"
        raise click.BadParameter(
            f"{file} is {what}; expected what stonefx bench --json wrote", param_hint="--compare"
        ) from None
    return document
