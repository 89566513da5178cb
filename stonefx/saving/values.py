"""Constants, containers and paths of a call as JSON, and back."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import math
from collections.abc import Callable
from typing import Any

import torch

from ..capture import Output, Path, Shape, Weight
from ..tracing.arguments import children

_OF_TORCH = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}


def encode(value: Any) -> Any:
    """A value in JSON's own types; what JSON lacks is an object with one key that names the kind.

    Args:
        value: a constant, a leaf of a result template (`Output`, `Path`, `Weight`), or such in tuples, lists, dicts
            and dataclasses.

    Raises:
        TypeError: the value, or the class of a container, cannot be found again by another process.

    >>> encode((1, torch.float32, {"x": Output(0)}))
    {'tuple': [1, {'dtype': 'float32'}, {'dict': [['x', {'output': 0}]]}]}
    """
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    for kind, (matches, to_json, _) in _KINDS.items():
        if matches(value):
            return {kind: to_json(value)}
    raise TypeError(
        f"cannot save {value!r} of type {type(value).__module__}.{type(value).__qualname__}; expected tensors, "
        "numbers, strings, enums, classes and importable functions in tuples, lists, dicts and dataclasses"
    )


def decode(document: Any) -> Any:
    """The value that `encode` wrote.

    Raises:
        ValueError: the document is none of `encode`'s.
        ImportError: a class or function is not there any more; the message names it.

    >>> decode(encode((1, torch.float32, slice(2)))) == (1, torch.float32, slice(2))
    True
    """
    if not isinstance(document, dict):
        return document
    if len(document) != 1 or (kind := next(iter(document))) not in _KINDS:
        raise ValueError(f"expected one of {', '.join(_KINDS)}, got {document!r}")
    return _KINDS[kind][2](document[kind])


def reference(found: Any) -> str:
    """`module:qualified.name` of a class or function.

    Raises:
        TypeError: it is not found under that name, so that another process could not import it.

    >>> reference(torch.nn.Linear)
    'torch.nn.modules.linear:Linear'
    """
    module = getattr(found, "__module__", None)
    # Functions of torch have the qualified name of a class that is not there.
    names = [getattr(found, "__qualname__", None), getattr(found, "__name__", None)]
    for name in names if module != "__main__" else ():
        with contextlib.suppress(ImportError):
            if resolve(f"{module}:{name}") is found:
                return f"{module}:{name}"
    raise TypeError(
        f"cannot save {found!r}: another process cannot import it as {names[0]} from {module}; define it at the top "
        "level of a module that can be imported"
    )


def resolve(text: str) -> Any:
    """The class or function that a `reference` names.

    Raises:
        ImportError: there is none under that name.
    """
    module, _, name = text.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ImportError(
            f"the saved model needs {name} of the module {module}, which cannot be imported here: {error}; make it "
            "importable under that name"
        ) from error
    return found


def _container(value: Any) -> dict[str, Any]:
    items = [[kind, encode(key), encode(item)] for (kind, key), item in children(value) or ()]
    document = {"class": reference(type(value)), "items": items}
    if dataclasses.is_dataclass(value) and not isinstance(value, dict):
        return document
    made = _make(document)
    if type(made) is not type(value) or len(children(made) or ()) != len(items):
        raise TypeError(
            f"cannot save a {type(value).__qualname__}: it cannot be made again from its items; return a plain tuple, "
            "list, dict or dataclass"
        )
    return document


def _make(document: dict[str, Any]) -> Any:
    cls: Any = resolve(document["class"])
    items = [(decode(key), decode(item)) for _, key, item in document["items"]]
    if issubclass(cls, dict):
        known: dict[Any, Any] = dict(items)
        return cls(**known) if hasattr(cls, "__dataclass_fields__") else cls(known)
    if issubclass(cls, (list, tuple)):
        values = [item for _, item in items]
        return cls(*values) if hasattr(cls, "_fields") else cls(values)
    made = cls.__new__(cls)
    for name, item in items:
        # Fields were checked when the original was made; a frozen dataclass refuses plain assignment.
        object.__setattr__(made, name, item)
    return made


def _exactly(kind: type) -> Callable[[Any], bool]:
    return lambda value: type(value) is kind


def _instance(*kinds: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kinds)


def _list(values: Any) -> list[Any]:
    return [encode(value) for value in values]


def _decoded(documents: Any) -> list[Any]:
    return [decode(document) for document in documents]


def _output(document: Any) -> Output:
    return Output(document[0], item=True) if isinstance(document, list) else Output(document)


_Kind = tuple[Callable[[Any], bool], Callable[[Any], Any], Callable[[Any], Any]]

# Kind: which values, to JSON, from JSON. The first that matches is taken.
_KINDS: dict[str, _Kind] = {
    "output": (_exactly(Output), lambda v: v.index if not v.item else [v.index], _output),
    "shape": (_exactly(Shape), lambda v: _list(v.entries), lambda d: Shape(tuple(_decoded(d)))),
    "weight": (_exactly(Weight), lambda v: v.name, Weight),
    "path": (
        _exactly(Path),
        lambda v: [v.parameter, [[kind, encode(key)] for kind, key in v.steps]],
        lambda d: Path(d[0], tuple((kind, decode(key)) for kind, key in d[1])),
    ),
    "float": (_exactly(float), str, float),
    "complex": (
        _exactly(complex),
        lambda v: [encode(v.real), encode(v.imag)],
        lambda d: complex(*_decoded(d)),
    ),
    "bytes": (_exactly(bytes), bytes.hex, bytes.fromhex),
    "tuple": (_exactly(tuple), _list, lambda d: tuple(_decoded(d))),
    "list": (_exactly(list), _list, _decoded),
    "dict": (
        _exactly(dict),
        lambda v: [_list(item) for item in v.items()],
        lambda d: {decode(key): decode(item) for key, item in d},
    ),
    "size": (_exactly(torch.Size), list, torch.Size),
    "slice": (_exactly(slice), lambda v: _list([v.start, v.stop, v.step]), lambda d: slice(*_decoded(d))),
    "device": (_exactly(torch.device), str, torch.device),
    **{
        name: (_exactly(kind), lambda v: str(v).removeprefix("torch."), lambda d: getattr(torch, d))
        for name, kind in _OF_TORCH.items()
    },
    "enum": (
        _instance(enum.Enum),
        lambda v: [reference(type(v)), v.name],
        lambda d: resolve(d[0])[d[1]],
    ),
    "object": (lambda v: isinstance(v, type) or callable(v), reference, resolve),
    "container": (lambda v: children(v) is not None, _container, _make),
}
