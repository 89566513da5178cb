"""What `-o` writes, read back at once: a transformers folder, a stonefx file, a program, a model of torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stonefx.compress import plain, save_transformers
from stonefx.files import replaced_atomically
from stonefx.optimize import call_arguments, optimize
from stonefx.optimized import OptimizedModule
from stonefx.saving import load, save


def write_optimized(fast: nn.Module, path: Path, example: Any, original: nn.Module) -> None:
    """Write what `optimize` returned, read it back and call it.

    Args:
        fast: the module.
        path: a name that ends in `.safetensors` is a file for `stonefx.load`, in `.pt2` one for `torch.export.load`.
        example: arguments of one call: a tuple or a dictionary.
        original: the model as it was, whose code runs around the parts where it was optimized part by part.

    Raises:
        TypeError: the model has no notation in such a file.
        ValueError: torch.export cannot take it, or what was written does not run.
    """
    args, kwargs = call_arguments(example)
    if path.suffix == ".pt2":
        try:
            program = torch.export.export(fast, args, kwargs)
        except Exception as error:  # of many kinds; the first line says which
            first = str(error).strip().splitlines()[:1]
            raise ValueError(
                f"torch.export does not take the model: {''.join(first)}; -o NAME.safetensors needs no export"
            ) from error
        with replaced_atomically(path) as temporary, temporary.open("wb") as file:
            torch.export.save(program, file)
        reloaded: nn.Module = torch.export.load(path).module()
    else:
        whole = isinstance(fast, OptimizedModule)
        reloaded = load(save(fast, path)) if whole else load(save(fast, path), original)
    with torch.no_grad():
        reloaded(*args, **kwargs)


def write_model(
    model: nn.Module, path: Path, example: Any, *, as_plain: bool, tokenizer: Any = None
) -> nn.Module:
    """Write a compressed model and return it as it reads back.

    Args:
        model: what `compress` returned.
        path: a name that ends in `.safetensors` is a file for `stonefx.load`; another with an ending is a file for
            `torch.load`; one without is a folder of transformers.
        example: arguments of one call, which a stonefx file needs: a tuple or a dictionary.
        as_plain: a file for `torch.load` holds layers of torch alone.
        tokenizer: is saved in a folder too.

    Raises:
        TypeError: the model cannot be written in this way.
        OSError: the folder is not there, or is not empty.
    """
    if path.suffix == ".safetensors":
        return load(save(optimize(model, example), path))
    if path.suffix:
        with replaced_atomically(path) as temporary:
            torch.save(plain(model) if as_plain else model, temporary)
        # The file was written a moment ago, by this process.
        return torch.load(path, weights_only=False)
    import transformers

    folder = save_transformers(model, path, tokenizer)
    name = next(iter(json.loads((folder / "config.json").read_text(encoding="utf-8"))["auto_map"]))
    return getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval()
