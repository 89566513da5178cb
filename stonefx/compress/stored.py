"""What models store: the tensors that weights are made of, the bytes they take, and a file of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..files import replaced_atomically
from . import tensorfile

FILE = "model.safetensors"


def stored_bytes(module: nn.Module, recurse: bool = False) -> int:
    """Bytes of parameters and persistent buffers, each storage counted once."""
    persistent = (
        module.state_dict(keep_vars=True)
        if recurse
        else {
            **dict(module.named_parameters(recurse=False)),
            **dict(module.named_buffers(recurse=False)),
        }
    )
    seen: dict[int, int] = {}
    for value in persistent.values():
        if isinstance(value, Tensor):
            seen[id(value)] = sum(part.nbytes for part in parts_of("", value).values())
    return sum(seen.values())


def element_size(module: nn.Module) -> int:
    """Bytes of one weight of a layer."""
    return next(p.element_size() for p in module.parameters() if p.dim() > 1)


def parts_of(name: str, value: Tensor) -> dict[str, Tensor]:
    """The plain tensors that a weight is stored as, by name: itself, or integers and scales as `name.qdata`."""
    if not hasattr(value, "__tensor_flatten__"):
        return {name: value}
    found: dict[str, Tensor] = {}
    for part in value.__tensor_flatten__()[0]:
        found |= parts_of(f"{name}.{part}", getattr(value, part))
    return found


def rebuilt(like: Tensor, read: Callable[[str], Tensor]) -> Tensor:
    """A weight of several tensors like another one, from its parts."""
    kind: Any = type(like)
    names, facts = kind.__tensor_flatten__(like)
    made: Tensor = kind.__tensor_unflatten__(
        {name: read(name) for name in names}, facts, like.size(), like.stride()
    )
    return made


@dataclass(frozen=True)
class _Entry:
    """A tensor that is made when its turn comes."""

    shape: torch.Size
    dtype: torch.dtype
    load: Callable[[], Tensor]


def _tensors_of(model: nn.Module) -> tuple[dict[str, _Entry], dict[str, str]]:
    """All that a model stores by name, each tensor once, and the first name of those that are there before."""
    found: dict[str, _Entry] = {}
    written: dict[int, str] = {}
    tied: dict[str, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        kept = {k: v for k, v in module._buffers.items() if k not in module._non_persistent_buffers_set}
        # `items` gives stand-ins: nothing is read here.
        for name, value in (*module._parameters.items(), *kept.items()):
            if value is None:
                continue
            whole = f"{path}.{name}" if path else name
            first = written.setdefault(id(value), whole)
            if first != whole:
                tied[whole] = first
                continue
            for part, own in parts_of("", value).items():
                # The parts of a quantised weight stand beside its bias, as in the layer that is made of them.
                at = whole if not part else f"{path}{part}" if path else part[1:]
                found[at] = _Entry(own.shape, own.dtype, partial(_part, module, name, part))
    return found, tied


def _part(module: nn.Module, name: str, part: str) -> Tensor:
    return parts_of("", getattr(module, name).detach())[part]


def save(model: nn.Module, path: Path) -> dict[str, str]:
    """Write a model's tensors one after the other to a file, which appears at once or not at all.

    Returns:
        Of those that are tied to one before them, which is written once, the name of that one.
    """
    found, tied = _tensors_of(model)
    heads = {name: (found[name].shape, found[name].dtype) for name in sorted(found)}
    with replaced_atomically(path) as part:
        tensorfile.stream(part, heads, lambda name: found[name].load(), {"format": "pt"})
    return tied
