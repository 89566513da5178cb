"""Constants, containers and places in a call as JSON, and back."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Callable
from typing import Any

import torch

from ..tracing.arguments import children
from . import schema
from .classes import Classes, make, reference

# What else may stand in a nest: to JSON, `(kind, payload)` or None; and from JSON, given the kind.
Write = Callable[[Any], tuple[str, Any] | None]
Read = Callable[[str, Any, str], Any]

_KINDS: dict[type, str] = {
    torch.dtype: "dtype",
    torch.layout: "layout",
    torch.memory_format: "memory_format",
}
_OF_TORCH = {
    kind: {str(value).removeprefix("torch."): value for value in vars(torch).values() if type(value) is cls}
    for cls, kind in _KINDS.items()
}
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def encode(value: Any, write: Write = lambda _: None) -> Any:
    """A value in JSON's own types; what JSON lacks is an object with one key that names the kind.

    Args:
        value: a constant, or such in tuples, lists, dicts, dataclasses and their kin.
        write: the kind and payload of what else may stand there; None for what it does not know.

    Raises:
        TypeError: the value, or the class of a container, cannot be found again by another process.

    >>> encode((1, torch.float32, {"x": 2.0}))
    {'tuple': [1, {'dtype': 'float32'}, {'dict': [['x', 2.0]]}]}
    """
    if (special := write(value)) is not None:
        return dict([special])
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value

    def inner(item: Any) -> Any:
        return encode(item, write)

    cls = type(value)
    if cls is float:
        return {"float": str(value)}
    if cls is complex:
        return {"complex": [inner(value.real), inner(value.imag)]}
    if cls is bytes:
        return {"bytes": value.hex()}
    if cls is tuple or cls is list:
        return {cls.__name__: [inner(item) for item in value]}
    if cls is dict:
        return {"dict": [[key_document(key), inner(item)] for key, item in value.items()]}
    if cls is torch.Size and all(type(size) is int for size in value):
        return {"size": list(value)}
    if cls is slice:
        return {"slice": [inner(value.start), inner(value.stop), inner(value.step)]}
    if cls is torch.device:
        return {"device": [value.type, value.index]}
    if cls in _KINDS:
        return {_KINDS[cls]: str(value).removeprefix("torch.")}
    if isinstance(value, enum.Enum):
        return {"enum": [reference(cls), value.name]}
    if children(value) is not None:
        return {"container": _container(value, inner)}
    if isinstance(value, type) or callable(value):
        return {"object": reference(value)}
    raise TypeError(
        f"cannot save {value!r} of type {cls.__module__}.{cls.__qualname__}; expected tensors, "
        "numbers, strings, enums, classes and importable functions in tuples, lists, dicts and dataclasses"
    )


def decode(
    document: Any, where: str, classes: Classes | None = None, read: Read | None = None, depth: int = 0
) -> Any:
    """The value that `encode` wrote.

    Args:
        document: in JSON's own types.
        where: what it is, for errors.
        classes: those that it may name; None for no class at all.
        read: the value of a kind and payload that `write` gave.
        depth: how many levels of a nest it stands in.

    Raises:
        Malformed: the document is none of `encode`'s.
        ValueError: a class or function is not there, or may not be used; the message names it.

    >>> decode(encode((1, torch.float32, slice(2))), "the value") == (1, torch.float32, slice(2))
    True
    """
    if document is None or type(document) in (bool, int, str, float):
        return document
    if type(document) is not dict or len(document) != 1:
        raise schema.expected("a number, a string or an object of one key", document, where)
    ((kind, payload),) = document.items()
    depth = schema.below(depth, where)

    def inner(item: Any) -> Any:
        return decode(item, where, classes, read, depth)

    def several(given: Any, count: int | None = None) -> list[Any]:
        return [inner(item) for item in schema.items(given, where, count)]

    match kind:
        case "float":
            return _FLOATS[schema.word(payload, where, _FLOATS)]
        case "complex":
            parts = several(payload, 2)
            if not all(type(part) in (int, float) for part in parts):
                raise schema.expected("two numbers", payload, where)
            return complex(*parts)
        case "bytes":
            return _bytes(payload, where)
        case "tuple":
            return tuple(several(payload))
        case "list":
            return several(payload)
        case "dict":
            pairs = [schema.items(pair, where, 2) for pair in schema.items(payload, where)]
            return _unique([(key_of(key, where), inner(item)) for key, item in pairs], where)
        case "size":
            return torch.Size([schema.integer(size, where, 0) for size in schema.items(payload, where)])
        case "slice":
            return slice(*several(payload, 3))
        case "device":
            return _device(payload, where)
        case "dtype" | "layout" | "memory_format":
            return _OF_TORCH[kind][schema.word(payload, where, _OF_TORCH[kind])]
        case "enum" if classes is not None:
            name, member = schema.items(payload, where, 2)
            members = classes.enumeration(name, where)._member_map_
            return members[schema.word(member, where, members)]
        case "object" if classes is not None:
            return classes.constant(payload, where)
        case "container" if classes is not None:
            return _made(payload, where, classes, inner)
    if read is None:
        raise schema.expected("a constant", document, where)
    return read(kind, payload, where)


def key_of(document: Any, where: str) -> Any:
    """The key of a dict: a string, a number, or a tuple of such, whose `repr` is Python source for it.

    Raises:
        Malformed: it is anything else.
    """
    key = decode(document, where)
    if not is_key(key):
        raise schema.expected("a key that is a string, a number or a tuple of such", document, where)
    return key


def is_key(key: Any) -> bool:
    """Whether a key's `repr` is Python source for it, as the generated call needs."""
    if type(key) is tuple:
        return all(map(is_key, key))
    return key is None or type(key) in (bool, int, str, bytes) or (type(key) is float and math.isfinite(key))


