"""Classes and functions that a file names: which of them it may name, and how they are found without an import."""

from __future__ import annotations

import collections
import dataclasses
import enum
import sys
import types
from collections.abc import Iterable
from typing import Any

import torch

from . import schema

_BUILTIN = (
    bool, int, float, complex, str, bytes, tuple, list, dict, set, frozenset, slice, object, type,
    type(None), collections.OrderedDict, torch.Tensor, torch.Size, torch.dtype, torch.device,
)  # fmt: skip
# Where functions may come from that are arguments or results, such as an activation.
_FUNCTIONS = (torch, torch.nn.functional, torch.special, torch.linalg, torch.fft, torch._C._nn)
# What runs when an object is made, copied or dropped. A plain class has none of these of its own.
_SPECIAL = (
    "__new__", "__del__", "__getattribute__", "__copy__", "__deepcopy__", "__reduce__", "__reduce_ex__",
    "__getstate__", "__setstate__", "__getnewargs__", "__getnewargs_ex__",
)  # fmt: skip


def reference(found: Any) -> str:
    """`module:qualified.name` of a class or function.

    Raises:
        TypeError: it is not found under that name, so that another process would not find it.

    >>> reference(torch.nn.Linear)
    'torch.nn.modules.linear:Linear'
    """
    if not isinstance(found, type):
        leaf = getattr(found, "__name__", None)
        for source in _FUNCTIONS:
            if leaf is not None and vars(source).get(leaf) is found and _computes(source, leaf):
                return f"{source.__name__}:{leaf}"
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    if module == "__main__" or _imported(f"{module}:{name}") is not found:
        raise TypeError(
            f"cannot save {found!r}: another process cannot import it as {name} from {module}; define it at the top "
            "level of a module that can be imported"
        )
    return f"{module}:{name}"


class Classes:
    """What a file may name: some of Python's and torch's own, plain records that are imported, and those given.

    Args:
        given: classes and functions that the caller trusts to be made and returned.

    Raises:
        TypeError: one of them is neither.
    """

    def __init__(self, given: Iterable[Any] = ()) -> None:
        self._given: dict[str, Any] = {}
        for found in given:
            if not callable(found):
                raise TypeError(f"classes: expected classes and functions, got {found!r}")
            self._given[f"{found.__module__}:{found.__qualname__}"] = found

    def container(self, name: Any, where: str) -> type:
        """The class of a container in an argument or result.

        Raises:
            Malformed: it is a class that no container of `save` has.
            ValueError: the class is not there, or may not be made; the message names it.
        """
        found = self._given.get(schema.text(name, where))
        if found is None:
            found = _known(name, where)
            if not (found in _BUILTIN or is_record(found) or _is_of_torch(found)):
                raise ValueError(
                    f"the saved model makes a {_plain(name)}, whose class has code of its own that would run; pass it "
                    f"if you trust the file: stonefx.load(path, classes=[{name.rpartition('.')[2].rpartition(':')[2]}])"
                )
        container = isinstance(found, type) and (
            issubclass(found, dict | list | tuple) or dataclasses.is_dataclass(found)
        )
        if not container:
            raise schema.expected("the class of a tuple, list, dict or dataclass", name, where)
        return found

    def constant(self, name: Any, where: str) -> Any:
        """A class or function that is compared with or returned, and not called.

        Raises:
            ValueError: as of `container`.
        """
        found = self._given.get(schema.text(name, where))
        if found is not None:
            return found
        module, _, leaf = name.partition(":")
        for source in _FUNCTIONS:
            if source.__name__ == module and _computes(source, leaf):
                return vars(source)[leaf]
        found = _known(name, where)
        if not isinstance(found, type):
            raise ValueError(
                f"the saved model holds the function {_plain(name)}; pass it if you trust the file: "
                f"stonefx.load(path, classes=[{leaf}])"
            )
        return found

    def enumeration(self, name: Any, where: str) -> Any:
        """An enumeration whose members are arguments or results.

        Raises:
            ValueError: as of `container`.
        """
        found = self._given.get(schema.text(name, where)) or _known(name, where)
        if not isinstance(found, enum.EnumMeta):
            raise schema.expected("an enumeration", name, where)
        return found


