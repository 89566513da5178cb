"""Writing a result so that an interrupted run leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import os
import tempfile
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
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {target}: there is no folder {target.parent}; create it first")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        # mkstemp makes a private file; the result is an ordinary one.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return target


def _umask() -> int:
    # The only way to read the mask is to set it.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
