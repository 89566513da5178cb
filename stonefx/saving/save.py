"""`stonefx.save`."""

from __future__ import annotations

import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

from torch import nn

from ..optimized import (
    LazyModule,
    OptimizedModule,
    PartlyOptimizedModule,
    has_hooks,
    optimized_module,
    program_of,
)
from .file import Contents, write
from .parts import part_document
from .tensors import entries, stored


def save(fast: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write an optimized model to one file, which `stonefx.load` reads in another process.

    The file is a safetensors file: the weights under the names of the `state_dict`, the rewritten graph as data, how
    it is called, and a checksum of all. It appears at once or not at all. Of a model that was optimized
    submodule by submodule it holds the submodules, and loading needs the model's code.

    Args:
        fast: what `stonefx.optimize` returned.
        path: the file; its folder must exist. An existing file is replaced.

    Returns:
        The path.

    Raises:
        TypeError: `fast` is no optimized model, has not been called yet (where `optimize` was given no example
            inputs), has hooks, or its graph, weights or arguments have no notation in the file.
        FileNotFoundError: the folder does not exist.

    >>> import tempfile, torch, stonefx
    >>> model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)).eval()
    >>> file = save(stonefx.optimize(model, torch.ones(2, 8)), tempfile.mkdtemp() + "/model.safetensors")
    >>> stonefx.load(file)(torch.ones(5, 8)).shape
    torch.Size([5, 8])
    """
    parts = _parts(fast)
    table = entries(fast)
    report: Any = fast.report
    document = {
        "model": type(fast).__name__,
        "whole": isinstance(fast, OptimizedModule),
        "training": [name for name, module in fast.named_modules() if module.training],
        "tensors": [astuple(entry) for entry in table],
        "report": report.to_json(),
        "parts": {name: part_document(part) for name, part in parts.items()},
    }
    return write(path, Contents(document, stored(fast, table)))


def _parts(fast: nn.Module) -> dict[str, OptimizedModule]:
    """The optimized modules by their place: the model itself, or those of its submodules that were captured."""
    if isinstance(fast, LazyModule):
        raise TypeError(
            "this model is optimized at its first call and has not been called yet; call it once, or give "
            "stonefx.optimize example inputs, and then save it"
        )
    if not isinstance(fast, OptimizedModule | PartlyOptimizedModule):
        raise TypeError(
            f"save expects a model that stonefx.optimize returned, got {type(fast).__name__}; for other models use "
            "torch.save(model.state_dict(), path)"
        )
    if any(isinstance(module, PartlyOptimizedModule) and module.is_compiled for module in fast.modules()):
        raise TypeError(
            "this model is compiled between the breaks of its forward, where torch.compile finds its graphs anew in "
            "each process, so that there is no graph to save; save the state_dict of the original, and call "
            "stonefx.optimize on it after loading"
        )
    hooked = [name or "the model" for name, module in fast.named_modules() if has_hooks(module)]
    if hooked:
        raise TypeError(
            f"hooks cannot be saved, and {', '.join(hooked)} has some; remove them and add them after loading"
        )
    parts = {name: part for name, module in fast.named_modules() if (part := optimized_module(module))}
    if not all(program_of(part).release for part in parts.values()):
        raise TypeError(
            "this model keeps its original weights (release=False), and a file holds folded ones; save it as the "
            "original, with torch.save or save_pretrained, or save the result of stonefx.optimize(model, ...)"
        )
    return {"": fast} if isinstance(fast, OptimizedModule) else parts