def _computes(source: types.ModuleType, name: str) -> bool:
    """Whether a function of torch is one of tensors, such as `torch.relu`, and no tool such as `torch.load`."""
    found = vars(source).get(name)
    if source is not torch:
        return callable(found)
    return callable(found) and (
        hasattr(torch._C._VariableFunctions, name) or getattr(found, "__module__", None) == "torch.functional"
    )


def make(cls: Any, items: list[tuple[Any, Any]]) -> Any:
    """A container of a class that `Classes.container` found.

    Args:
        cls: the class.
        items: keys, positions or names of fields, with what lies there.
    """
    if issubclass(cls, dict):
        known: dict[Any, Any] = dict(items)
        return cls(**known) if hasattr(cls, "__dataclass_fields__") else cls(known)
    if issubclass(cls, list | tuple):
        values = [item for _, item in items]
        return cls(*values) if hasattr(cls, "_fields") else cls(values)
    made = cls.__new__(cls)
    for name, item in items:
        # Fields were checked when the original was made; a frozen dataclass refuses plain assignment.
        object.__setattr__(made, name, item)
    return made


def is_record(cls: Any) -> bool:
    """Whether a class holds its items and nothing else: no code of its own runs when it is made, copied or dropped.

    So are named tuples and dataclasses, unless they define more than fields and methods; the classes of results of
    transformers are counted in, since they only file their items under names.

    >>> is_record(collections.namedtuple("Pair", "first second")), is_record(collections.Counter)
    (True, False)
    """
    if not isinstance(cls, type):
        return False
    generic = sys.modules.get("transformers.utils.generic")
    if generic is not None and issubclass(cls, generic.ModelOutput):
        return cls.__module__.startswith("transformers.")
    if cls.__bases__ == (tuple,):
        made_by: Any = cls.__new__
        return (
            isinstance(made_by, types.FunctionType)
            and made_by.__globals__.get("__name__") == f"namedtuple_{cls.__name__}"
            and not {"__init__", "__del__", "__getattribute__", "__reduce_ex__", "__reduce__"}
            & vars(cls).keys()
        )
    if type(cls) is not type or not dataclasses.is_dataclass(cls) or issubclass(cls, dict | list | tuple):
        return False
    params: Any = vars(cls).get("__dataclass_params__")
    if params is None or (_own(cls, "__setattr__") and not params.frozen):
        return False
    return not any(_own(cls, name) for name in _SPECIAL) and all(
        _is_plain_field(cls, field.name) for field in dataclasses.fields(cls)
    )


def _own(cls: type, name: str) -> bool:
    found = getattr(cls, name, None)
    if found is None or found is getattr(object, name, None):
        return False
    # Dataclasses with slots bring some.
    return getattr(found, "__module__", None) != "dataclasses"


def _is_plain_field(cls: type, name: str) -> bool:
    found = next((vars(base)[name] for base in cls.__mro__ if name in vars(base)), None)
    return isinstance(found, types.MemberDescriptorType) or not hasattr(type(found), "__set__")


def _is_of_torch(found: Any) -> bool:
    """Whether a class is that of an operator's results, such as `torch.return_types.max`."""
    return isinstance(found, type) and vars(torch.return_types).get(found.__name__) is found


def _known(name: str, where: str) -> Any:
    for cls in _BUILTIN:
        if name == f"{cls.__module__}:{cls.__qualname__}":
            return cls
    found = _imported(name)
    if found is None:
        module, _, leaf = name.partition(":")
        raise ValueError(
            f"the saved model needs {_plain(name)}, and loading imports nothing that a file names; import "
            f"{module} before loading, or pass it: stonefx.load(path, classes=[{leaf}])"
        )
    return found


def _imported(name: str) -> Any:
    """What an imported module holds under a name; looked up in its dictionary, so that no code of its runs."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for leaf in path.split("."):
        if not isinstance(found, types.ModuleType | type):
            return None
        found = vars(found).get(leaf)
        # Anything else may be a stand-in that imports what it is asked for.
        if not issubclass(type(found), type | types.FunctionType | types.BuiltinFunctionType):
            return None
    is_own = (found.__module__, found.__qualname__) == (module, path)
    return found if is_own else None


def _plain(name: str) -> str:
    module, _, leaf = name.partition(":")
    return f"{leaf} of the module {module}"