def key_document(key: Any) -> Any:
    """The key of a dict in JSON's own types.

    Raises:
        TypeError: the generated call could not write it as source.
    """
    if not is_key(key):
        raise TypeError(
            f"cannot save a dict with the key {key!r}; expected keys that are strings, numbers or tuples of such"
        )
    return encode(key)


def _container(value: Any, inner: Callable[[Any], Any]) -> dict[str, Any]:
    steps = children(value) or ()
    document = {
        "class": reference(type(value)),
        "items": [[key_document(key), inner(item)] for (_, key), item in steps],
    }
    if dataclasses.is_dataclass(value) and not isinstance(value, dict):
        return document
    try:
        made = make(type(value), [(key, item) for (_, key), item in steps])
    except Exception as error:
        made = error
    if type(made) is not type(value) or len(children(made) or ()) != len(steps):
        raise TypeError(
            f"cannot save a {type(value).__qualname__}: it cannot be made again from its items; return a plain tuple, "
            "list, dict or dataclass"
        )
    return document


def _made(payload: Any, where: str, classes: Classes, inner: Callable[[Any], Any]) -> Any:
    document = schema.record(payload, where, ("class", "items"))
    cls = classes.container(document["class"], where)
    pairs = [schema.items(pair, where, 2) for pair in schema.items(document["items"], where)]
    items = [(key_of(key, where), inner(item)) for key, item in pairs]
    known = _unique(items, where)
    if issubclass(cls, list | tuple):
        wanted: Any = range(len(items))
    else:
        wanted = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else None
    complete = issubclass(cls, dict) or wanted is None or known.keys() == {*wanted}
    if wanted is not None and not (complete and known.keys() <= {*wanted}):
        raise schema.expected(f"the fields of a {cls.__name__}", list(known), where)
    try:
        made = make(cls, items)
    except Exception as error:
        raise schema.Malformed(f"{where}: a {cls.__name__} cannot be made of these items: {error}") from error
    return made


def _unique(pairs: list[tuple[Any, Any]], where: str) -> dict[Any, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise schema.expected("each key once", [key for key, _ in pairs], where)
    return made


def _bytes(payload: Any, where: str) -> bytes:
    try:
        return bytes.fromhex(schema.text(payload, where))
    except ValueError as error:
        raise schema.expected("bytes in hexadecimal", payload, where) from error


def _device(payload: Any, where: str) -> torch.device:
    kind, index = schema.items(payload, where, 2)
    kind = schema.identifier(kind, where)
    if index is not None:
        index = schema.integer(index, where, 0, 127)
    try:
        return torch.device(kind) if index is None else torch.device(kind, index)
    except RuntimeError as error:
        raise schema.expected("a device of torch", payload, where) from error
