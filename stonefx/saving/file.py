"""The file of a saved model: a safetensors file with the graphs as byte tensors and a document in its header."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..report import replaced_atomically

VERSION = 1
# No module can give a weight a name with an empty part.
_GRAPH = ".graph."


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Args:
        document: the description, in JSON's types.
        tensors: the weights by name.
        graphs: archives of `torch.export`, by the name of the part of the model that each is of.
    """

    document: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    graphs: dict[str, bytes]


def write(path: str | os.PathLike[str], contents: Contents) -> Path:
    """Write a file under a temporary name and rename it into place.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: safetensors has no notation for a dtype.
    """
    tensors = dict(contents.tensors)
    for part, archive in contents.graphs.items():
        tensors[_GRAPH + part] = torch.frombuffer(bytearray(archive), dtype=torch.uint8)
    document = contents.document | {"version": VERSION, "torch": str(torch.__version__)}
    document["crc32"] = {name: _checksum(tensor) for name, tensor in tensors.items()}
    header = {"format": "pt", "stonefx": json.dumps(document, allow_nan=False)}
    with replaced_atomically(path) as temporary:
        try:
            save_file(tensors, temporary, header)
        except (KeyError, SafetensorError) as error:
            raise TypeError(f"safetensors cannot hold the weights of this model: {error}") from error
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
        with safe_open(path, framework="pt") as file:
            document = _document(path, file.metadata() or {})
            # A copy has memory of its own, aligned as torch's kernels like it.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no file that stonefx.save wrote: {error}") from error
    _check_tensors(path, document["crc32"], tensors)
    graphs = {
        name.removeprefix(_GRAPH): tensors.pop(name).numpy().tobytes()
        for name in list(tensors)
        if name.startswith(_GRAPH)
    }
    return Contents(document, tensors, graphs)


def _document(path: Any, header: Mapping[str, str]) -> dict[str, Any]:
    if "stonefx" not in header:
        raise ValueError(
            f"{path} is a safetensors file that stonefx.save did not write: it holds weights and no graph; read it "
            "with safetensors.torch.load_file"
        )
    document: dict[str, Any] = json.loads(header["stonefx"])
    if document.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {document.get('version')} of the file format, expected {VERSION}; load it with the "
            "stonefx that wrote it, or optimize and save the original again with this one"
        )
    return document


def _check_tensors(path: Any, expected: Mapping[str, int], tensors: Mapping[str, torch.Tensor]) -> None:
    damaged = sorted(
        name
        for name in {*expected, *tensors}
        if name not in tensors or _checksum(tensors[name]) != expected.get(name)
    )
    if damaged:
        raise ValueError(
            f"{path} is damaged: the checksum of {', '.join(damaged)} is not the saved one; save it again"
        )


def _checksum(tensor: torch.Tensor) -> int:
    return zlib.crc32(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
