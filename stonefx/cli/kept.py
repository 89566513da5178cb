"""What a benchmark measured, kept beside its file until the run ends: a stop of hours of work loses none of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from stonefx.files import write_atomically


class Kept:
    """The results of a run, as the text of a JSON document that grows.

    Args:
        json_to: what `--json` names: a file, `-` to print it, or nothing.
        resume: whether the run goes on in that file, which is then written after each result.
    """

    def __init__(self, json_to: str | None, resume: bool = False) -> None:
        self.wanted = json_to is not None
        self.path = path = None if json_to in (None, "-") else Path(str(json_to))
        self.beside = path if resume or path is None else path.with_name(f"{path.name}.part")
        self.text = ""
        self.written = False

    def put(self, text: str) -> None:
        """Take what is measured by now."""
        self.text = text.rstrip("\n") + "\n"
        if self.beside is not None:
            write_atomically(self.beside, self.text)
            self.written = True

    def forget(self) -> None:
        """Remove what a run that makes no sense has measured."""
        if self.beside is not None and self.beside != self.path:
            self.beside.unlink(missing_ok=True)

    @contextlib.contextmanager
    def whole(self, hint: str = "") -> Iterator[None]:
        """The file appears after the block; what ends the block before is told where the results are.

        Args:
            hint: how to go on with a file, in which `{}` stands for its name.
        """
        try:
            yield
        except BaseException as error:
            if not self.written or isinstance(error, click.ClickException):
                raise
            where = f"what was measured is in {self.beside}{hint.format(self.beside)}"
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(where) from None
            click.echo(f"stopped; {where}", err=True)
            raise
        if self.beside is not None and self.beside != self.path:
            assert self.path is not None
            self.beside.replace(self.path)
