"""Recording without a trace: random state, Dynamo's settings, the model's attributes and marks on its tensors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import capture_error

_TABLES = ("_parameters", "_buffers", "_modules")


@contextmanager
def preserved_random_state(model: nn.Module) -> Iterator[None]:
    """Leave the generators of torch, NumPy and Python as they were."""
    devices = {tensor.device for tensor in [*model.parameters(), *model.buffers()]}
    cuda = sorted({device.index or 0 for device in devices if device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=cuda):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextmanager
def plain_dynamo() -> Iterator[None]:
    """Dynamo as capture needs it: static unless marked, raising, gradients on, whatever the caller has set."""
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("default"))
        stack.enter_context(
            torch._dynamo.config.patch(
                suppress_errors=False,
                automatic_dynamic_shapes=False,
                assume_static_by_default=True,
                error_on_recompile=False,
            )
        )
        # Batch 1 then needs no special case: a graph that treats it apart says so in a guard.
        stack.enter_context(torch.fx.experimental._config.patch(backed_size_oblivious=True))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        yield


@contextmanager
def unchanged_attributes(model: nn.Module) -> Iterator[None]:
    """Restore every attribute of the model's modules on leaving.

    Raises:
        CaptureError: a forward stored something that a captured graph would not store.
    """
    paths = dict(model.named_modules())
    before = {name: _attributes(module) for name, module in paths.items()}
    tensors = [*model.parameters(), *model.buffers()]
    marked = [hasattr(tensor, "_dynamo_static_input_type") for tensor in tensors]
    changed: list[str] = []
    try:
        yield
    finally:
        for name, module in paths.items():
            for table, values in before[name].items():
                current = module.__dict__[table] if table else module.__dict__
                if differences := _differences(values, current):
                    changed += [f"{name}.{key}".strip(".") for key in differences]
                    current.clear()
                    current.update(values)
        for tensor, had_mark in zip(tensors, marked, strict=True):
            if not had_mark and hasattr(tensor, "_dynamo_static_input_type"):
                del tensor._dynamo_static_input_type
    if changed:
        raise capture_error(
            f"forward stores into the model: {', '.join(sorted(changed))}",
            "A captured graph would not; return the value instead, or write to a buffer in place.",
        )


@contextmanager
def restored_buffers(model: nn.Module) -> Iterator[None]:
    """Let the model run on copies of its buffers."""
    originals = [(module, dict(module._buffers)) for module in model.modules()]
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


def _attributes(module: nn.Module) -> dict[str, dict[str, Any]]:
    tables = {table: dict(module.__dict__[table]) for table in _TABLES}
    return {"": dict(module.__dict__), **tables}


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    names = [name for name in old if name not in new]
    for name, value in new.items():
        if name not in old or not _same(old[name], value):
            names.append(name)
    return names


def _same(old: Any, new: Any) -> bool:
    if old is new:
        return True
    if isinstance(old, torch.Tensor) or isinstance(new, torch.Tensor):
        return False
    return type(old) is type(new) and isinstance(old, (bool, int, float, str)) and old == new
