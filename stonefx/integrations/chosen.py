"""Which libraries' code is made to reach the graph that Dynamo is tracing right now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

LIBRARIES = ("geoopt", "hypll")

_CHOSEN: ContextVar[tuple[str, ...]] = ContextVar("_CHOSEN", default=())
_DECIDED: ContextVar[bool] = ContextVar("_DECIDED", default=False)


def libraries(names: Iterable[str]) -> tuple[str, ...]:
    """The libraries that an option names, `("all",)` being each.

    >>> libraries(["all"]), libraries([])
    (('geoopt', 'hypll'), ())
    """
    names = tuple(names)
    return LIBRARIES if names == ("all",) else names


@contextmanager
def chosen(names: Iterable[str]) -> Iterator[None]:
    """What stonefx itself traces inside of this block sees these libraries."""
    token = _CHOSEN.set(libraries(names))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def chosen_libraries() -> tuple[str, ...]:
    """What the innermost `chosen` said."""
    return _CHOSEN.get()


@contextmanager
def own_branches() -> Iterator[None]:
    """Functions of the libraries are traced as they are in this block, which decides their branches by itself."""
    token = _DECIDED.set(True)
    try:
        yield
    finally:
        _DECIDED.reset(token)


def branches_decided() -> bool:
    """Whether this is inside of `own_branches`."""
    return _DECIDED.get()


def traced_for(backend: Any) -> tuple[str, ...]:
    """The libraries whose code is to reach the graphs of a backend of `torch.compile`.

    None but for stonefx's own backends: those that have an attribute `integrations`, the names or a function that
    gives them for the keyword arguments that `torch.compile` passes on, and those of `stonefx` that have none, which
    see what `chosen` says.

    Args:
        backend: as Dynamo has it, in its wrappers.
    """
    owner, passed = owner_of(backend)
    own = getattr(owner, "integrations", None)
    if own is not None:
        return own(passed) if callable(own) else own
    return _CHOSEN.get() if type(owner).__module__.partition(".")[0] == "stonefx" else ()


def owner_of(backend: Any) -> tuple[Any, dict[str, Any]]:
    """What is behind a backend as Dynamo has it, in its wrappers, and what `torch.compile` passes on to it.

    The object that it is a method of, or else the function itself.
    """
    passed: dict[str, Any] = {}
    while True:
        if hasattr(backend, "_torchdynamo_orig_backend"):
            backend = backend._torchdynamo_orig_backend
        elif type(backend).__name__ == "_TorchCompileWrapper":
            passed, backend = backend.kwargs, backend.compiler_fn
        else:
            return getattr(backend, "__self__", backend), passed
