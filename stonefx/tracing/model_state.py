"""What a recording run may do to a model's attributes and buffers, found out and undone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .errors import capture_error

# The model's own tensor by `id` of the copy that a run used.
Substitutes = dict[int, torch.Tensor]

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_TABLES = ("_parameters", "_buffers", "_modules")


def is_scripted(module: nn.Module) -> bool:
    """Whether a module's code is TorchScript: made by `torch.jit.script` or `torch.jit.trace`.

    >>> is_scripted(nn.Linear(2, 2))
    False
    """
    return isinstance(module, torch.jit.ScriptModule)


@contextmanager
def unchanged_attributes(model: nn.Module) -> Iterator[Substitutes]:
    """Restore every attribute of the model's modules on leaving.

    Yields a dictionary for copies that the run used in place of buffers: `self.steps += 1` stores such a copy,
    where the model itself would have stored the buffer it had.

    Raises:
        CaptureError: a forward stored something that a captured graph would not store.
    """
    changed: list[str] = []
    with restored_attributes(model, changed) as substitutes:
        yield substitutes
    if changed:
        raise capture_error(
            f"forward stores into the model: {', '.join(sorted(changed))}",
            "A captured graph would not; return the value instead, or write to a buffer in place.",
        )


@contextmanager
def restored_attributes(model: nn.Module, changed: list[str] | None = None) -> Iterator[Substitutes]:
    """As `unchanged_attributes`, but names what had changed in `changed` instead of raising."""
    changed = [] if changed is None else changed
    # Scripted modules keep their state in C++ and have no tables here.
    before = {name: _snapshot(module) for name, module in model.named_modules() if not is_scripted(module)}
    tensors = [*model.parameters(), *model.buffers()]
    marked = [hasattr(tensor, "_dynamo_static_input_type") for tensor in tensors]
    substitutes: Substitutes = {}
    try:
        yield substitutes
    finally:
        for name, containers in before.items():
            for table, container, contents in containers:
                differences = _differences(contents, container, substitutes)
                changed += [".".join(part for part in (name, table, key) if part) for key in differences]
                if differences:
                    _restore(container, contents)
        for tensor, had_mark in zip(tensors, marked, strict=True):
            if not had_mark and hasattr(tensor, "_dynamo_static_input_type"):
                del tensor._dynamo_static_input_type


@contextmanager
def restored_buffers(model: nn.Module) -> Iterator[None]:
    """Let the model run on copies of its buffers."""
    originals = [(module, dict(module._buffers)) for module in model.modules() if not is_scripted(module)]
    try:
        copies: dict[int, torch.Tensor] = {}
        for module, buffers in originals:
            for name, buffer in buffers.items():
                if buffer is not None:
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
        yield
    finally:
        for module, buffers in originals:
            module._buffers.clear()
            module._buffers.update(buffers)


@contextmanager
def without_own_hooks(model: nn.Module) -> Iterator[None]:
    """Put the hooks of the model itself aside, not those of its submodules: a captured call stands for its forward."""
    kept = {name: model.__dict__[name] for name in _HOOKS if model.__dict__.get(name)}
    model.__dict__.update((name, type(table)()) for name, table in kept.items())
    try:
        yield
    finally:
        model.__dict__.update(kept)


def _snapshot(module: nn.Module) -> list[tuple[str, Any, Any]]:
    """Name, container and a shallow copy of it, for all that a module keeps its attributes in."""
    values = module.__dict__
    snapshot = [("", values, dict(values))]
    snapshot += [("", values[table], dict(values[table])) for table in _TABLES]
    for name, value in values.items():
        if type(value) in (list, dict, set) and name not in _TABLES:
            snapshot.append((name, value, value.copy()))
    return snapshot


def _differences(old: Any, new: Any, substitutes: Substitutes) -> list[str]:
    if isinstance(old, dict):
        names = [name for name in old if name not in new]
        for name, value in list(new.items()):
            if id(value) in substitutes:
                value = new[name] = substitutes[id(value)]
            if name not in old or not _same(old[name], value):
                names.append(name)
        return [str(name) for name in names]
    if isinstance(old, set):
        return [] if old == new else [""]
    same = len(old) == len(new) and all(a is b or _same(a, b) for a, b in zip(old, new, strict=True))
    return [] if same else [""]


def _restore(container: Any, contents: Any) -> None:
    container.clear()
    if isinstance(container, list):
        container.extend(contents)
    else:
        container.update(contents)


def _same(old: Any, new: Any) -> bool:
    if old is new:
        return True
    if isinstance(old, torch.Tensor) or isinstance(new, torch.Tensor):
        return False
    return type(old) is type(new) and isinstance(old, (bool, int, float, str)) and old == new
