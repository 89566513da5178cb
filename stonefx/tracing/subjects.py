"""What no capture can look into, told before one is tried; and what a model itself raises on a call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from .arguments import Path, walk
from .errors import ModelError, capture_error, exception_location
from .isolation import preserved_random_state
from .model_state import is_scripted, restored_attributes, restored_buffers
from .recorder import copied


def check_subject(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse a model or an example call that has nothing to capture or to verify with.

    Raises:
        CaptureError: a scripted or traced module, a forward without a signature, or tensors on the meta device; the
            message says what to do.
    """
    name = type(model).__name__
    if is_scripted(model):
        raise capture_error(
            f"{getattr(model, 'original_name', name)} is a scripted or traced module, whose code is TorchScript",
            "Optimize the nn.Module that it was made from, before torch.jit.script or torch.jit.trace.",
        )
    try:
        inspect.signature(model.forward)
    except (TypeError, ValueError):
        raise capture_error(
            f"the forward of {name} is {model.forward!r}, whose parameters Python does not know",
            "Wrap it in a function with named parameters, such as lambda x: ...",
        ) from None
    state = [*model.named_parameters(), *model.named_buffers()]
    on_meta = [f"the weight `{path}`" for path, tensor in state if tensor.is_meta]
    on_meta += [
        f"the example input `{path}`"
        for path, value in walk((args, dict(kwargs)), Path("inputs"))
        if isinstance(value, torch.Tensor) and value.is_meta
    ]
    if on_meta:
        others = f" and {len(on_meta) - 1} more" if len(on_meta) > 1 else ""
        raise capture_error(
            f"{on_meta[0]}{others} of {name} is on the meta device and has no values to fold or to verify with",
            "Give it values first: model.to_empty(device='cpu') and load its weights; make the inputs there too.",
        )


def model_error(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ModelError | None:
    """What the model itself raises on a call, in words; None where it runs.

    The call runs on copies, in the caller's gradient mode; buffers, attributes and random state stay as they were.
    """
    call_args, call_kwargs = copied((args, dict(kwargs)))
    try:
        with preserved_random_state(model), restored_attributes(model), restored_buffers(model):
            model(*call_args, **call_kwargs)
    except Exception as error:
        where = exception_location(error)
        return ModelError(
            f"{type(model).__name__} raises on the example inputs in plain PyTorch too"
            + (f"\n  at {where}" if where else "")
            + "\n  Pass inputs that the model takes."
            + f"\n  {type(error).__name__}: {str(error).strip() or 'without a message'}"
        )
    return None
