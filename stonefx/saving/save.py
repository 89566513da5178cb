"""`stonefx.save`."""

from __future__ import annotations

import os
from dataclasses import astuple
from pathlib import Path

from torch import nn

from ..optimized import LazyModule, OptimizedModule, PartlyOptimizedModule, has_hooks
from .file import Contents, write
from .parts import part_document, part_graph
from .tensors import entries, stored


def save(fast: nn.Module, path: str | os.PathLike[str]) -> Path:
    """Write an optimized model to one file, which `stonefx.load` reads in another process.

    The file is a safetensors file: the weights under the names of the `state_dict`, the rewritten graph as a
    `torch.export` archive, and how it is called. It appears at once or not at all. Of a model that was optimized
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
    document = {
        "model": type(fast).__name__,
        "whole": isinstance(fast, OptimizedModule),
        "training": [name for name, module in fast.named_modules() if module.training],
        "tensors": [astuple(entry) for entry in table],
        "report": fast.report.to_json(),
        "parts": {name: part_document(part) for name, part in parts.items()},
    }
    archives = {name: part_graph(part) for name, part in parts.items()}
    return write(path, Contents(document, stored(fast, table), archives))


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
    hooked = [name or "the model" for name, module in fast.named_modules() if has_hooks(module)]
    if hooked:
        raise TypeError(
            f"hooks cannot be saved, and {', '.join(hooked)} has some; remove them and add them after loading"
        )
    if fast._stone_follows_weights:
        raise TypeError(
            "this model keeps its original weights (release=False), and a file holds folded ones; save it as the "
            "original, with torch.save or save_pretrained, or save the result of stonefx.optimize(model, ...)"
        )
    if isinstance(fast, OptimizedModule):
        return {"": fast}
    return {name: module for name, module in fast.named_modules() if isinstance(module, OptimizedModule)}
