"""`stonefx.load`."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..optimized import OptimizedModule, PartlyOptimizedModule, as_part, optimized_module, owner
from ..report import Report
from .file import Contents, read
from .parts import part_of
from .tensors import Entry, fill, restored


def load(path: str | os.PathLike[str], model: nn.Module | None = None) -> nn.Module:
    """Read a model that `stonefx.save` wrote; it is called, moved and trained as the saved one.

    Load only files that you trust: the graph is read by `torch.export`, and classes that the file names are imported.

    Args:
        path: the file.
        model: only for a model that was optimized submodule by submodule, whose own forward is Python code: a model
            made by that code. It is copied, and its weights are replaced by the saved ones.

    Returns:
        A module that takes the arguments of the original and has its parameter names and `.report`. Other attributes
        of the original, such as a configuration, are not part of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, was not written by `save`, has an unknown version, or its graph cannot be read
            by this torch.
        TypeError: `model` is missing, is not needed, or is not the model that was saved.
        ImportError: a class among the arguments or in the result cannot be imported here.
        RuntimeError: the weights were on a device that is not there.

    >>> load("/nowhere/model.safetensors")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no file /nowhere/model.safetensors; expected one that stonefx.save wrote
    """
    contents = read(path)
    document = contents.document
    table = [Entry(*row[:-1], tuple(row[-1])) for row in document["tensors"]]  # type: ignore[call-arg]
    tensors = restored(table, contents.tensors)
    if document["whole"]:
        if model is not None:
            raise TypeError(
                f"{path} holds a whole {document['model']}; leave out the model: stonefx.load(path)"
            )
        return _part("", document["model"], contents, table, tensors)
    if model is None:
        raise TypeError(
            f"{path} holds optimized submodules of a {document['model']}, whose own forward is Python code and not "
            f"in the file; pass a {document['model']} made by that code: stonefx.load(path, model)"
        )
    return _into(model, path, contents, table, tensors)


def _part(
    name: str, kind: str, contents: Contents, table: Sequence[Entry], tensors: Mapping[str, torch.Tensor]
) -> OptimizedModule:
    # The class is there for its name, which the optimized module shows.
    source = fill(type(kind, (nn.Module,), {})(), table, tensors, name)
    return part_of(contents.document["parts"][name], contents.graphs[name], source)


def _into(
    model: nn.Module,
    path: Any,
    contents: Contents,
    table: Sequence[Entry],
    tensors: Mapping[str, torch.Tensor],
) -> PartlyOptimizedModule:
    document = contents.document
    if type(model).__name__ != document["model"]:
        raise TypeError(
            f"{path} holds submodules of a {document['model']}, got a {type(model).__name__} to put them in"
        )
    source = copy.deepcopy(model)
    for name in document["parts"]:
        original = _submodule(source, name, path)
        part = _part(name, type(original).__name__, contents, table, tensors)
        source.set_submodule(name, as_part(part, original))
    inside = tuple(f"{name}." for name in document["parts"])
    wanted = {name for name, _ in _tensors(source) if not name.startswith(inside)}
    saved = [entry.name for entry in table if not entry.name.startswith(inside)]
    if wanted != {*saved}:
        raise TypeError(
            f"the given {document['model']} is not the one in {path}: only the file has "
            f"{sorted({*saved} - wanted) or 'nothing'}, only the model has {sorted(wanted - {*saved}) or 'nothing'}; "
            "make it with the arguments of the saved one"
        )
    for name in saved:
        place, leaf = owner(source, name)
        if place[leaf].shape != tensors[name].shape:
            raise TypeError(
                f"{name!r} of the given {document['model']} has shape {list(place[leaf].shape)}, and in {path} "
                f"{list(tensors[name].shape)}; make the model with the arguments of the saved one"
            )
        place[leaf] = tensors[name]
    for name, module in source.named_modules():
        if optimized_module(module) is None and not name.startswith(inside):
            module.training = name in document["training"]
    return PartlyOptimizedModule(source, Report.from_json(document["report"]))


def _submodule(model: nn.Module, name: str, path: Any) -> nn.Module:
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        raise TypeError(
            f"the given {type(model).__name__} has no submodule {name!r}, which {path} holds; make it with the "
            "arguments of the saved one"
        ) from error


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
