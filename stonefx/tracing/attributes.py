"""What a recording read of the model's own attributes: the facts that its graph holds for."""

from __future__ import annotations

import re
from typing import Any

from torch._guards import TracingContext

# A path from a module to one of its children: both spellings that Dynamo has for the table.
_CHILD = re.compile(r"(?:\._modules|\.__dict__\['_modules'\])\['([^']+)'\]")
_TABLES = ("_modules", "_parameters", "_buffers")
_NAMED = re.compile(r"\.__dict__\['([^']+)'\]|\.([A-Za-z_]\w*)")


def attributes_read(variable: str) -> frozenset[tuple[str, str]]:
    """Path of a module and name of an attribute, for each attribute of the model that Dynamo has read so far.

    An attribute that was looked for and not found counts; a module that was looked at comes with the name "". For
    a backend to call while Dynamo compiles.

    Args:
        variable: the local variable of the recorded function that holds the model.
    """
    context = TracingContext.try_get()
    if context is None:
        return frozenset()
    found = set()
    for guard in context.guards_context.dynamo_guards:
        name: Any = guard.name
        facts = getattr(guard.create_fn, "keywords", None) or {}
        kind = guard.create_fn_name()
        looked_for = facts.get("attr", facts.get("key"))
        found |= _attributes(name() if callable(name) else name, variable, looked_for, kind)
    return frozenset(found)


def _attributes(source: str, variable: str, attribute: str | None, kind: str) -> set[tuple[str, str]]:
    """What one guard says.

    Args:
        source: Dynamo's expression for a value.
        variable: see `attributes_read`.
        attribute: a name that was looked for on the value, or in it.
        kind: of the guard.

    >>> sorted(_attributes("L['model']._modules['a']._modules['0'].p", "model", None, "CONSTANT_MATCH"))
    [('', ''), ('a', ''), ('a.0', ''), ('a.0', 'p')]
    """
    prefix = f"L['{variable}']"
    if not source.startswith(prefix):
        return set()
    position, path = len(prefix), ""
    found = {("", "")}
    while child := _CHILD.match(source, position):
        position, path = child.end(), f"{path}.{child[1]}".strip(".")
        found.add((path, ""))
    named = _NAMED.match(source, position)
    name = (named[1] or named[2]) if named else attribute
    if name in _TABLES:
        # Dynamo looks at a table whenever it takes something out of it; forward went through all where the keys count.
        name = "_modules" if "KEYS" in kind and name == "_modules" else attribute
    if name is not None and (named or position == len(source)):
        found.add((path, name))
    return found
