"""A model with the inputs of an example call: the arguments that `explain` and `optimize` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from stonefx.cli.common import Command, names_files

if TYPE_CHECKING:
    from stonefx.cli.inputs import Examples
    from stonefx.cli.models import Found

MODELS = """MODEL is one of

    \b
    my_package.models:build    a function that gives the model, or the model and its inputs:
                               a tuple, or a dictionary of keyword arguments
    path/to/models.py:build    the same, of a file
    ./folder, or org/name      a model of transformers that is on this disk
    fast.safetensors           what stonefx optimize or stonefx.save wrote"""


def model_argument(command: Command) -> Command:
    """The argument MODEL."""
    return click.argument("name", metavar="MODEL", shell_complete=names_files)(command)


def input_option(command: Command) -> Command:
    """The option `--input`."""
    return click.option(
        "-i",
        "--input",
        "inputs",
        multiple=True,
        metavar="[NAME=]SHAPE",
        help="Such as 8x128 or 2x16:int64, once for each argument; with names, keyword arguments.",
    )(command)


def passes_option(command: Command) -> Command:
    """The option `--passes`."""
    return click.option("--passes", metavar="NAME,...", help="Only these passes.")(command)


def given_passes(passes: str | None) -> str | tuple[str, ...]:
    """What `--passes` asks for.

    Raises:
        click.BadParameter: there is no such pass.
    """
    from stonefx.options import Options

    if passes is None:
        return "all"
    names = tuple(name.strip() for name in passes.split(","))
    try:
        Options.parse({"passes": names})
    except (TypeError, ValueError) as error:
        raise click.BadParameter(" ".join(str(error).split()), param_hint="--passes") from None
    return names


def find_named(name: str) -> Found:
    """The model that MODEL names.

    Raises:
        click.BadParameter: there is none.
    """
    from stonefx.cli.models import find_model

    try:
        return find_model(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="MODEL") from None


def find_with_inputs(name: str, inputs: Sequence[str]) -> tuple[Found, Examples]:
    """The model and the inputs of its example call: those of `--input`, or else its own.

    Raises:
        click.UsageError: one of them is missing or makes no sense.
    """
    from stonefx.cli.inputs import parse_inputs

    try:
        given = parse_inputs(inputs)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--input") from None
    found = find_named(name)
    if not inputs and found.examples is None:
        raise click.UsageError(
            "give at least one --input, such as --input 8x128, or let MODEL return the model and its inputs"
        )
    return found, given if inputs or found.examples is None else found.examples
