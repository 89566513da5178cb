"""The file of a saved model: a safetensors file whose header holds a document, and a checksum of the whole."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..files import replaced_atomically
from . import schema

VERSION = 3
_DOCUMENT, _CHECKSUM = "stonefx", "stonefx.sha256"
_UNKNOWN = "0" * 64
# Inside of the document, which is a string, its quotes would stand behind backslashes.
_FIELD = re.compile(rb'"stonefx\.sha256":"([^"\\]{64})"')
_LARGEST_HEADER = 100_000_000  # of safetensors


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        document: the description, in JSON's types.
        tensors: the weights by name.
    """

    document: dict[str, Any]
    tensors: dict[str, torch.Tensor]


def write(path: str | os.PathLike[str], contents: Contents) -> Path:
    """Write a file under a temporary name and rename it into place.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: safetensors has no notation for a dtype, or the description is too long.
    """
    document = contents.document | {"version": VERSION, "torch": str(torch.__version__)}
    text = json.dumps(document, allow_nan=False)
    header = {"format": "pt", _DOCUMENT: text, _CHECKSUM: _UNKNOWN}
    with replaced_atomically(path) as temporary:
        try:
            save_file(contents.tensors, temporary, header)
            _stamp(temporary)
        except (KeyError, SafetensorError, schema.Malformed) as error:
            raise TypeError(f"safetensors cannot hold this model: {error}") from error
    return Path(path)


def read(path: str | os.PathLike[str]) -> Contents:
    """Read a file that `write` made.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no saved model, is damaged, or has a version that is not known here.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}; expected one that stonefx.save wrote")
    try:
        return _read(path)
    except schema.Malformed as error:
        raise ValueError(f"{path} is damaged or no file that stonefx.save wrote: {error}") from error


def _read(path: Any) -> Contents:
    with open(path, "rb") as file:
        place = _place(file)
        if place is not None:
            stated, found = _stated(file, place), _checksum(file, place)
            if stated != found.encode():
                raise schema.Malformed("its checksum is not that of its contents; save the model again")
    try:
        with safe_open(path, framework="pt") as opened:
            document = _document(path, opened.metadata() or {}, place is not None)
            # A copy has memory of its own, aligned as torch's kernels like it.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except ValueError:
        raise
    except Exception as error:  # of safetensors, or of torch for a dtype that it does not have
        raise schema.Malformed(str(error)) from error
    return Contents(document, tensors)


def _document(path: Any, header: Mapping[str, str], checked: bool) -> dict[str, Any]:
    if _DOCUMENT not in header:
        raise ValueError(
            f"{path} is a safetensors file that stonefx.save did not write: it holds weights and no graph; read it "
            "with safetensors.torch.load_file"
        )
    document = schema.parse(header[_DOCUMENT])
    version = document.get("version") if isinstance(document, dict) else None
    if version != VERSION and type(version) is int:
        raise ValueError(
            f"{path} has version {version} of the file format, expected {VERSION}"
            + (", and its graph is in a form that could run code when it is read" if version == 1 else "")
            + "; optimize the original and save it again with this stonefx, or load it with the stonefx that wrote it"
        )
    if version != VERSION or not checked:
        raise schema.Malformed("it has no version, or no checksum")
    assert isinstance(document, dict)
    return document


def _place(file: BinaryIO) -> int | None:
    """Where in a file the checksum stands; None where it has none."""
    length = int.from_bytes(file.read(8), "little")
    header = file.read(min(length, _LARGEST_HEADER + 1))
    if not 0 < length <= _LARGEST_HEADER or len(header) < length:
        raise schema.Malformed(f"expected a header of at most {_LARGEST_HEADER} bytes, got {length}")
    fields = [match.start(1) for match in _FIELD.finditer(header)]
    if len(fields) > 1:
        raise schema.Malformed("expected one checksum, got several")
    return 8 + fields[0] if fields else None


def _stated(file: BinaryIO, place: int) -> bytes:
    file.seek(place)
    return file.read(len(_UNKNOWN))


def _checksum(file: BinaryIO, place: int) -> str:
    """SHA-256 of a whole file, with zeros where the checksum stands."""
    total = hashlib.sha256()
    for block in _blocks(file, place):
        total.update(block)
    return total.hexdigest()


def _blocks(file: BinaryIO, place: int) -> Iterator[bytes]:
    file.seek(0)
    yield file.read(place)
    yield _UNKNOWN.encode()
    file.seek(place + len(_UNKNOWN))
    while block := file.read(1 << 20):
        yield block


def _stamp(path: Path) -> None:
    with open(path, "r+b") as file:
        place = _place(file)
        if place is None:
            raise schema.Malformed("the header holds no place for the checksum")
        total = _checksum(file, place)
        file.seek(place)
        file.write(total.encode())
