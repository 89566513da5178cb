"""Writing a result so that an interrupted run leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` to `path` under a temporary name in the same folder, then rename it into place.

    Args:
        path: the file to write; its folder must exist.
        text: the whole content, written as UTF-8.

    Returns:
        The path written.

    Raises:
        FileNotFoundError: the folder does not exist; the message names it.

    >>> folder = tempfile.mkdtemp()
    >>> write_atomically(os.path.join(folder, "a.json"), "{}").read_text()
    '{}'
    """
    with replaced_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


@contextlib.contextmanager
def replaced_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file in the folder of `path` to write into; afterwards it is renamed to `path`, on failure removed.

    Raises:
        FileNotFoundError: the folder does not exist; the message names it.

    >>> folder = tempfile.mkdtemp()
    >>> with replaced_atomically(os.path.join(folder, "a.bin")) as temporary:
    ...     _ = temporary.write_bytes(b"12")
    >>> os.listdir(folder)
    ['a.bin']
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: there is no folder {target.parent}; create it first")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes a private file; the result is an ordinary one.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _umask() -> int:
    # The only way to read the mask is to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
