"""Attention layers of which a compiler sees only the calls in which torch's fast paths give what a trace gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..tracing.fast_paths import KINDS, masks_of
from .derived import Derived, become, plain_class
from .parts import copied_as, pickled


class MaskedAttention(Derived):
    """An attention layer of torch whose calls with masks Dynamo leaves to Python."""

    @classmethod
    def namespace_over(cls, plain: type) -> dict[str, Any]:
        """The forward."""
        return super().namespace_over(plain) | {"forward": _forward_of(plain)}

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        return copied_as(self, type(self), memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return pickled(self, protocol)


def _forward_of(plain: Any) -> Callable[..., Any]:
    """A forward that does as that of the class; where it is the class's own, it is never looked into."""
    inside, masks = plain.forward, masks_of(plain)

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        masked = masks is None
        for name, position in (masks or {}).items():
            masked |= (args[position] if position < len(args) else kwargs.get(name)) is not None
        return (_in_python if masked and not self.training else _called)(inside, self, args, kwargs)

    return forward


def _called(forward: Callable[..., Any], module: nn.Module, args: Any, kwargs: Any) -> Any:
    return forward(module, *args, **kwargs)


_in_python = torch.compiler.disable(_called)


def leave_fast_paths(model: nn.Module) -> None:
    """Let Dynamo see no call with masks of the attention layers in a model."""
    for module in model.modules():
        if isinstance(module, KINDS) and plain_class(type(module)) is type(module):
            become(module, MaskedAttention)
