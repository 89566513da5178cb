"""What comes out in a folder: its weights, tensor by tensor, and a description of the layers that were replaced.

A model of transformers is written as one that `from_pretrained` reads; of any other model the folder holds
`modeling_compressed.py`, whose `load` puts the layers and their weights into what the model's own code makes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from . import describing, streaming, tensorfile
from .saving import plain
from .stored import FILE, save
from .transformers_folder import description, from_transformers, save_into

FACTS = "compression.json"


def check(folder: str | os.PathLike[str], *given: Any) -> None:
    """Say before the work begins that a folder cannot be written to.

    Args:
        folder: where the result is to go.
        given: files or folders that the weights are read from.

    Raises:
        ValueError: it is one of these, or holds weights that are none of ours.
    """
    target = Path(folder)
    if target.exists() and not target.is_dir():
        raise ValueError(f"output_folder: expected a folder, {str(target)!r} is a file")
    for path in given:
        if isinstance(path, (str, os.PathLike)):
            source = Path(path)
            if target.resolve() in (source.resolve(), source.resolve().parent if source.is_file() else None):
                raise ValueError(
                    f"output_folder: expected another folder than that of the weights, {str(path)!r}, which the result "
                    "would overwrite"
                )
    if any(target.glob("*.safetensors")) and not (target / FACTS).is_file():
        raise ValueError(
            f"output_folder: {str(target)!r} holds weights of something else; expected a new folder, or one that an "
            f"earlier call wrote, with {FACTS} in it"
        )


def write(
    original: nn.Module, model: nn.Module, folder: str | os.PathLike[str], facts: Mapping[str, Any]
) -> str | None:
    """Write a compressed model layer by layer to a folder; one that is read from files is read from there from now on.

    Args:
        original: what was compressed.
        model: what came out.
        folder: made if it is not there.
        facts: written to `compression.json` in it.

    Returns:
        Why the folder holds the weights alone, and nothing that makes the layers for them; None where it does.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    note: str | None = None
    try:
        stored = plain(model)
        described = (
            description(stored) if from_transformers(original) else describing.described(original, stored)
        )
    except TypeError as error:
        # The work of hours is not lost for it.
        stored, described, note = model, describing.Described({}, []), str(error)
    if note is None and from_transformers(original):
        tied = save_into(stored, place, described)
    else:
        if note is None:
            (place / f"{describing.FILE}.py").write_text(describing.code(described), encoding="utf-8")
        tied = save(stored, place / FILE)
    document = {**facts, "tied": tied, "layers": described.layers}
    (place / FACTS).write_text(json.dumps(document, indent=1), encoding="utf-8")
    _read_from(model, tensorfile.Reader(place / FILE), tied)
    if note is None:
        return None
    return f"{str(place)!r} holds the weights of what came out, and nothing that makes the layers for them: {note}"


def _read_from(model: nn.Module, reader: tensorfile.Reader, tied: Mapping[str, str]) -> None:
    """Weights that are in the new file are read from it from now on, where they were read from files before."""
    old = streaming.weights_of(model)
    if old is None:
        return
    weights = streaming.Weights(old.cache)
    # Factors have other names there than in the model, and stay where they were made.
    weights.scratch, weights.made_of = old.scratch, old.made_of
    weights.places.update({k: v for k, v in old.places.items() if k.startswith(streaming.MADE)})
    weights.add(reader)
    heads = {name: reader.shape(name) for name in reader.names()}
    names: dict[str, str] = {}
    for name, value in model.named_parameters(remove_duplicate=False):
        there = tied.get(name, name)
        if heads.get(there) == (value.shape, value.dtype):
            names[name] = there
    streaming.stand_in(model, weights, names)
