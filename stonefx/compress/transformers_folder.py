"""A compressed model of transformers as a folder that transformers loads without this package."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..files import folder_atomically
from . import describing
from .saving import plain
from .stored import FILE, save


def save_transformers(model: nn.Module, folder: str | os.PathLike[str], tokenizer: Any = None) -> Path:
    """Write a compressed model of transformers as a folder for `from_pretrained(folder, trust_remote_code=True)`.

    The folder holds the weights as safetensors, the configuration with a description of each layer that was replaced,
    and one file of code that needs torch and transformers alone (and torchao, where layers are int8). It appears at
    once or not at all.

    Args:
        model: what `compress` returned for a model of transformers.
        folder: new or empty.
        tokenizer: is saved in it too.

    Returns:
        The folder.

    Raises:
        TypeError: the model is none of transformers, is defined outside of it, or has a layer without a description.
        FileExistsError: the folder holds files.
        FileNotFoundError: the folder above does not exist.
    """
    target = Path(folder)
    if not from_transformers(model):
        base = type(model)
        raise TypeError(
            f"save_transformers: expected a model whose class is part of transformers, got a {base.__name__} of "
            f"{base.__module__}; use torch.save(stonefx.compress.plain(model), path)"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty; name a new folder")
    stored = plain(model)
    described = description(stored)
    with folder_atomically(target) as temporary:
        save_into(stored, temporary, described)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
    return target


def from_transformers(model: nn.Module) -> bool:
    """Whether `from_pretrained` knows the class of a model."""
    return type(model).__module__.startswith("transformers.models.") and hasattr(model, "config")


def description(stored: nn.Module) -> describing.Described:
    """The layers that a model of transformers has in the places of those that its configuration makes.

    Raises:
        TypeError: one of them has no description.
    """
    base: Any = type(stored)
    with torch.device("meta"):
        original = base(copy.deepcopy(stored.config))
    return describing.described(original, stored)


def save_into(stored: nn.Module, folder: Path, described: describing.Described) -> dict[str, str]:
    """Write all files of a model with the layers of torch alone; returns the names that tied tensors stand under."""
    name = f"Compressed{type(stored).__name__}"
    # The configurations; tensors are written one at a time.
    stored.save_pretrained(folder, state_dict={})  # type: ignore[operator]
    tied = save(stored, folder / FILE)
    configuration = folder / "config.json"
    document = json.loads(configuration.read_text(encoding="utf-8"))
    document["architectures"] = [name]
    document["auto_map"] = dict.fromkeys(_auto_classes(stored), f"{describing.FILE}.{name}")
    document["compression"] = described.layers
    configuration.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    (folder / f"{describing.FILE}.py").write_text(
        describing.code(described, _class(type(stored), name)), encoding="utf-8"
    )
    return tied


def _auto_classes(model: nn.Module) -> list[str]:
    from transformers.models.auto import modeling_auto

    found = []
    for name in dir(modeling_auto):
        mapping = getattr(getattr(modeling_auto, name), "_model_mapping", None)
        if not name.startswith("AutoModel") or mapping is None:
            continue
        classes = mapping.get(type(model.config), ())
        if type(model) in (classes if isinstance(classes, (tuple, list)) else (classes,)):
            found.append(name)
    return found or ["AutoModel"]


def _class(base: type, name: str) -> str:
    return (
        f"from {base.__module__} import {base.__name__}  # noqa: E402\n\n\n"
        f"class {name}({base.__name__}):\n"
        "    def __init__(self, config, *args, **kwargs):\n"
        "        super().__init__(config, *args, **kwargs)\n"
        "        put(self, config.compression)\n\n"
        "    def _tie_or_clone_weights(self, output_embeddings, input_embeddings):\n"
        "        # One module in two places is tied as it is.\n"
        "        if output_embeddings is not input_embeddings:\n"
        "            super()._tie_or_clone_weights(output_embeddings, input_embeddings)"
    )
