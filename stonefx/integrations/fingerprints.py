"""Whether a function of a library is the one that its replacement was written for."""

from __future__ import annotations

import functools
import hashlib
import inspect
import textwrap
import types
from collections.abc import Iterator, Sequence
from typing import Any

import torch


def fingerprint(function: Any) -> str | None:
    """A hash of a function's source and of all that it calls in its library; None where there is no source.

    >>> fingerprint(len) is None
    True
    """
    plain = python_of(function)
    if plain is None:
        return None
    library = plain.__module__.partition(".")[0]
    digest = hashlib.sha256()
    try:
        for part in sorted(_reached(plain, library), key=lambda part: (part.__module__, part.__qualname__)):
            digest.update(_source(part).encode())
    except (OSError, TypeError):
        return None
    return digest.hexdigest()[:16]


def python_of(function: Any) -> types.FunctionType | None:
    """The Python function that a scripted one was made of or that a dispatcher calls, or the function itself."""
    function = getattr(function, "stonefx_original", function)
    if isinstance(function, torch.jit.ScriptFunction):
        function = getattr(function, "_torchdynamo_inline", None)
    return function if isinstance(function, types.FunctionType) else None


def _reached(function: types.FunctionType, library: str) -> set[types.FunctionType]:
    found: set[types.FunctionType] = set()
    left = [function]
    while left:
        part = left.pop()
        if part in found or part.__module__.partition(".")[0] != library:
            continue
        found.add(part)
        left += filter(None, map(python_of, _named(part)))
    return found


def _named(function: types.FunctionType) -> Iterator[Any]:
    """What a function's code names among its globals, and among the attributes of modules that these are."""
    names, scope = function.__code__.co_names, function.__globals__
    for name in names:
        value = scope.get(name)
        if isinstance(value, types.ModuleType):
            yield from (vars(value).get(other) for other in names)
        else:
            yield value


@functools.cache
def _source(function: types.FunctionType) -> str:
    return textwrap.dedent(inspect.getsource(function))


def unknown_version(library: str, version: str, known: Sequence[str]) -> tuple[str, ...]:
    """What to say where a version of a library is none of those that are known; nothing where it is.

    >>> unknown_version("geoopt", "9.0", ["0.5.1"])
    ('geoopt 9.0 is left alone: known is 0.5.1',)
    """
    return () if version in known else (f"{library} {version} is left alone: known is {', '.join(known)}",)
