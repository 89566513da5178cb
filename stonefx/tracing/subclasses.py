"""Tensors of another kind than torch's own: sharded, quantised, nested, or of a user's own class."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, get_plain_tensors
from torch.utils import _pytree as pytree

_PLAIN = (FakeTensor, torch.Tensor, torch.nn.Parameter)


def is_subclass(value: object) -> bool:
    """Whether a value is a tensor of another kind.

    >>> is_subclass(torch.ones(2)), is_subclass(torch.ones(2).as_subclass(type("Mine", (torch.Tensor,), {})))
    (False, True)
    """
    return isinstance(value, torch.Tensor) and type(value) not in _PLAIN


def subclasses_in(*values: Any) -> list[str]:
    """The names of the classes of those tensors, among the values and what lies in them, that are of another kind."""
    return [type(leaf).__name__ for leaf in pytree.tree_leaves(values) if is_subclass(leaf)]


def plain_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The plain tensors that a tensor is made of: itself, or those inside of a wrapper."""
    parts: list[Any] = get_plain_tensors(tensor, out=[])
    return [part for part in parts if isinstance(part, torch.Tensor)]
