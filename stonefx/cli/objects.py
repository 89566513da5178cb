"""What a name on the command line stands for: `pkg.module:attribute` or `path/to/file.py:attribute`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

FORMS = "my_package.models:build or path/to/models.py:build"


def load_object(name: str) -> Any:
    """Import what a name stands for; the current folder is searched too, and a file's own folder for what it imports.

    Args:
        name: a module or the path of a Python file, a colon, and an attribute.

    Raises:
        ValueError: the name has another form, nothing is found there, or importing it fails.

    >>> load_object("math:pi")
    3.141592653589793
    """
    path, colon, attribute = name.rpartition(":")
    if not (colon and path and attribute):
        raise ValueError(f"expected a module or file and a function, such as {FORMS}, got {name!r}")
    module = _file(Path(path)) if path.endswith(".py") else _module(path)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = _near(part, found)
            raise ValueError(f"{path} has no {attribute!r}; {near or 'name a function that returns it'}")
        found = getattr(found, part)
    return found


def call(name: str, factory: Any) -> Any:
    """Call what a name stands for, without arguments.

    Raises:
        ValueError: it cannot be called, or raises; the message has the line where.
    """
    if not callable(factory):
        raise ValueError(f"{name} is of type {type(factory).__name__}, expected a function")
    try:
        return factory()
    except Exception as error:
        if isinstance(error, TypeError) and len(traceback.extract_tb(error.__traceback__)) == 1:
            raise ValueError(f"{name} cannot be called without arguments: {error}") from error
        raise ValueError(f"{name} raised {said(error)}") from error


def said(error: BaseException) -> str:
    """An error with the innermost line of the code that it came from."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    where = f" ({last[0].filename}:{last[0].lineno})" if last else ""
    return f"{type(error).__name__}: {error}{where}"


def _module(path: str) -> ModuleType:
    _search(os.getcwd())
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        # A module that the user's own module fails to import is another mistake than a wrong name.
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise ValueError(f"{path} was found but does not import: {said(error)}") from error
        file = Path(path.replace(".", os.sep) + ".py")
        raise ValueError(
            f"there is no module {path!r}, neither installed nor in {os.getcwd()}; a file is named with its ending, "
            f"such as {file}:build"
        ) from error
    except Exception as error:
        raise ValueError(f"{path} was found but does not import: {said(error)}") from error


def _file(path: Path) -> ModuleType:
    """The module of a file, under the file's own name where no other module has it."""
    if not path.is_file():
        raise ValueError(f"there is no file {path} (the current folder is {os.getcwd()})")
    _search(str(path.resolve().parent))
    name = path.stem
    known = sys.modules.get(name)
    if known is not None and _is_of(known, path):
        return known
    # The file of another module's name, such as test.py, must not hide that module from others.
    if known is not None or not _finds(name, path):
        name = f"{name}_of_{path.resolve().parent.name}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{path} does not import: {said(error)}") from error
    return module


def _search(folder: str) -> None:
    if folder not in sys.path:
        sys.path.append(folder)


def _is_of(module: ModuleType, path: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve() == path.resolve()


def _finds(name: str, path: Path) -> bool:
    """Whether importing a name gives this file."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path.resolve()


def _near(part: str, owner: Any) -> str:
    import difflib

    near = difflib.get_close_matches(part, [name for name in dir(owner) if not name.startswith("_")], 1)
    return f"did you mean {near[0]!r}?" if near else ""
