"""What all commands share: one line for a mistake, exit codes, and where JSON and pages go."""

from __future__ import annotations

import contextlib
import dis
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from click.shell_completion import CompletionItem

from stonefx.files import remove_unfinished, write_atomically
from stonefx.stopping import LINE, STOPPED, stoppable
from stonefx.terminal import fit, printable, takes_colour

Command = TypeVar("Command", bound=Callable[..., Any])

_OUTPUT = "stonefx.output"
CHECK_FAILED, MISTAKE, OUR_ERROR, NOBODY_READS = 1, 2, 3, 141


class Refused(click.ClickException):
    """What stonefx cannot do for these arguments, said on one line."""

    exit_code = MISTAKE

    def __init__(self, error: Exception | str) -> None:
        super().__init__(" ".join(str(error).split()))


def is_stated(error: BaseException) -> bool:
    """Whether the package itself raised an error, whose message is then meant for who called.

    One that torch, a user's function or an expression of the package raised is none: nobody stated what went wrong.

    >>> try: Refused(None + 1)
    ... except TypeError as error: is_stated(error)
    False
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None:
        return False
    owner = str(last.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
    code = last.tb_frame.f_code.co_code
    return owner == "stonefx" and code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]


class CheckFailed(click.ClickException):
    """What was to be checked does not hold."""

    exit_code = CHECK_FAILED


class Commands(click.Group):
    """A group of commands that says each mistake on one line and ends with an exit code that a script can use."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; with `standalone_mode=False` what goes wrong is raised."""
        run = partial(super().main, args, prog_name, complete_var, standalone_mode=False, **extra)
        if not standalone_mode:
            return run()
        try:
            with stoppable(last=remove_unfinished), warnings.catch_warnings():
                warnings.showwarning = _show_warning
                code: Any = run()
        except click.ClickException as error:
            _end(_line(error), error.exit_code)
        except (click.Abort, KeyboardInterrupt) as stop:
            if sys.stderr.isatty():
                click.echo(err=True)  # closes the line in which the terminal shows ^C
            said = str(stop.__cause__ or "")
            _end(f"{LINE[:-1]}; {said}" if said else LINE, STOPPED)
        except SystemExit as end:
            # Where who read the output has enough of it, such as `head`, click ends quietly, as a failed check would.
            pacified = type(sys.stdout).__name__.endswith("PacifyFlushWrapper")
            sys.exit(NOBODY_READS if pacified else end.code)
        except OSError as error:
            file = f": {error.filename}" if error.filename else ""
            _end(f"Error: the system says: {error.strerror or error}{file}", MISTAKE)
        except Exception:
            traceback.print_exc()
            _end("Error: the lines above are a defect of stonefx; please report them.", OUR_ERROR)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what stopped it is the cause of an `Abort`, before which click prints nothing."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise click.Abort from stop


def _end(line: str, code: int) -> NoReturn:
    click.echo(printable(line, sys.stderr), err=True)
    sys.exit(code)


def _line(error: click.ClickException) -> str:
    """One line: what is wrong, and where an option was given, where to read about it."""
    text = " ".join(error.format_message().split())
    hint = ""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"; see {error.ctx.command_path} --help"
    return f"Error: {text.rstrip('.')}{hint}"


def _show_warning(message: Warning | str, *details: Any, **more: Any) -> None:
    # Only what stonefx says is for who uses the command; torch's notes on its own future are not.
    if type(message).__module__.startswith("stonefx."):
        click.echo(printable(f"Warning: {' '.join(str(message).split())}", sys.stderr), err=True)


def _json_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value == "-":
        # What a model's own code prints shall not stand in the document.
        context.meta[_OUTPUT] = sys.stdout
        context.with_resource(contextlib.redirect_stdout(sys.stderr))
    elif value is not None:
        if ".json" not in Path(value).name:
            raise click.BadParameter(
                f"expected a file name with .json in it, got {value!r}; alone, to print, it stands last or as --json=-",
                context,
                parameter,
            )
        check_folder("--json", Path(value))
    return value


def json_option(what: str) -> Callable[[Command], Command]:
    """`--json`, which prints `what` as JSON and nothing else, and `--json FILE`, which writes it."""
    return click.option(
        "--json",
        "json_to",
        is_flag=False,
        flag_value="-",
        metavar="[FILE]",
        callback=_json_name,
        help=f"{what} as JSON: printed instead of the text, or written to FILE.",
    )


def _page_name(context: click.Context, parameter: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        if value.suffix not in (".html", ".htm"):
            raise click.BadParameter(f"expected a file name that ends in .html, got {str(value)!r}")
        check_folder("--html", value)
    return value


def html_option(what: str) -> Callable[[Command], Command]:
    """`--html FILE`, which writes a page."""
    return click.option(
        "--html",
        "html_to",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=_page_name,
        metavar="FILE",
        help=f"Write {what} as one page for a browser.",
    )


def check_folder(option: str, file: Path | None) -> None:
    """What is written at the end must have a folder at the start, one that can be written to.

    Raises:
        click.UsageError: it has none; the message names the option.
    """
    if file is not None and not file.absolute().parent.is_dir():
        raise click.UsageError(f"{option}: there is no folder {file.absolute().parent}; create it first")
    if file is not None and not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        raise click.UsageError(f"{option}: the folder {file.absolute().parent} cannot be written to")


def check_folders(files: Mapping[str, Path | None]) -> None:
    """`check_folder` of several files, by the option that names each."""
    for option, file in files.items():
        check_folder(option, file)


def check_picture(picture: Path | None) -> None:
    """A picture is drawn at the end, and what it needs is looked for at the start.

    Raises:
        click.BadParameter: there is no such format.
        Refused: matplotlib is not installed.
    """
    if picture is None:
        return
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise Refused('--plot needs matplotlib: pip install "stonefx[plot]"') from None
    formats = FigureCanvasBase.get_supported_filetypes()
    if picture.suffix.lstrip(".") not in formats:
        raise click.BadParameter(
            f"expected a name that ends in one of {', '.join(sorted(formats))}, got {str(picture)!r}",
            param_hint="--plot",
        )


def say(text: str, json_to: str | None = None) -> None:
    """Print what a person reads, as wide as the terminal; nothing where JSON is printed instead."""
    if json_to != "-":
        # click takes colours away where the output is no terminal.
        click.echo(printable(fit(text), sys.stdout), color=takes_colour(sys.stdout) or None)


def note(text: str, json_to: str | None) -> None:
    """Print a line about a file that was written, unbroken, to copy; where JSON is printed, beside it."""
    beside = json_to == "-"
    click.echo(printable(text, sys.stderr if beside else sys.stdout), err=beside)


def give_json(text: str, json_to: str | None) -> None:
    """Print or write a JSON document, as `--json` asks."""
    if json_to == "-":
        click.echo(text.rstrip("\n"), file=click.get_current_context().meta[_OUTPUT])
    elif json_to is not None:
        write_atomically(json_to, text.rstrip("\n") + "\n")
        note(f"JSON: {json_to}", json_to)


def names_files(context: click.Context, parameter: click.Parameter, start: str) -> list[CompletionItem]:
    """Completion of an argument that is mostly a file or a folder."""
    return [CompletionItem(start, type="file")]
