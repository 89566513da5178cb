"""What a model itself raises on the example inputs, which then are at fault and not the capture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from .copies import copied
from .errors import ModelError, exception_location
from .isolation import preserved_random_state
from .model_state import restored_attributes, restored_buffers


def model_error(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> ModelError | None:
    """What the model itself raises on a call, in words; None where it runs.

    The call runs on copies, in the caller's gradient mode; buffers, attributes and random state stay as they were.

    Args:
        model: the model.
        args, kwargs: the call.
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
