"""`stonefx.load`."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..optimized import OptimizedModule, PartlyOptimizedModule, optimized_module, owner
from ..report import Report
from . import schema
from .classes import Classes
from .file import read
from .parts import part_of, report_of
from .tensors import Entry, fill, restored, table_of

_KEYS = "version torch model whole training tensors report parts".split()


@dataclass(frozen=True)
class _Saved:
    """A file whose outermost parts were looked at."""

    path: Any
    model: str
    whole: bool
    training: frozenset[str]
    table: list[Entry]
    tensors: dict[str, torch.Tensor]
    report: Report
    parts: dict[str, Any]


def load(
    path: str | os.PathLike[str],
    model: nn.Module | None = None,
    *,
    classes: Iterable[Any] = (),
    operators: Iterable[str] = (),
) -> nn.Module:
    """Read a model that `stonefx.save` wrote; it is called, moved and trained as the saved one.

    A file is data: loading runs nothing that it says and imports nothing that it names. The graph may call operators
    out of a list, all of which compute with tensors and numbers. What a foreign model can do when it is called is take
    time and memory, write to the tensors that it is called with, and meet the faults of torch's own kernels, not all of
    which check all of their arguments: call it in a process that you can lose, as any data of a stranger's. Among
    arguments and results a file may name containers of Python and torch; named tuples, dataclasses and results of
    transformers whose modules are imported already, as long as they have no code that runs when one is made; and the
    classes that are passed here.

    Args:
        path: the file.
        model: only for a model that was optimized submodule by submodule, whose own forward is Python code: a model
            made by that code. It is copied, and its weights are replaced by the saved ones.
        classes: further classes and functions that arguments and results may hold. Their code runs as the model
            makes them.
        operators: namespaces of further operators that the graph may call, such as "torchvision"; the library that
            brings them must be imported.

    Returns:
        A module that takes the arguments of the original and has its parameter names and `.report`. Other attributes
        of the original, such as a configuration, are not part of it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, was not written by `save`, has an unknown version, or needs a class, an
            operator or a device that is not there or was not named; the message says which.
        TypeError: `model` is missing, is not needed, or is not the model that was saved.

    >>> load("/nowhere/model.safetensors")
    Traceback (most recent call last):
    ...
    FileNotFoundError: there is no file /nowhere/model.safetensors; expected one that stonefx.save wrote
    """
    known, trusted = Classes(classes), frozenset([operators] if isinstance(operators, str) else operators)
    contents = read(path)
    with _damage_named(path):
        saved = _saved(path, contents.document, contents.tensors)
    if saved.whole and model is not None:
        raise TypeError(f"{path} holds a whole {saved.model}; leave out the model: stonefx.load(path)")
    if not saved.whole and model is None:
        raise TypeError(
            f"{path} holds optimized submodules of a {saved.model}, whose own forward is Python code and not "
            f"in the file; pass a {saved.model} made by that code: stonefx.load(path, model)"
        )

    def part(name: str, source: nn.Module) -> OptimizedModule:
        with _damage_named(path):
            fill(source, saved.table, saved.tensors, name)
            return part_of(saved.parts[name], source, known, trusted)

    if model is None:
        # The class is there for its name, which the optimized module shows.
        return part("", type(saved.model, (nn.Module,), {})())
    return _into(model, saved, part)


def _saved(path: Any, document: Any, tensors: Mapping[str, torch.Tensor]) -> _Saved:
    record = schema.record(document, "the document", _KEYS)
    whole, parts = schema.flag(record["whole"], "whole"), record["parts"]
    if type(parts) is not dict or (whole and parts.keys() != {""}) or (not whole and "" in parts):
        raise schema.expected("the optimized parts by name", parts, "the parts")
    table = table_of(record["tensors"])
    return _Saved(
        path,
        schema.identifier(record["model"], "the class of the model"),
        whole,
        frozenset(schema.names(record["training"], "the modules in training")),
        table,
        restored(table, tensors),
        report_of(record["report"]),
        parts,
    )


@contextlib.contextmanager
def _damage_named(path: Any) -> Iterator[None]:
    """Whatever a document that `save` did not write leads to, as one error that says so."""
    try:
        yield
    except schema.Malformed as error:
        raise ValueError(f"{path} is damaged or no file that stonefx.save wrote: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:
        # What is not looked for above, such as generated code that Python refuses.
        raise ValueError(
            f"{path} is damaged or no file that stonefx.save wrote: {type(error).__name__}: {error}"
        ) from error


def _into(
    model: nn.Module, saved: _Saved, part: Callable[[str, nn.Module], OptimizedModule]
) -> PartlyOptimizedModule:
    path = saved.path
    if type(model).__name__ != saved.model:
        raise TypeError(
            f"{path} holds submodules of a {saved.model}, got a {type(model).__name__} to put them in"
        )
    source = copy.deepcopy(model)
    for name in saved.parts:
        part(name, _emptied(_submodule(source, name, path)))
    inside = tuple(f"{name}." for name in saved.parts)
    wanted = {name for name, _ in _tensors(source) if not name.startswith(inside)}
    names = [entry.name for entry in saved.table if not entry.name.startswith(inside)]
    if wanted != {*names}:
        raise TypeError(
            f"the given {saved.model} is not the one in {path}: only the file has "
            f"{sorted({*names} - wanted) or 'nothing'}, only the model has {sorted(wanted - {*names}) or 'nothing'}; "
            "make it with the arguments of the saved one"
        )
    for name in names:
        place, leaf = owner(source, name)
        if place[leaf].shape != saved.tensors[name].shape:
            raise TypeError(
                f"{name!r} of the given {saved.model} has shape {list(place[leaf].shape)}, and in {path} "
                f"{list(saved.tensors[name].shape)}; make the model with the arguments of the saved one"
            )
        place[leaf] = saved.tensors[name]
    for name, module in source.named_modules():
        if optimized_module(module) is None and not name.startswith(inside):
            module.training = name in saved.training
    return PartlyOptimizedModule(source, saved.report)


def _submodule(model: nn.Module, name: str, path: Any) -> nn.Module:
    found = dict(model.named_modules(remove_duplicate=False)).get(name)
    if found is None:
        raise TypeError(
            f"the given {type(model).__name__} has no submodule {name!r}, which {path} holds; make it with the "
            "arguments of the saved one"
        )
    return found


def _emptied(model: nn.Module) -> nn.Module:
    """A module whose weights were taken away."""
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name in [name for name, tensor in table.items() if tensor is not None]:
                del table[name]
    return model


def _tensors(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
