"""A copy of a model to own."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from .arguments import Path, walk
from .errors import CaptureError, capture_error


def owned(model: nn.Module) -> nn.Module:
    """A copy of a model, with plain tensors in the place of those that were made under inference mode.

    Raises:
        CaptureError: the model cannot be copied; the message names the tensor, if it is one that cannot.
    """
    with torch.inference_mode(False):
        try:
            return copy.deepcopy(model)
        except Exception as error:
            raise _uncopied(model, error) from error


def _uncopied(model: nn.Module, error: Exception) -> CaptureError:
    for name, tensor in _tensors(model):
        try:
            copy.deepcopy(tensor)
        except Exception as reason:
            return capture_error(
                f"`{name}` of {type(model).__name__} is a {type(tensor).__name__}, which cannot be copied",
                "Give its class a __deepcopy__, or detach a tensor that has a history.",
                cause=reason,
            )
    return capture_error(
        f"{type(model).__name__} cannot be copied",
        "Let copy.deepcopy(model) work, or remove what it cannot copy while stonefx.optimize runs.",
        cause=error,
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The tensors of a model by name, those in its attributes and their containers included."""
    yield from model.named_parameters()
    yield from model.named_buffers()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if not name.startswith("_"):
                for place, item in walk(value, Path(f"{path}.{name}" if path else name)):
                    if isinstance(item, torch.Tensor):
                        yield str(place), item
