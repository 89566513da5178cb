"""What a forward asks of tensors and of the process while Dynamo traces it.

Dynamo answers `x.is_contiguous()`, `x.requires_grad`, `torch.is_grad_enabled()` and the like as it traces, and its
graph has no trace of them. Its guards are no help: they hold each argument to its strides and to `requires_grad`,
asked or not. So the questions themselves are noted, and a graph relies on those alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo.variables.builtin import BuiltinVariable
from torch._dynamo.variables.tensor import TensorVariable
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

from .bytecode import before_instructions
from .facts import STATE
from .fast_paths import masks_given

# What dtype, rank and sizes determine, which are checked as it is.
_CHECKED = frozenset(
    "dtype ndim dim ndimension shape size numel nelement __len__ itemsize element_size nbytes is_floating_point "
    "is_complex is_signed data".split()
)
# Its name from torch 2.14 on, or else the one before.
_GETATTR = "tp_getattro_impl" if hasattr(TensorVariable, "tp_getattro_impl") else "var_getattr"
# Places in memory, which are no constants.
MEMORY = frozenset("data_ptr const_data_ptr untyped_storage storage".split())
_STATE_NAMES = {id(function): name for name, function in STATE.items()}

_TORCH = FilePath(torch.__file__).parent
_OWN = FilePath(__file__).parents[1]
# Functions of torch that only pass a question on; what other code of torch asks makes no difference to its results.
_PASSED_ON = tuple(
    str(_TORCH / name) for name in ("__init__.py", "_tensor.py", "amp", "autograd", "backends")
)


@dataclass(frozen=True)
class Question:
    """A question as Dynamo answered it: the sources of the tensors asked, None for a tensor of the forward's own."""

    sources: tuple[str | None, ...]
    name: str
    arguments: tuple[Any, ...]
    answer: Any
    keywords: tuple[tuple[str, Any], ...] = ()


@dataclass
class Questions:
    """All that a forward asked while it was recorded."""

    asked: list[Question] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)

    def note(
        self,
        tensors: Iterable[TensorVariable],
        name: str,
        arguments: Iterable[Any],
        answer: Any,
        keywords: Iterable[tuple[str, Any]] = (),
    ) -> None:
        """Keep a question, unless another thread asked it of its own model."""
        if threading.get_ident() != self.thread:
            return
        sources = tuple(tensor.source.name if tensor.source is not None else None for tensor in tensors)
        question = Question(sources, name, tuple(arguments), answer, tuple(keywords))
        if question not in self.asked:
            self.asked.append(question)


@contextmanager
def noted_questions() -> Iterator[Questions]:
    """Note what code outside of torch asks of tensors and of the process while Dynamo traces it."""
    questions = Questions()
    with ExitStack() as stack:
        for owner, name, wrap in (
            (TensorVariable, _GETATTR, _attribute),
            (TensorVariable, "call_method", _method),
            (TensorVariable, "call_obj_hasattr", _hasattr),
            (TorchInGraphFunctionVariable, "call_function", _function),
            (BuiltinVariable, "call_function", _builtin),
        ):
            stack.enter_context(patch.object(owner, name, wrap(getattr(owner, name), questions)))
        stack.enter_context(before_instructions(["IS_OP"], lambda tx: _identity(tx, questions)))
        yield questions


_Traced = Callable[..., Any]


def _attribute(original: _Traced, questions: Questions) -> _Traced:
    def getattribute(self: TensorVariable, tx: Any, name: str) -> Any:
        result = original(self, tx, name)
        if name == "__class__":
            if asked_by_the_model(tx):
                questions.note([self], name, (), self.python_type())
        elif name not in _CHECKED and asked_by_the_model(tx) and (answer := _answer(result)) is not _NONE:
            questions.note([self], name, (), answer)
        return result

    return getattribute


