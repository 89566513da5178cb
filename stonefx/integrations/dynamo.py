"""How Dynamo sees some objects of a library while it traces for stonefx; for other compilers nothing changes.

Dynamo makes a variable of each value that traced code reads, by a table from types to functions. The entries for
scripted functions and for some types of libraries are replaced by ones that first ask for whom Dynamo traces. The
libraries themselves are left as they are.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._dynamo.guards import GuardBuilder
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._dynamo.variables.base import VariableTracker
from torch._dynamo.variables.builder import VariableBuilder

from .chosen import branches_decided, chosen_libraries, traced_for
from .rebinding import accelerated

_USED = "_stonefx_integrations"


@dataclass
class Tracing:
    """What is traced in the place of a library's code.

    Args:
        library: its name.
        functions: scripted function -> what is traced instead.
        objects: types whose instances are traced as plain objects, though they derive from `Tensor`.
        left: for the report: what is traced as it is, and why.
    """

    library: str
    functions: dict[Any, Callable[..., Any]] = field(default_factory=dict)
    objects: frozenset[type] = frozenset()
    left: tuple[str, ...] = ()


_MAKERS: dict[str, Callable[[], Tracing]] = {}
_MADE: dict[str, Tracing] = {}
_lock = threading.RLock()


def register(library: str, make: Callable[[], Tracing]) -> None:
    """Have `make` say how a library is traced, once somebody has imported it."""
    _MAKERS[library] = make


def imported(names: Iterable[str] | None = None) -> list[Tracing]:
    """How the libraries are traced that this process has imported; of these names, or all."""
    found = []
    for name in _MAKERS if names is None else names:
        made = _MADE.get(name)
        if made is None and name in sys.modules and name in _MAKERS:
            with _lock:
                made = _MADE.get(name) or _MADE.setdefault(name, _MAKERS[name]())
        if made is not None:
            found.append(made)
    return found


def notes(names: Iterable[str]) -> list[str]:
    """For the report of the graph being compiled: what was traced in the place of a library's code, and what not."""
    try:
        used: dict[str, set[str]] = getattr(InstructionTranslator.current_tx().output, _USED, {})
    except AttributeError:
        used = {}  # no graph is being compiled
    lines = [
        f"{library}: traced in a form that fits one graph: {', '.join(sorted(names))}"
        for library, names in used.items()
    ]
    return accelerated() + lines + [line for tracing in imported(names) for line in tracing.left]


def _wanted(builder: VariableBuilder) -> list[Tracing]:
    return imported(traced_for(builder.tx.output.compiler_fn))


def _note(builder: VariableBuilder, library: str, name: str) -> None:
    output = builder.tx.output
    if not hasattr(output, _USED):
        setattr(output, _USED, {})
    getattr(output, _USED).setdefault(library, set()).add(name)


def replaces_functions() -> bool:
    """Whether some function of the chosen libraries would be traced in another form."""
    return any(tracing.functions for tracing in imported(chosen_libraries()))


def _function(builder: VariableBuilder, value: Any) -> VariableTracker:
    for tracing in () if branches_decided() else _wanted(builder):
        made = tracing.functions.get(value)
        if made is not None:
            builder.install_guards(GuardBuilder.ID_MATCH)
            _note(builder, tracing.library, made.__name__)
            return VariableTracker.build(builder.tx, made)
    return _wrap_function(builder, value)


def _object(builder: VariableBuilder, value: Any) -> VariableTracker:
    for tracing in _wanted(builder):
        if type(value) in tracing.objects:
            _note(builder, tracing.library, type(value).__name__)
            return builder.wrap_user_defined(value)
    return builder.wrap_tensor(value)


_table: Any = VariableBuilder._type_dispatch
_wrap_function = VariableBuilder.wrap_jit_function


def _type_dispatch(cls: type[VariableBuilder]) -> dict[Any, Callable[..., Any]]:
    table: dict[Any, Callable[..., Any]] = _table()
    table[torch.jit.ScriptFunction] = _function
    for tracing in imported():
        for kind in tracing.objects:
            table[kind] = _object
    return table


def _install() -> None:
    if _table.__func__ is not _type_dispatch:  # the module may be imported anew
        VariableBuilder._type_dispatch = classmethod(_type_dispatch)  # type: ignore[method-assign, assignment]


_install()
