"""Writing a result so that an interrupted run leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_unfinished: set[Path] = set()
_LONGEST = 200  # letters of a name that is extended, as file systems take 255


def write_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` to `path` under a temporary name in the same folder, then rename it into place.

    Args:
        path: the file to write; its folder must exist.
        text: the whole content, written as UTF-8; halves of letters, which a name of a file may have, are escaped.

    Returns:
        The path written.

    Raises:
        FileNotFoundError: the folder does not exist; the message names it.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> write_atomically(os.path.join(folder, "a.json"), "{}").read_text()
    '{}'
    """
    with replaced_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(path)


@contextlib.contextmanager
def replaced_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file in the folder of `path` to write into; afterwards it is renamed to `path`, on failure removed.

    Raises:
        FileNotFoundError: the folder does not exist; the message names it.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with replaced_atomically(os.path.join(folder, "a.bin")) as temporary:
    ...     _ = temporary.write_bytes(b"12")
    >>> os.listdir(folder)
    ['a.bin']
    """
    target = Path(path)
    with unfinished(_beside(target)) as temporary:
        with _about(target):
            temporary.touch(exist_ok=False)
        yield temporary
        with _about(target):
            temporary.replace(target)


@contextlib.contextmanager
def folder_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder beside `path` to write into; afterwards it is renamed to `path`, on failure removed.

    Args:
        path: a folder that is not there, or is empty.

    Raises:
        FileNotFoundError: the folder above does not exist; the message names it.

    >>> import tempfile
    >>> above = tempfile.mkdtemp()
    >>> with folder_atomically(os.path.join(above, "new")) as temporary:
    ...     _ = (temporary / "a.bin").write_bytes(b"12")
    >>> os.listdir(above), os.listdir(os.path.join(above, "new"))
    (['new'], ['a.bin'])
    """
    target = Path(path)
    with unfinished(_beside(target, folder=True)) as temporary:
        with _about(target):
            temporary.mkdir()
        yield temporary
        with _about(target):
            if target.exists():
                target.rmdir()
            temporary.rename(target)


def save_figure(figure: Any, path: str | os.PathLike[str], dpi: int) -> Path:
    """Write a figure of matplotlib under a temporary name, then rename it into place; the ending says the format."""
    target = Path(path)
    with replaced_atomically(target) as temporary:
        figure.savefig(temporary, format=target.suffix.lstrip(".") or "png", dpi=dpi)
    return target


@contextlib.contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A file or folder that is removed, if it is there, unless the block ends well."""
    # Noted before it is made: what stops a command may come at any moment, also during the removal here.
    _unfinished.add(path)
    try:
        yield path
    except BaseException:
        _remove(path)
        _unfinished.discard(path)
        raise
    _unfinished.discard(path)


def remove_unfinished() -> None:
    """Remove what stands half-written: the last thing that a command does when it is stopped."""
    while _unfinished:
        _remove(_unfinished.pop())


def _beside(target: Path, folder: bool = False) -> Path:
    if target.is_dir() and not folder:
        raise IsADirectoryError(f"cannot write {target}: it is a folder; name a file in it")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: there is no folder {target.parent}; create it first")
    return target.with_name(f".{target.name[:_LONGEST]}.{secrets.token_hex(4)}.tmp")


@contextlib.contextmanager
def _about(target: Path) -> Iterator[None]:
    """What the system says of the temporary name is said of the one that was asked for."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, f"cannot write it: {error.strerror}", str(target)) from None


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
