"""What the command line's arguments mean: a model factory by name, example inputs by shape."""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

_SHAPE = re.compile(r"(?P<shape>\d+(x\d+)*)(:(?P<dtype>\w+))?")


Examples = tuple[Any, ...] | dict[str, Any]


def load_model(name: str) -> tuple[nn.Module, Examples | None]:
    """Import `pkg.module:factory` and make the model; the current folder is searched too.

    Args:
        name: a module path, a colon, and a module, or a callable that returns an `nn.Module` or a pair of one and
            its example inputs: a tuple of positional arguments or a dictionary of keyword arguments.

    Returns:
        The model, and the example inputs where the factory gives them.

    Raises:
        ValueError: the name has another form, nothing is found there, or it is no `nn.Module`.

    >>> load_model("torch.nn:Identity")
    (Identity(), None)
    """
    found = load_object(name)
    made = found if isinstance(found, nn.Module) else _call(name, found)
    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], tuple | dict):
        model, examples = made
    else:
        model, examples = made, None
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{name} gave a {type(model).__name__}, expected an nn.Module, or a pair of one and its example inputs"
        )
    return model, examples


def load_object(name: str) -> Any:
    """Import what `pkg.module:attribute` names; the current folder is searched too.

    Raises:
        ValueError: the name has another form, or nothing is found there.

    >>> load_object("math:pi")
    3.141592653589793
    """
    path, colon, attribute = name.partition(":")
    if not (colon and path and attribute):
        raise ValueError(f"expected pkg.module:factory, got {name!r}; for example my_package.models:build")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = importlib.import_module(path)
    except ModuleNotFoundError as error:
        # A module that the user's own module fails to import is another mistake than a wrong name.
        if error.name is None or not (path == error.name or path.startswith(error.name + ".")):
            raise ValueError(f"{path} was found but does not import: {error}") from error
        raise ValueError(f"there is no module {path!r}, neither installed nor in {os.getcwd()}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path} has no {attribute!r}; name a function that returns it")
        found = getattr(found, part)
    return found


def load_user_model(name: str) -> tuple[nn.Module, Any]:
    """A model by `pkg.module:factory`, or out of a folder of transformers, with its tokenizer or None.

    Raises:
        ValueError: there is neither, or transformers cannot read the folder.
    """
    folder = Path(name)
    if not folder.is_dir():
        if ":" not in name:
            raise ValueError(
                f"expected pkg.module:factory or a folder of transformers, got {name!r}, which is neither"
            )
        return load_model(name)[0], None
    if not (folder / "config.json").is_file():
        raise ValueError(f"{folder} has no config.json; expected a folder that save_pretrained wrote")
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            f"{folder} is a folder of transformers, which cannot be imported: {error}"
        ) from error
    try:
        config = transformers.AutoConfig.from_pretrained(folder)
        made = getattr(transformers, next(iter(config.architectures or []), ""), transformers.AutoModel)
        model = made.from_pretrained(folder)
    except Exception as error:
        raise ValueError(f"transformers cannot read {folder}: {error}") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    except Exception:  # what is raised where a folder has none differs by the kind of tokenizer
        tokenizer = None
    return model, tokenizer


def load_user_data(name: str, tokenizer: Any, batch_size: int, most_tokens: int = 512) -> Any:
    """Data by `pkg.module:attribute`, called where it is a function; or a text file, of which each line is a sample.

    Raises:
        ValueError: nothing is there, or a text file comes without a tokenizer.
    """
    file = Path(name)
    if not file.is_file():
        if ":" not in name:
            raise ValueError(f"expected pkg.module:factory or a text file, got {name!r}, which is neither")
        found = load_object(name)
        if not callable(found) or hasattr(found, "__iter__"):
            return found
        try:
            return found()
        except TypeError as error:
            raise ValueError(f"{name} cannot be called without arguments: {error}") from error
    if tokenizer is None:
        raise ValueError(
            f"{file} is read as text, a sample a line, which needs a MODEL that is a folder of transformers with a "
            "tokenizer; for other models name a function: --data pkg.module:factory"
        )
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    longest = min(most_tokens, tokenizer.model_max_length)
    return [
        dict(
            tokenizer(
                lines[i : i + batch_size],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
        )
        for i in range(0, len(lines), batch_size)
    ]


def _call(name: str, factory: object) -> object:
    if not callable(factory):
        raise ValueError(f"{name} is of type {type(factory).__name__}, expected a function or an nn.Module")
    try:
        return factory()
    except TypeError as error:
        raise ValueError(f"{name} cannot be called without arguments: {error}") from error


def parse_input(text: str, generator: torch.Generator | None = None) -> torch.Tensor:
    """An example input from its shape: normal values, or 0 and 1 for integers, or True.

    Args:
        text: sizes joined by `x` and an optional dtype, such as `8x128` or `2x16:int64`.
        generator: of the values.

    Raises:
        ValueError: the text has another form, or torch has no such dtype.

    >>> parse_input("2x3:int64").shape
    torch.Size([2, 3])
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"expected sizes such as 8x128 or 2x16:int64, got {text!r}")
    shape = [int(size) for size in match["shape"].split("x")]
    dtype = getattr(torch, match["dtype"] or "float32", None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch has no dtype {match['dtype']!r}; try float32, float64, bfloat16 or int64")
    if dtype == torch.bool:
        return torch.ones(shape, dtype=dtype)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape, generator=generator).to(dtype)
    return torch.randint(0, 2, shape, generator=generator, dtype=dtype)


def parse_inputs(texts: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """Example inputs from their shapes, the same values in every run.

    >>> [tuple(x.shape) for x in parse_inputs(["8x128", "8"])]
    [(8, 128), (8,)]
    """
    generator = torch.Generator().manual_seed(0)
    return tuple(parse_input(text, generator) for text in texts)
