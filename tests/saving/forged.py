"""Files that somebody else could have written: the contents changed, and the checksum made to fit."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open

from stonefx.saving.file import Contents, write


def contents(path: Path) -> Contents:
    """The document and tensors of a file, looked at by nobody."""
    with safe_open(path, framework="pt") as opened:
        tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
        return Contents(json.loads(opened.metadata()["stonefx"]), tensors)


def forged(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A copy of a file whose document was changed and whose checksum is right."""
    original = contents(path)
    document = copy.deepcopy(original.document)
    change(document)
    return write(path.with_name("forged"), Contents(document, original.tensors))


def part(document: dict[str, Any]) -> dict[str, Any]:
    """The one optimized part of a whole model."""
    found: dict[str, Any] = document["parts"][""]
    return found


def calls(document: dict[str, Any]) -> list[Any]:
    """The calls of its graph."""
    found: list[Any] = part(document)["graph"]["calls"]
    return found
