"""What a forward asks of its arguments and of the process beside values, dtypes and sizes, and what it was told.

Dynamo answers `x.is_contiguous()`, `x.requires_grad`, `torch.is_grad_enabled()` and the like while it traces, and its
graph has no trace of them. Its guards are no help: they hold each argument to its strides and to `requires_grad`,
asked or not. So the questions themselves are noted, and a graph relies on those alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo.source import CallMethodItemSource, TensorPropertySource
from torch._dynamo.variables.builtin import BuiltinVariable
from torch._dynamo.variables.tensor import TensorVariable
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

from .arguments import Path, Weight
from .bytecode import before_instructions
from .errors import capture_error

# What dtype, rank and sizes determine, which are checked as it is.
_CHECKED = frozenset(
    "dtype ndim dim ndimension shape size numel nelement __len__ itemsize element_size nbytes is_floating_point "
    "is_complex is_signed data".split()
)
_LAYOUT = frozenset("is_contiguous stride storage_offset dim_order _is_view _base is_set_to".split())
_MEMORY = frozenset("data_ptr const_data_ptr untyped_storage storage".split())
_GRADIENT = frozenset("requires_grad is_leaf grad_fn retains_grad grad output_nr".split())
_DEVICE = frozenset(
    "device is_cuda is_cpu is_meta is_xpu is_mps is_xla is_hpu is_ipu is_mtia is_maia is_vulkan get_device "
    "is_pinned type".split()
)
# What a copy of an argument has as the argument had it, whatever else it is.
_KINDS = frozenset("layout is_sparse is_sparse_csr is_quantized is_nested is_mkldnn names has_names is_conj is_neg".split())

_STATE: dict[str, Callable[..., Any]] = {
    name: getattr(torch, name)
    for name in (
        "is_grad_enabled is_autocast_enabled is_autocast_cpu_enabled is_autocast_cache_enabled get_autocast_dtype "
        "get_autocast_gpu_dtype get_autocast_cpu_dtype get_default_dtype is_inference_mode_enabled "
        "are_deterministic_algorithms_enabled get_float32_matmul_precision get_default_device"
    ).split()
    if hasattr(torch, name)
}
_STATE_NAMES = {id(function): name for name, function in _STATE.items()}

_TORCH = FilePath(torch.__file__).parent
_OWN = FilePath(__file__).parents[1]
# Functions of torch that only pass a question on; what other code of torch asks makes no difference to its results.
_PASSED_ON = tuple(str(_TORCH / name) for name in ("__init__.py", "_tensor.py", "amp", "autograd", "backends"))


def is_question(name: str, count: int) -> bool:
    """Whether a question of this name, to so many tensors, is known to do nothing but answer."""
    if count == 0:
        return name in _STATE
    if name == "decision":
        return False
    return name in _QUESTIONS or name in _LAYOUT | _GRADIENT | _DEVICE | _KINDS


@dataclass(frozen=True)
class Fact:
    """One answer that a graph relies on.

    Attributes:
        paths: the arguments or weights that were asked; none where the process was.
        question: an attribute or method of a tensor, a function of torch without tensors, or `isinstance`, `hasattr`,
            `is` (one argument is another) `apart` (no other shares memory with the
            first) or `decision` (see `decisions`).
        arguments: of the question.
        answer: at capture.
        keywords: further arguments of the question, by name.
    """

    paths: tuple[Path | Weight, ...]
    question: str
    arguments: tuple[Any, ...]
    answer: Any
    keywords: tuple[tuple[str, Any], ...] = ()

    def now(self, *tensors: Any) -> Any:
        """The answer for the tensors of a call, in the order of `paths`."""
        if self.question in _QUESTIONS:
            return _QUESTIONS[self.question](*tensors, *self.arguments)
        if not self.paths:
            return _STATE[self.question](*self.arguments, **dict(self.keywords))
        value = getattr(tensors[0], self.question)
        return value(*self.arguments, **dict(self.keywords)) if callable(value) else value

    def holds(self, *tensors: Any) -> bool:
        """Whether the answer is the one of the capture."""
        return bool(self.now(*tensors) == self.answer)

    def __str__(self) -> str:
        given = ", ".join(
            [getattr(value, "__name__", repr(value)) for value in self.arguments]
            + [f"{name}={value!r}" for name, value in self.keywords]
        )
        if self.question == "is":
            return f"{self.paths[0]} is {self.paths[1]}"
        if self.question == "apart":
            return f"{self.paths[0]} shares no memory with {', '.join(map(str, self.paths[1:]))}"
        if self.question == "decision":
            return f"a branch on {', '.join(map(str, self.paths))} at {self.arguments[0]}"
        if self.question in _QUESTIONS:
            return f"{self.question}({self.paths[0]}{', ' if given else ''}{given})"
        if not self.paths:
            return f"torch.{self.question}({given})"
        return f"{self.paths[0]}.{self.question}" + (f"({given})" if self.question in _METHODS else "")


def _apart(first: torch.Tensor, *others: torch.Tensor) -> bool:
    start, end = _extent(first)
    return all(end <= other[0] or other[1] <= start for other in map(_extent, others))


def _extent(tensor: torch.Tensor) -> tuple[int, int]:
    if not tensor.numel():
        return 0, 0
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), tensor.data_ptr() + (last + 1) * tensor.itemsize


_QUESTIONS: dict[str, Callable[..., Any]] = {
    "isinstance": isinstance,
    "hasattr": hasattr,
    "__class__": type,
    "is": lambda first, second: first is second,
    "apart": _apart,
    # Of tensors of the model: the last argument computes it.
    "decision": lambda *tensors: tensors[-1](*tensors[:-1]),
}
_METHODS = frozenset({"item", "is_contiguous", "stride", "storage_offset", "dim_order", "_is_view", "is_conj", "is_neg"})


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


@dataclass(frozen=True)
class Relied:
    """What the questions of a recording come to.

    Attributes:
        facts: answers that later calls must give, too.
        layouts: the arguments whose strides must be those of the capture, or expressions of the sizes as they were.
        devices: arguments must be on the device types of the capture.
    """

    facts: tuple[Fact, ...] = ()
    layouts: frozenset[Path] = frozenset()
    devices: bool = False


def relied_on(
    questions: Questions,
    call: Mapping[str, Any],
    tensors: Mapping[Path, torch.Tensor],
    weights: Mapping[int, str],
    gradients: bool,
) -> Relied:
    """What a graph relies on, given what its forward asked.

    A tensor that the forward computed itself has what it was asked for from the arguments, so that they are held
    to theirs.

    Args:
        questions: as noted.
        call: the recorded function's own variables, in which Dynamo's sources are read.
        tensors: the call's tensors by path.
        weights: names of the model's tensors by `id`.
        gradients: the gradient mode of the recording.
    """
    paths = {id(tensor): path for path, tensor in tensors.items()}
    # What does not run with gradients was recorded as it runs without, and says nothing of calls with them.
    facts: dict[Fact, None] = {} if gradients else {Fact((), "is_grad_enabled", (), False): None}
    layouts: set[Path] = set()
    devices = False
    for question in questions.asked:
        if not question.sources:
            fact = _fact((), question, question.answer)
            # Where the answer is another outside of forward, a line of forward itself has set it.
            if question.answer == (gradients if question.name == "is_grad_enabled" else fact.now()):
                facts[fact] = None
            continue
        if question.name in _MEMORY:
            facts |= {Fact((path, *rest), "apart", (), True): None for path, rest in _pairs(tensors)}
            continue
        if question.name in _DEVICE:
            devices = True
            continue
        values = [_read(source, call) for source in question.sources]
        found = [paths.get(id(value)) for value in values]
        names = [weights.get(id(value)) for value in values]
        if all(path is not None for path in found):
            asked = tuple(path for path in found if path)
            if question.name == "stride":
                layouts.update(asked)
            else:
                facts[_fact(asked, question, question.answer)] = None
        elif question.name == "is":
            continue
        elif names[0] is not None:
            answer = _ask(values[0], question) if question.name == "stride" else question.answer
            facts[_fact((Weight(names[0]),), question, answer)] = None
        elif question.name in _LAYOUT:
            layouts.update(tensors)
        elif question.name in _GRADIENT:
            facts[Fact((), "is_grad_enabled", (), gradients)] = None
            for path, tensor in tensors.items():
                if tensor.is_floating_point() or tensor.is_complex():
                    facts[Fact((path,), "requires_grad", (), tensor.requires_grad)] = None
        elif question.name in _KINDS:
            for path, tensor in tensors.items():
                facts[_fact((path,), question, _ask(tensor, question))] = None
    return Relied(tuple(facts), frozenset(layouts), devices)


def _pairs(tensors: Mapping[Path, torch.Tensor]) -> Iterator[tuple[Path, tuple[Path, ...]]]:
    paths = list(tensors)
    for index, path in enumerate(paths[:-1]):
        yield path, tuple(paths[index + 1 :])


def _fact(paths: tuple[Path | Weight, ...], question: Question, answer: Any) -> Fact:
    return Fact(paths, question.name, question.arguments, answer, question.keywords)


def facts_of_numbers(
    sources: Iterable[Any], call: Mapping[str, Any], paths: Mapping[int, Path], weights: Mapping[int, str]
) -> Relied:
    """What a graph relies on that assumes numbers to be what they were: values of tensors, and strides.

    Args:
        sources: Dynamo's sources of the numbers.
        call: the recorded function's own variables.
        paths: paths of the call's tensors by `id`.
        weights: names of the model's tensors by `id`.

    Raises:
        CaptureError: a number is none of these.
    """
    facts: list[Fact] = []
    layouts: set[Path] = set()
    for source in sources:
        tensor = _read(getattr(getattr(source, "base", None), "name", None), call)
        place = paths.get(id(tensor)) or (Weight(weights[id(tensor)]) if id(tensor) in weights else None)
        if isinstance(source, CallMethodItemSource) and place is not None:
            facts.append(Fact((place,), "item", (), tensor.item()))
        elif isinstance(source, TensorPropertySource) and isinstance(place, Path):
            layouts.add(place)
        else:
            raise capture_error(
                f"the graph holds for one value of {source.name} alone, which is no argument",
                "Pass it as an argument, or make it a constant.",
            )
    return Relied(tuple(facts), frozenset(layouts))


def _ask(tensor: torch.Tensor, question: Question) -> Any:
    return _fact((Path(""),), question, None).now(tensor)


def _read(source: str | None, call: Mapping[str, Any]) -> Any:
    """What lies at a source, which is the expression that Dynamo's own guards evaluate."""
    if source is None or not source.startswith("L["):
        return None
    try:
        return eval(source, {"L": dict(call)})
    except Exception:
        return None


