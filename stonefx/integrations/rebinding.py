"""Functions of a library that run on stonefx's operators while somebody asks for it.

A function is replaced once, by a dispatcher that stays: it calls the library's own code unless its slot holds something
else, and whenever that answers `NotImplemented`. So what others took hold of in between goes back with the rest.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tabulate import tabulate

_lock = threading.RLock()


class Slot:
    """What a dispatcher calls first: nothing, or the newest of the replacements that somebody asked for."""

    __slots__ = ("_asked", "run")

    def __init__(self) -> None:
        self.run: Callable[..., Any] | None = None
        self._asked: dict[object, Callable[..., Any]] = {}

    def ask(self, who: object, run: Callable[..., Any]) -> None:
        """Have the dispatcher call `run`, until `who` releases it."""
        self._asked[who] = run
        self.run = run

    def release(self, who: object) -> None:
        """Let go of what `who` asked for."""
        self._asked.pop(who, None)
        self.run = next(reversed(self._asked.values()), None)


@dataclass(frozen=True)
class Target:
    """A function of a library that has a replacement.

    Args:
        name: what the user calls it.
        owner: the module or class that has it.
        attribute: its name there.
        original: the library's, which is called where the replacement answers `NotImplemented`.
        source: the function whose fingerprint was looked at.
        operator: what the replacement runs, in words.
    """

    name: str
    owner: Any
    attribute: str
    original: Callable[..., Any]
    source: Any
    operator: str


_SLOTS: dict[tuple[int, str], Slot] = {}


def slot(target: Target) -> Slot:
    """The slot of a target, whose dispatcher is put in place by the first call."""
    key = (id(target.owner), target.attribute)
    with _lock:
        if key not in _SLOTS:
            made = Slot()
            dispatcher = _dispatcher(target.original, made)
            setattr(target.owner, target.attribute, dispatcher)
            if not isinstance(target.owner, type):
                _rebind(target.original, dispatcher)
            _SLOTS[key] = made
        return _SLOTS[key]


def _dispatcher(original: Callable[..., Any], slot: Slot) -> Callable[..., Any]:
    @functools.wraps(original)
    def dispatch(*args: Any, **kwargs: Any) -> Any:
        run = slot.run
        if run is not None:
            result = run(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return original(*args, **kwargs)

    # Code of its own, by which compilers keep what they compiled: one for all would soon be too often compiled.
    made: Any = dispatch
    made.__code__ = made.__code__.replace(co_name=original.__name__)
    made.stonefx_original = original
    return made


def original_of(function: Any) -> Any:
    """The library's function behind a dispatcher, or the function itself."""
    return getattr(function, "stonefx_original", function)


def _rebind(original: Callable[..., Any], dispatcher: Callable[..., Any]) -> None:
    """Put a dispatcher wherever a module of the library has imported the function by name."""
    library = original.__module__.partition(".")[0]
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == library:
            for attribute, value in list(vars(module).items()):
                if value is original:
                    setattr(module, attribute, dispatcher)


_ACTIVE: list[Acceleration] = []


class Acceleration:
    """Functions of a library that run on stonefx's operators, until `undo`; a context manager, and a table in print.

    Args:
        library: its name.
        replacements: what to rebind, with what answers instead.
        left: what is left alone -> why.
    """

    def __init__(
        self, library: str, replacements: Iterable[tuple[Target, Callable[..., Any]]], left: Mapping[str, str]
    ) -> None:
        pairs = list(replacements)
        self.library = library
        self.functions = {target.name: target.operator for target, _ in pairs}
        self.left = dict(left)
        self._slots = [(slot(target), run) for target, run in pairs]
        self.start()

    def start(self) -> None:
        """Have the operators answer, again after `undo`; where they do, nothing."""
        with _lock:
            if self not in _ACTIVE:
                for each, run in self._slots:
                    each.ask(self, run)
                _ACTIVE.append(self)

    def undo(self) -> None:
        """Have the library's own code run again, unless another acceleration is on; again is nothing."""
        with _lock:
            if self in _ACTIVE:
                _ACTIVE.remove(self)
                for each, _ in self._slots:
                    each.release(self)

    @property
    def active(self) -> bool:
        """Whether it is on."""
        return self in _ACTIVE

    def __enter__(self) -> Acceleration:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.undo()

    def __str__(self) -> str:
        rows = [(self.library, name, operator) for name, operator in self.functions.items()]
        rows += [(self.library, name, f"left alone: {why}") for name, why in self.left.items()]
        return str(tabulate(rows, headers=("library", "function", "runs on")))


def accelerated() -> list[str]:
    """For reports: the functions of libraries that run on operators now."""
    found: dict[str, dict[str, None]] = {}
    for each in list(_ACTIVE):
        found.setdefault(each.library, {}).update(dict.fromkeys(each.functions))
    return [
        f"{library}: accelerated, on stonefx's operators: {', '.join(names)}"
        for library, names in found.items()
    ]
