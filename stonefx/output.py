"""What `stonefx compress -o` writes, read back at once: a folder of transformers, a stonefx file, a model of torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .compress import plain, save_transformers
from .optimize import optimize
from .report import replaced_atomically
from .saving import load, save


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

    folder = save_transformers(model, path)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    name = next(iter(json.loads((folder / "config.json").read_text())["auto_map"]))
    return getattr(transformers, name).from_pretrained(folder, trust_remote_code=True).eval()
