"""What the graph of a file may call: operators out of a list, with arguments of the kinds that they declare.

An operator is listed where it computes tensors or sizes from tensors and numbers, and checks what it is given. None of
them can name a file, another process, memory that is not a tensor's, or code: their schemas have no argument for such
a thing, which `operator` looks up again before it gives one out. Left out are operators that skip their checks, that
read packed or sparse data whose inner consistency nobody checks, and those that only a backward pass calls.
"""

from __future__ import annotations

import keyword
import math
import operator as python
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from . import schema
from .aten import ATEN

# Those of our own that a graph does not call.
_OF_BACKWARD = "_backward"
# Words such as "replicate" or "ij,jk->ik" choose a formula; a message is only ever shown.
_WORDS = frozenset(
    """
    UPLO approximate driver equation indexing interpolation mode norm ord p pad_mode padding padding_side
    reduce rounding_mode side
""".split()
)
_WORD = re.compile(r"[A-Za-z0-9_.,> -]{0,256}")
_MESSAGE = "assert_msg"
_DATA = frozenset(
    ["Tensor", "int", "bool", "float", "number", "ScalarType", "Layout", "Device", "MemoryFormat"]
)
_RESULTS = _DATA - {"Layout", "Device", "MemoryFormat"}

_ARITHMETIC: dict[str, Callable[..., Any]] = {
    **{
        f"operator.{name}": getattr(python, name)
        for name in "add sub mul truediv floordiv mod neg pos abs eq ne lt le gt ge and_ or_ not_ pow".split()
    },
    **{f"math.{name}": getattr(math, name) for name in ("floor", "ceil", "trunc", "sqrt")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in "sym_int sym_float sym_max sym_min sym_not sym_ite sym_sum".split()
    },
    **{f"builtins.{function.__name__}": function for function in (max, min, abs, round, int, float, bool)},
}
_GETITEM, _GRAD = "operator.getitem", "torch.set_grad_enabled"
_ENTER, _EXIT = "torch.autocast.enter", "torch.autocast.exit"
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_ARITHMETIC,
    _GETITEM: python.getitem,
    _GRAD: torch._C._set_grad_enabled,
    _ENTER: torch.amp.autocast_mode._enter_autocast,
    _EXIT: torch.amp.autocast_mode._exit_autocast,
}
# Operators on graphs, which are bodies among their arguments and graphs of listed operators again.
_HIGHER_ORDER: dict[str, Callable[..., Any]] = {
    f"higher_order.{name}": getattr(torch.ops.higher_order, name)
    for name in ("autograd_function_apply", "tag_activation_checkpoint", "cond")
}
_LARGEST_POWER = 8
_AUTOCAST = ("cpu", "cuda", "mps", "xpu", "hpu", "mtia")


def name_of(target: Any) -> str | None:
    """The name under which a file calls an operator or function; None for what it cannot call.

    >>> name_of(torch.ops.aten.add.Tensor), name_of(python.getitem), name_of(print)
    ('aten.add.Tensor', 'operator.getitem', None)
    """
    if isinstance(target, OpOverload):
        return str(target)
    known = {**_FUNCTIONS, **_HIGHER_ORDER}
    return next((name for name, function in known.items() if function is target), None)


def is_higher_order(target: Any) -> bool:
    """Whether an operator takes bodies."""
    return any(target is known for known in _HIGHER_ORDER.values())


def operator(name: Any, where: str, trusted: Collection[str] = ()) -> Callable[..., Any]:
    """The operator or function of a name.

    Args:
        name: such as "aten.add.Tensor" or "operator.getitem".
        where: what calls it, for errors.
        trusted: namespaces besides those of torch and stonefx.

    Raises:
        Malformed: a graph cannot call it.
        ValueError: it is in a namespace that the caller did not name, or its library is not imported.

    >>> operator("aten.from_file.default", "a node")
    Traceback (most recent call last):
    ...
    stonefx.saving.schema.Malformed: a node: expected an operator that a graph may call, got 'aten.from_file.default'
    """
    if schema.text(name, where) in _FUNCTIONS:
        return _FUNCTIONS[name]
    if name in _HIGHER_ORDER:
        return _HIGHER_ORDER[name]
    namespace, _, rest = name.partition(".")
    is_operator = re.fullmatch(r"\w+\.\w+\.\w+", name, re.ASCII) is not None
    if not is_operator or not _is_listed(namespace, rest, trusted):
        if is_operator and namespace not in ("aten", "stone"):
            raise ValueError(
                f"the saved model calls {name}, and without being told loading calls operators of torch and stonefx "
                f"only; import the library that brings it, and pass stonefx.load(path, operators=[{namespace!r}]) if "
                "you trust the file with it"
            )
        raise schema.expected("an operator that a graph may call", name, where)
    target = _registered(namespace, *rest.split("."))
    if target is None:
        raise ValueError(
            f"the saved model calls {name}, which is not there in torch {torch.__version__}; import the library that "
            "brings it, or load with the torch that the model was saved with"
        )
    if namespace not in trusted and not _is_pure(target):
        raise schema.expected("an operator on tensors and numbers", name, where)
    return target


def check_call(target: Any, args: Sequence[Any], kwargs: Mapping[str, Any], where: str) -> None:
    """Check the arguments of a node: `fx.Node`s and constants, of the kinds that its target declares.

    Raises:
        Malformed: they are of other kinds.
    """
    if isinstance(target, OpOverload):
        _check_operator(target, args, kwargs, where)
    elif is_higher_order(target):
        # Which of its operands are bodies it looks at itself; there is nothing else among them that could run.
        if not all(map(_is_operand, args)) or not all(map(_is_option, kwargs.values())):
            raise schema.expected(f"bodies, values and options of {name_of(target)}", [*args, *kwargs], where)
    elif not _fits_function(name_of(target), args) or kwargs:
        raise schema.expected(f"arguments of {name_of(target)}", [*args, *kwargs], where)


