"""What layers take: bytes of all that is stored, each storage once."""

from __future__ import annotations

from torch import Tensor, nn


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
            seen[id(value)] = sum(t.numel() * t.element_size() for t in _inner(value))
    return sum(seen.values())


def _inner(value: Tensor) -> list[Tensor]:
    """The plain tensors of one: of a quantised weight its integers, scales and zero points."""
    if type(value) in (Tensor, nn.Parameter) or not hasattr(value, "__tensor_flatten__"):
        return [value]
    return [t for name in value.__tensor_flatten__()[0] for t in _inner(getattr(value, name))]


def element_size(module: nn.Module) -> int:
    """Bytes of one weight of a layer."""
    return next(p.element_size() for p in module.parameters() if p.dim() > 1)
