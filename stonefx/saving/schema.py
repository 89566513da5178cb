"""Typed reading of a document: every part of it is of the kind that is asked for, or an error that says where."""

from __future__ import annotations

import json
import keyword
import unicodedata
from collections.abc import Collection
from typing import Any

# Deeper nests than a model has; Python's own parser and recursion have room for more.
DEPTH = 48


class Malformed(ValueError):
    """A document says what `save` does not write."""


def parse(text: str) -> Any:
    """JSON as `save` writes it: no duplicate keys, no numbers that JSON does not have, no nest that is too deep.

    Raises:
        Malformed: the text is anything else.

    >>> parse('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """

    def no_constant(name: str) -> Any:
        raise Malformed(f"expected finite numbers, got {name}")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) != len(found):
            raise Malformed(f"expected each key once, got {_shown([key for key, _ in found])}")
        return made

    try:
        return json.loads(text, parse_constant=no_constant, object_pairs_hook=pairs)
    except RecursionError as error:
        raise Malformed("expected a document of few levels, got one that is nested too deeply") from error
    except Malformed:
        raise
    except ValueError as error:
        raise Malformed(f"expected JSON: {error}") from error


def text(value: Any, where: str) -> str:
    """A string."""
    if type(value) is not str:
        raise expected("a string", value, where)
    return value


def word(value: Any, where: str, words: Collection[str]) -> str:
    """One of some strings."""
    if type(value) is not str or value not in words:
        raise expected(f"one of {', '.join(sorted(words))}", value, where)
    return value


def identifier(value: Any, where: str) -> str:
    """A name that can stand in Python source and is read there as it is written."""
    if type(value) is not str or not value.isidentifier() or keyword.iskeyword(value):
        raise expected("a Python name", value, where)
    if unicodedata.normalize("NFKC", value) != value:
        raise expected("a Python name in its normal form", value, where)
    return value


def integer(value: Any, where: str, least: int = -(2**63), most: int = 2**63 - 1) -> int:
    """A whole number in a range; the range of torch's own integers where none is given."""
    if type(value) is not int or not least <= value <= most:
        raise expected(f"a whole number from {least} to {most}", value, where)
    return value


def flag(value: Any, where: str) -> bool:
    """True or False."""
    if type(value) is not bool:
        raise expected("true or false", value, where)
    return value


def items(value: Any, where: str, count: int | None = None) -> list[Any]:
    """A list, of a given length where there is one."""
    if type(value) is not list or count not in (None, len(value)):
        raise expected("a list" if count is None else f"a list of {count}", value, where)
    return value


def record(value: Any, where: str, keys: Collection[str]) -> dict[str, Any]:
    """An object with exactly these keys."""
    if type(value) is not dict or value.keys() != {*keys}:
        raise expected(f"an object of {', '.join(keys)}", value, where)
    return value


def names(value: Any, where: str) -> list[str]:
    """A list of strings."""
    return [text(item, where) for item in items(value, where)]


def below(depth: int, where: str) -> int:
    """The depth one level further in.

    Raises:
        Malformed: that is deeper than any model needs.
    """
    if depth >= DEPTH:
        raise Malformed(f"{where}: expected at most {DEPTH} levels, got more")
    return depth + 1


def expected(what: str, value: Any, where: str) -> Malformed:
    """The error for a value of another kind."""
    return Malformed(f"{where}: expected {what}, got {_shown(value)}")


def _shown(value: Any) -> str:
    # Cut from what is short already: the value may be a whole document.
    shown = repr(value) if not isinstance(value, dict | list) else f"{type(value).__name__} {_head(value)}"
    return shown if len(shown) <= 120 else f"{shown[:117]}..."


def _head(value: Any) -> str:
    return ", ".join(
        repr(item)[:40] if not isinstance(item, dict | list) else "..." for item in list(value)[:4]
    )