@contextmanager
def noted_questions() -> Iterator[Questions]:
    """Note what code outside of torch asks of tensors and of the process while Dynamo traces it."""
    questions = Questions()
    with ExitStack() as stack:
        for owner, name, wrap in (
            (TensorVariable, "var_getattr", _attribute),
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
    def var_getattr(self: TensorVariable, tx: Any, name: str) -> Any:
        result = original(self, tx, name)
        if name == "__class__":
            if _asked_by_the_model(tx):
                questions.note([self], name, (), self.python_type())
        elif name not in _CHECKED and _asked_by_the_model(tx) and (answer := _answer(result)) is not _NONE:
            questions.note([self], name, (), answer)
        return result

    return var_getattr


def _method(original: _Traced, questions: Questions) -> _Traced:
    def call_method(self: TensorVariable, tx: Any, name: str, args: Any, kwargs: Any) -> Any:
        result = original(self, tx, name, args, kwargs)
        if name in _CHECKED or not _asked_by_the_model(tx):
            return result
        if name == "stride" or name in _MEMORY:
            # Strides that vary with a size, and places in memory, are no constants.
            questions.note([self], name, (), None)
        elif (answer := _answer(result)) is not _NONE:
            given, named = [_answer(value) for value in args], {key: _answer(value) for key, value in kwargs.items()}
            if _NONE not in (*given, *named.values()):
                questions.note([self], name, given, answer, named.items())
        return result

    return call_method


def _hasattr(original: _Traced, questions: Questions) -> _Traced:
    def call_obj_hasattr(self: TensorVariable, tx: Any, name: str) -> Any:
        result = original(self, tx, name)
        if _asked_by_the_model(tx) and not hasattr(torch.Tensor, name):
            questions.note([self], "hasattr", (name,), _answer(result))
        return result

    return call_obj_hasattr


def _function(original: _Traced, questions: Questions) -> _Traced:
    def call_function(self: TorchInGraphFunctionVariable, tx: Any, args: Any, kwargs: Any) -> Any:
        result = original(self, tx, args, kwargs)
        state = _STATE_NAMES.get(id(self.value))
        of_tensor = bool(args) and isinstance(args[0], TensorVariable)
        if (state is None and not of_tensor) or not _asked_by_the_model(tx):
            return result
        tensors, given = ([args[0]], args[1:]) if state is None else ([], args)
        given, named = [_answer(value) for value in given], {key: _answer(value) for key, value in kwargs.items()}
        name, answer = state or getattr(self.value, "__name__", ""), _answer(result)
        constant = _NONE not in (answer, *given, *named.values())
        if constant and (state or (name not in _CHECKED and hasattr(torch.Tensor, name))):
            questions.note(tensors, name, given, answer, named.items())
        return result

    return call_function


def _builtin(original: _Traced, questions: Questions) -> _Traced:
    def call_function(self: BuiltinVariable, tx: Any, args: Any, kwargs: Any) -> Any:
        result = original(self, tx, args, kwargs)
        if self.fn not in (isinstance, type) or not args or not _asked_by_the_model(tx):
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
    """Classes of which one tensor may be an instance and another not; none where every tensor is one."""
    kinds = classes if isinstance(classes, tuple) else (classes,)
    return () if torch.Tensor in kinds else kinds


def _identity(tx: Any, questions: Questions) -> None:
    pair = [value.realize() for value in tx.stack[-2:]]
    if all(isinstance(value, TensorVariable) for value in pair) and _asked_by_the_model(tx):
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


def _asked_by_the_model(tx: Any) -> bool:
    """Whether the line that is traced belongs to the model, or a function that only passes its question on."""
    while tx is not None:
        file = tx.f_code.co_filename
        if not file.startswith((str(_TORCH), str(_OWN))):
            return True
        if not file.startswith(_PASSED_ON):
            return False
        tx = tx.parent
    return False
