"""Calls of operators: recorded where autograd must see them, else the cheaper twin that autograd does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stonefx import native

from .curvature import is_eager, wants_gradient
from .library import gives_each_gradient, recorded

_is_compiling = torch.compiler.is_compiling


class Caller:
    """`stone::name` as a function of operands and options.

    Args:
        name: of an operator that `library.declare` defined.
        autocasts: whether autocast changes its operands, so that every recorded call must go through the dispatcher.

    >>> Caller("poincare_dist0")(torch.tensor([0.5, 0.0]), torch.tensor(1.0))
    tensor(1.0986)
    """

    __slots__ = ("_direct", "_forward", "_operator", "_record")

    def __init__(self, name: str, *, autocasts: bool = False) -> None:
        self._operator = getattr(torch.ops.stone, name).default
        self._forward = getattr(torch.ops.stone, f"{name}_forward").default
        plain = not autocasts and gives_each_gradient(name)
        self._direct = native.direct_call(name) if plain else None
        self._record: Callable[..., Tensor] = self._operator if autocasts else recorded(name)

    def __call__(self, *operands: Tensor | None, **options: Any) -> Tensor:
        """Run it; RuntimeError for operands that do not fit."""
        if not _is_compiling() and self._direct is not None:
            result = self._direct(*operands, **options)
            if result is not NotImplemented:
                return result
        if not wants_gradient(*operands):
            return self._forward(*operands, **options)
        return (self._record if is_eager() else self._operator)(*operands, **options)
