"""What a forward is told that asks whether it is being compiled: as in eager, that it is not, wherever it traces then.

What `stonefx.optimize` returns is to be what the model is without a compiler, so that a forward which does something
else under one must not notice. Only libraries that ask for nothing but to leave out checks and branches on values, with
the same results, are told that they are compiled where they do not trace otherwise. For other compilers nothing
changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch._dynamo.variables.base import VariableTracker
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

from stonefx.integrations.chosen import owner_of

from .questions import asked_by_the_model

_QUESTIONS = frozenset(
    {
        torch.compiler.is_compiling,
        torch.compiler.is_dynamo_compiling,
        torch._utils.is_compiling,
        torch._dynamo.external_utils.is_compiling,
    }
)
# What asks in them was read: it chooses between forms of one mask, kernels of one result, and checks.
_ASKING_FOR_CHECKS = frozenset({"transformers"})
_PASSING_ON = frozenset({"is_torchdynamo_compiling", "is_compiling"})


@dataclass
class Answer:
    """What a forward is told in one recording.

    Attributes:
        compiled: that it is compiled.
        asked_by: the packages whose code asked.
    """

    compiled: bool
    asked_by: set[str] = field(default_factory=set)

    @property
    def may_differ(self) -> bool:
        """Whether another answer, with the same results, may let a trace go on."""
        return bool(self.asked_by) and self.asked_by <= _ASKING_FOR_CHECKS


_ANSWER: ContextVar[Answer | None] = ContextVar("_ANSWER", default=None)


@contextmanager
def answered(compiled: bool) -> Iterator[Answer]:
    """What this thread records in the block is told this."""
    answer = Answer(compiled)
    token = _ANSWER.set(answer)
    try:
        yield answer
    finally:
        _ANSWER.reset(token)


def _call_function(self: TorchInGraphFunctionVariable, tx: Any, args: Any, kwargs: Any) -> VariableTracker:
    if self.value in _QUESTIONS and not args and not kwargs and asked_by_the_model(tx):
        answer = _ANSWER.get()
        if answer is not None:
            answer.asked_by.add(_package(tx))
        compiled = answer is None or answer.compiled
        if not compiled or getattr(owner_of(tx.output.compiler_fn)[0], "answers_as_eager", False):
            return VariableTracker.build(tx, False)
    return _original(self, tx, args, kwargs)


def _package(tx: Any) -> str:
    """The package of the code that asks, be it through a function that only passes the question on."""
    while tx.f_code.co_name in _PASSING_ON and tx.parent is not None:
        tx = tx.parent
    return str(tx.f_globals.get("__name__", "")).partition(".")[0]


def _install() -> None:
    if _original.__name__ != _call_function.__name__:  # the module may be imported anew
        TorchInGraphFunctionVariable.call_function = _call_function  # type: ignore[method-assign]


_original = TorchInGraphFunctionVariable.call_function
_install()
