"""Attention layers of torch whose fast path gives other values than the operations that a trace sees.

Without gradients `nn.TransformerEncoder` packs what a mask leaves into nested tensors, and gives zeros for the rest;
its layers and `nn.MultiheadAttention` call one kernel, which gives NaN where all keys are masked, and takes a mask of
numbers for one of truth values. A compiled forward packs nothing, and one graph serves calls with gradients and
without. Where no mask is given, all ways agree.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

from .errors import CaptureError, FastPathError, capture_error

# Each kind with the arguments of its forward that mask something.
MASKS: dict[type[nn.Module], tuple[str, ...]] = {
    nn.TransformerEncoder: ("src_key_padding_mask",),
    nn.TransformerEncoderLayer: ("src_mask", "src_key_padding_mask"),
    nn.MultiheadAttention: ("key_padding_mask", "attn_mask"),
}
KINDS = tuple(MASKS)
_FORWARDS: dict[CodeType, type[nn.Module]] = {inspect.unwrap(kind.forward).__code__: kind for kind in KINDS}
# Each forward asks one of these last, once all else lets it take its fast path.
_TORCH, _OWN = str(Path(torch.__file__).parent), str(Path(__file__).parent)
_LAST_QUESTIONS = (torch.is_grad_enabled, torch.compiler.is_compiling)


@contextmanager
def refused_fast_paths() -> Iterator[list[CaptureError]]:
    """While this thread records, stop at an attention layer that may take its fast path for a call with a mask.

    Yields a list that gets the error, a `FastPathError`; Dynamo raises one of its own.
    """
    refused: list[CaptureError] = []
    original, thread = TorchInGraphFunctionVariable.call_function, threading.get_ident()

    def call_function(self: TorchInGraphFunctionVariable, tx: Any, args: Any, kwargs: Any) -> Any:
        if self.value in _LAST_QUESTIONS and threading.get_ident() == thread and (masks := masks_given(tx)):
            refused.append(_refusal(masks, tx))
            # Another one, since Dynamo writes into what it catches.
            raise _refusal(masks, tx)
        return original(self, tx, args, kwargs)

    with patch.object(TorchInGraphFunctionVariable, "call_function", call_function):
        yield refused


def masks_of(plain: type[nn.Module]) -> dict[str, int] | None:
    """The arguments of a class's forward that mask something, with their positions behind the module.

    None where the class is none of the kinds, or has a forward of its own, of which that is not known.

    >>> masks_of(nn.TransformerEncoderLayer)
    {'src_mask': 1, 'src_key_padding_mask': 2}
    """
    kind = next((kind for kind in KINDS if plain.forward is kind.forward), None)
    if kind is None:
        return None
    order = list(inspect.signature(kind.forward).parameters)
    return {name: order.index(name) - 1 for name in MASKS[kind]}


def masks_given(tx: Any) -> list[str]:
    """The masks of the forward that is traced, where its values may be others on its fast path."""
    kind = _FORWARDS.get(tx.f_code)
    # With the weights of attention asked for, the fast path of attention itself agrees.
    if kind is None or (kind is nn.MultiheadAttention and _value(tx, "need_weights") is True):
        return []
    return [name for name in MASKS[kind] if _value(tx, name) is not None]


def _value(tx: Any, name: str) -> Any:
    """A variable of the forward that is traced: its constant, or what Dynamo has for it."""
    variable = tx.symbolic_locals[name].realize()
    return variable.as_python_constant() if variable.is_python_constant() else variable


def has_fast_path(module: nn.Module) -> bool:
    """Whether a module is one of the kinds, in the mode in which they have a fast path."""
    return isinstance(module, KINDS) and not module.training


def relies_on_switch(model: nn.Module) -> bool:
    """Whether a graph of the model may hold only because somebody has switched the fast paths off."""
    off = not torch.backends.mha.get_fastpath_enabled()
    return off and any(map(has_fast_path, model.modules()))


def _refusal(masks: list[str], tx: Any) -> CaptureError:
    kind = _FORWARDS[tx.f_code]
    while tx is not None and tx.f_code.co_filename.startswith((_TORCH, _OWN)):
        tx = tx.parent
    return capture_error(
        f"nn.{kind.__name__} is called with {' and '.join(masks)}, and without gradients takes a fast path of torch, "
        "which gives other values for what is masked",
        "It runs as it is. Where those values are not needed, call torch.backends.mha.set_fastpath_enabled(False) "
        "first.",
        f"{tx.f_code.co_filename}:{tx.lineno}" if tx is not None else "",
        kind=FastPathError,
    )
