"""What a caller may ask for, checked once and then immutable."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from .integrations import LIBRARIES, libraries
from .passes.cost.machine import Machine
from .passes.pipeline import PIPELINE, TARGETS

Inner = Literal["eager", "aot_eager", "inductor"]
INNERS = ("eager", "aot_eager", "inductor")
ON_ERROR = ("raise", "eager")
NUMERICS = ("fast", "strict")
MACHINES = ("measured", "default")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to rewrite a graph and what runs the result.

    Args:
        inner: what runs the rewritten graph: "eager", "aot_eager" (AOT autograd alone) or "inductor".
        passes: "all", or names out of `stonefx.passes.PIPELINE`.
        require: targets that must be rewritten somewhere, else `RequiredRewriteMissing` is raised.
        dynamic: batch sizes vary freely (`optimize` only; `torch.compile` has its own `dynamic`).
        verify: compare every rewritten region with the original on probes, and undo it outside its bound.
        on_error: "raise", or "eager": after an internal failure the original runs and the report says so.
        keep: module paths, or patterns such as "*.lora_*", whose weights stay as they are: nothing is merged into or
            out of them, so that they can be swapped or looked at.
        machine: what the cost model plans for: "measured" (this machine, measured once and kept in the user's cache
            folder), "default", or a `stonefx.Machine`.
        release: free the weights that were folded away (`optimize` only).
        inplace: take the model over instead of copying it (`optimize` only).
        integrations: "all", or names of libraries (geoopt, hypll) whose code is made to reach the graph while it is
            traced; () for none.
        numerics: "strict", or "fast": two maps of hyperbolic geometry that undo each other are taken away also where
            rounding, or a guard between the two, may keep a long vector from coming back; and custom autograd functions
            whose backward is the derivative of their forward are looked into, past whose clamps the gradient is then 0.

    Raises:
        TypeError: an unknown option (the message names the nearest known one), or a value of the wrong type.
        ValueError: a value outside the choices, which the message lists.

    >>> Options(inner="eager").passes == tuple(PIPELINE)
    True
    >>> Options.parse({"iner": "eager"})
    Traceback (most recent call last):
    ...
    TypeError: unknown option 'iner'; did you mean 'inner'? Known options: dynamic, inner, inplace, \
integrations, keep, machine, numerics, on_error, passes, release, require, verify
    """

    inner: Inner = "inductor"
    passes: tuple[str, ...] = ("all",)
    require: tuple[str, ...] = ()
    dynamic: bool = True
    verify: bool = True
    on_error: Literal["raise", "eager"] = "raise"
    keep: tuple[str, ...] = ()
    machine: Machine | Literal["measured", "default"] = "measured"
    release: bool = True
    inplace: bool = False
    integrations: tuple[str, ...] = ("all",)
    numerics: Literal["fast", "strict"] = "strict"

    def __post_init__(self) -> None:
        names = _names("passes", self.passes)
        object.__setattr__(self, "passes", tuple(PIPELINE) if names == ("all",) else names)
        object.__setattr__(self, "require", _names("require", self.require))
        object.__setattr__(self, "keep", _names("keep", self.keep))
        _each_of("passes", self.passes, PIPELINE)
        _each_of("require", self.require, TARGETS)
        object.__setattr__(self, "integrations", libraries(_names("integrations", self.integrations)))
        _each_of("integrations", self.integrations, LIBRARIES)
        _one_of("inner", self.inner, INNERS)
        _one_of("on_error", self.on_error, ON_ERROR)
        _one_of("numerics", self.numerics, NUMERICS)
        if not isinstance(self.machine, Machine):
            _one_of("machine", self.machine, MACHINES)
        for name in ("dynamic", "verify", "release", "inplace"):
            if not isinstance(getattr(self, name), bool):
                raise TypeError(f"option {name!r} must be True or False, got {getattr(self, name)!r}")

    @classmethod
    def parse(cls, options: Mapping[str, Any] | None, **defaults: Any) -> Options:
        """Make options from a mapping, as `torch.compile(options=...)` hands over."""
        known = sorted(field.name for field in fields(cls))
        for name in options or {}:
            if name not in known:
                raise TypeError(
                    f"unknown option {name!r}{_nearest(name, known)} Known options: {', '.join(known)}"
                )
        return replace(cls(**defaults), **(options or {}))


def _names(option: str, value: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"option {option!r} must be a name or a sequence of names, got {value!r}")
    return tuple(value)


def _one_of(option: str, value: Any, choices: Iterable[str]) -> None:
    choices = tuple(choices)
    if value not in choices:
        raise ValueError(
            f"option {option!r} got {value!r}{_nearest(str(value), choices)} Choices: {', '.join(choices)}"
        )


def _each_of(option: str, values: Iterable[str], choices: Iterable[str]) -> None:
    for value in values:
        _one_of(option, value, choices)


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, tuple(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else "."
