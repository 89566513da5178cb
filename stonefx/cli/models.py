"""What MODEL means on the command line: a function, a model of transformers on disk, or a saved stonefx file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stonefx.cli.inputs import Examples
from stonefx.cli.objects import FORMS, call, load_object

_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass
class Found:
    """A model, and what came with it.

    Attributes:
        model: the model.
        examples: inputs of an example call, where they are known.
        tokenizer: of transformers, where there is one.
        saved: the model is what `stonefx.save` wrote, and optimized already.
    """

    model: nn.Module
    examples: Examples | None = None
    tokenizer: Any = None
    saved: bool = False


def find_model(name: str) -> Found:
    """The model that a name stands for.

    Args:
        name: `pkg.module:factory`, `path/to/file.py:factory`, a folder of transformers, the id of a model of
            transformers that is on this disk, or a file of `stonefx.save`.

    Raises:
        ValueError: it is none of these, or does not load; the message says what was expected.

    >>> find_model("torch.nn:Identity").model
    Identity()
    """
    path = Path(name)
    if path.is_dir():
        return _of_transformers(path)
    if path.is_file() and path.suffix == ".safetensors":
        return _saved(path)
    if path.is_file() and ":" not in name:
        raise ValueError(f"{name} is a file, but none that stonefx.save wrote: {_instead(path)}")
    if ":" in name:
        model, examples = _made(name)
        return Found(model, examples)
    if path.suffix == ".safetensors":
        raise ValueError(f"there is no file {name}")
    if _HUB.fullmatch(name) and (folder := _on_disk(name)) is not None:
        return _of_transformers(folder)
    raise ValueError(
        f"expected {FORMS}, a folder or id of transformers that is on this disk, or a file that stonefx.save wrote; "
        f"got {name!r}, which is none of them"
    )


def _made(name: str) -> tuple[nn.Module, Examples | None]:
    found = load_object(name)
    made = found if isinstance(found, nn.Module) else call(name, found)
    model, examples = made, None
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], tuple | dict):
        model, examples = made
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{name} gave a {type(model).__name__}, expected an nn.Module, or a pair of one and its example inputs"
        )
    return model, examples


def _saved(path: Path) -> Found:
    import stonefx

    try:
        return Found(stonefx.load(path), saved=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not load: {error}") from error


def _instead(path: Path) -> str:
    if path.suffix == ".py":
        return f"name the function in it too, such as {path}:build"
    return f"write a function that loads it, and name that: {FORMS}"


def _on_disk(name: str) -> Path | None:
    """The folder where the cache of transformers holds a model; nothing is downloaded."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        return None
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception:  # of many kinds, all of which mean that it is not there
        return None


def _of_transformers(folder: Path) -> Found:
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has no config.json; expected a folder that save_pretrained wrote")
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            f"{folder} is a folder of transformers, which cannot be imported: {error}; pip install transformers"
        ) from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        made = getattr(transformers, next(iter(config.architectures or []), ""), transformers.AutoModel)
        model = made.from_pretrained(folder).eval()
    except Exception as error:
        raise ValueError(f"transformers cannot read {folder}: {error}") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception:  # what is raised where a folder has none differs by the kind of tokenizer
        tokenizer = None
    examples: Examples | None = None
    if getattr(model, "main_input_name", "") == "input_ids" and not config.is_encoder_decoder:
        vocabulary = min(config.get_text_config().vocab_size, 1000)
        generator = torch.Generator().manual_seed(0)
        examples = {"input_ids": torch.randint(0, vocabulary, (2, 16), generator=generator)}
    return Found(model, examples, tokenizer)