def _method(original: _Traced, questions: Questions) -> _Traced:
    def call_method(self: TensorVariable, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
        result = original(self, tx, name, args, kwargs)
        if name in _CHECKED or not asked_by_the_model(tx):
            return result
        if name == "stride" or name in MEMORY:
            # Strides that vary with a size, and places in memory, are no constants.
            questions.note([self], name, (), None)
        # What answers nothing, such as `x[0] = 1`, is no question, and asked again at a call it would act again.
        elif (answer := _answer(result)) is not _NONE and answer is not None:
            given, named = (
                [_answer(value) for value in args],
                {key: _answer(value) for key, value in kwargs.items()},
            )
            if _NONE not in (*given, *named.values()):
                questions.note([self], name, given, answer, named.items())
        return result

    return call_method


def _hasattr(original: _Traced, questions: Questions) -> _Traced:
    def call_obj_hasattr(self: TensorVariable, tx: Any, name: str) -> Any:
        result = original(self, tx, name)
        if asked_by_the_model(tx) and not hasattr(torch.Tensor, name):
            questions.note([self], "hasattr", (name,), _answer(result))
        return result

    return call_obj_hasattr


def _function(original: _Traced, questions: Questions) -> _Traced:
    def call_function(self: TorchInGraphFunctionVariable, tx: Any, args: Any, kwargs: Any) -> Any:
        result = original(self, tx, args, kwargs)
        state = _STATE_NAMES.get(id(self.value))
        of_tensor = bool(args) and isinstance(args[0], TensorVariable)
        if (state is None and not of_tensor) or not asked_by_the_model(tx):
            return result
        tensors, given = ([args[0]], args[1:]) if state is None else ([], args)
        given, named = (
            [_answer(value) for value in given],
            {key: _answer(value) for key, value in kwargs.items()},
        )
        name, answer = state or str(getattr(self.value, "__name__", "")), _answer(result)
        constant = answer is not None and _NONE not in (answer, *given, *named.values())
        if constant and (state or (name not in _CHECKED and hasattr(torch.Tensor, name))):
            questions.note(tensors, name, given, answer, named.items())
        return result

    return call_function


def _builtin(original: _Traced, questions: Questions) -> _Traced:
    def call_function(self: BuiltinVariable, tx: Any, args: Any, kwargs: Any) -> Any:
        result = original(self, tx, args, kwargs)
        if self.fn not in (isinstance, type) or not args or not asked_by_the_model(tx):
            return result
        asked = args[0].realize()
        if not isinstance(asked, TensorVariable):
            return result
        if self.fn is type and len(args) == 1:
            questions.note([asked], "__class__", (), asked.python_type())
        elif self.fn is isinstance and (kinds := _kinds(args[1].as_python_constant())):
            questions.note([asked], "isinstance", (kinds,), _answer(result))
        return result

    return call_function


def _kinds(classes: Any) -> tuple[type, ...]:
    """Classes of which one tensor may be an instance and another not; none where each tensor is, or none."""
    kinds = classes if isinstance(classes, tuple) else (classes,)
    some = tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, torch.Tensor))
    return () if torch.Tensor in some else some


def _identity(tx: Any, questions: Questions) -> None:
    pair = [value.realize() for value in tx.stack[-2:]]
    # Attention has a fast path where all its operands are one tensor.
    asked = all(isinstance(value, TensorVariable) for value in pair) and (
        asked_by_the_model(tx) or masks_given(tx)
    )
    if asked:
        questions.note(pair, "is", (), pair[0] is pair[1])


_NONE = object()
_ANSWERS = (
    type(None), bool, int, float, complex, str, tuple, torch.dtype, torch.device, torch.layout, torch.memory_format,
)  # fmt: skip


def _answer(variable: Any) -> Any:
    """The constant that Dynamo answered with; `_NONE` where it put the question into the graph."""
    if variable is None or not hasattr(variable, "is_python_constant"):
        return _NONE
    variable = variable.realize()
    if not variable.is_python_constant():
        return _NONE
    value = variable.as_python_constant()
    return value if isinstance(value, _ANSWERS) else _NONE


def asked_by_the_model(tx: Any) -> bool:
    """Whether the line that is traced belongs to the model, or a function that only passes its question on."""
    while tx is not None:
        file = tx.f_code.co_filename
        if not file.startswith((str(_TORCH), str(_OWN))):
            return True
        if not file.startswith(_PASSED_ON):
            return False
        tx = tx.parent
    return False
