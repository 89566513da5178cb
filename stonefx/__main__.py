"""The command line: `stonefx demo`, `explain`, `bench` and `doctor`."""

from __future__ import annotations

import json
from pathlib import Path

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
    from stonefx.passes.rewrite import RewriteError

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
@click.argument("suites", nargs=-1, metavar="[SUITE ...]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option(
    "--threads", type=click.IntRange(min=1), help="Intra-op threads of torch; its own choice if left out."
)
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), help="Time limit of each case.")
@click.option(
    "--json", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the results to this file."
)
@click.option("--only", multiple=True, metavar="CASE", help="Measure this case alone; may be repeated.")
@click.option("--resume", is_flag=True, help="Keep what the --json file has, and write it after each case.")
def bench(
    suites: tuple[str, ...],
    device: str,
    threads: int | None,
    seconds: float | None,
    path: Path | None,
    only: tuple[str, ...],
    resume: bool,
) -> None:
    """Time against eager, inductor and by hand.

    The suites are chain, hyperbolic, ops, regions and zoo. Without a name chain and hyperbolic run; the others need
    packages of the extra `bench`, and zoo takes most of an hour.
    """
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
        raise click.UsageError(f"there is no suite {unknown[0]!r}; choose from {', '.join(SUITES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise click.UsageError(
            f"--device cuda: torch {torch.__version__} sees no CUDA device on this machine"
        )
    if path is not None and not path.absolute().parent.is_dir():
        raise click.UsageError(f"--json: there is no folder {path.absolute().parent}; create it first")
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

        def keep(result: CaseResult, name: str = name) -> None:
            nonlocal results
            results = merged_results(results, name, result)
            if resume:
                write()

        done = [result.name for result in results.get(name, [])]
        try:
            run_suite(name, device, settings, only=only, done=done, on_result=keep)
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