def _is_listed(namespace: str, rest: str, trusted: Collection[str]) -> bool:
    name = rest.split(".")[0]
    if namespace == "aten":
        return name in ATEN
    if namespace == "stone":
        return not name.endswith(_OF_BACKWARD)
    return namespace in trusted


def _registered(namespace: str, name: str, overload: str) -> OpOverload | None:
    qualified = f"{namespace}::{name}" + ("" if overload == "default" else f".{overload}")
    # Functions of TorchScript stand among the operators too; they are not in the dispatcher.
    try:
        if not torch._C._dispatch_has_kernel(qualified):
            return None
    except RuntimeError:  # a name that no operator can have
        return None
    target = getattr(getattr(getattr(torch.ops, namespace), name, None), overload, None)
    return target if isinstance(target, OpOverload) else None


def _is_pure(target: OpOverload) -> bool:
    """Whether an operator computes tensors and numbers from such, with words that choose a formula."""
    for argument in target._schema.arguments:
        kind = _element(str(argument.real_type))
        is_word = kind == "str" and (argument.name in _WORDS or argument.name == _MESSAGE)
        # A generator can only be left out, as a file has no notation for one.
        if kind not in _DATA and kind != "Generator" and not is_word:
            return False
    return all(_element(str(result.real_type)) in _RESULTS for result in target._schema.returns)


def _check_operator(target: OpOverload, args: Sequence[Any], kwargs: Mapping[str, Any], where: str) -> None:
    declared = target._schema.arguments
    by_position = [argument for argument in declared if not argument.kwarg_only]
    names = {argument.name: argument for argument in declared}
    given = dict(zip((argument.name for argument in by_position), args, strict=False))
    twice = given.keys() & kwargs.keys()
    if len(args) > len(by_position) or twice or not kwargs.keys() <= names.keys():
        raise schema.expected(f"arguments of {target}", [*args, *kwargs], where)
    if any(keyword.iskeyword(name) for name in kwargs):
        raise schema.expected(f"{target} with its arguments by position", list(kwargs), where)
    given |= kwargs
    for name, argument in names.items():
        if name not in given:
            if not argument.has_default_value():
                raise schema.Malformed(f"{where}: expected {name} among the arguments of {target}")
        elif not _fits(given[name], str(argument.real_type), name):
            raise schema.expected(f"{argument.real_type} for {name} of {target}", given[name], where)


def _fits(value: Any, kind: str, name: str) -> bool:
    if kind.startswith("Optional["):
        return value is None or _fits(value, kind[9:-1], name)
    if kind.startswith("List["):
        if isinstance(value, list | tuple):
            return all(_fits(item, kind[5:-1], name) for item in value)
        return isinstance(value, fx.Node) or (
            type(value) in (bool, int, float) and _fits(value, kind[5:-1], name)
        )
    match kind:
        case "Tensor" | "number":
            return isinstance(value, fx.Node) or _is_number(value) or type(value) is complex
        case "int" | "bool":
            return isinstance(value, fx.Node) or (type(value) is not float and _is_number(value))
        case "float":
            return isinstance(value, fx.Node) or _is_number(value)
        case "str":
            return type(value) is str and (name == _MESSAGE or bool(_WORD.fullmatch(value)))
        case "ScalarType":
            return type(value) is torch.dtype
        case "Layout":
            return type(value) is torch.layout
        case "MemoryFormat":
            return type(value) is torch.memory_format
        case "Device":
            return type(value) is torch.device
    return False


def _is_number(value: Any) -> bool:
    return type(value) in (bool, float) or (type(value) is int and -(2**63) <= value < 2**64)


def _fits_function(name: str | None, args: Sequence[Any]) -> bool:
    match name, args:
        case "operator.getitem", [fx.Node(), fx.Node() | int()]:
            return _is_value(args[1])
        case "torch.set_grad_enabled", [bool()]:
            return True
        case "torch.autocast.enter", [str() as device, dtype, bool(), bool() | None]:
            return device in _AUTOCAST and isinstance(dtype, torch.dtype | None)
        case "torch.autocast.exit", [fx.Node(target=entered)]:
            return entered is _FUNCTIONS[_ENTER]
        case "operator.pow", [base, exponent]:
            # Powers of sizes are squares and cubes; a tower of them would take all memory.
            return isinstance(base, fx.Node) and type(exponent) is int and 0 <= exponent <= _LARGEST_POWER
    flat = [leaf for arg in args for leaf in (arg if isinstance(arg, list | tuple) else [arg])]
    return (
        name in _ARITHMETIC
        and 1 <= len(args) <= 3
        and all(map(_is_value, flat))
        and any(isinstance(leaf, fx.Node) for leaf in flat)
    )


def _is_operand(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_operand, value))
    return value is None or _is_value(value)


def _is_option(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_option, value))
    return value is None or _is_number(value) or (type(value) is str and bool(_WORD.fullmatch(value)))


def _is_value(value: Any) -> bool:
    return isinstance(value, fx.Node) or _is_number(value)


def _element(kind: str) -> str:
    """The kind of one entry of lists and of what may be left out."""
    while (inner := re.fullmatch(r"(?:Optional|List)\[(.*)\]", kind)) is not None:
        kind = inner[1]
    return kind
