"""Where an `nn.Module` keeps its weights and hooks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_globals

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def hook_tables(module: nn.Module) -> list[dict[int, Any]]:
    """The tables that must all be empty for a call to need nothing of `nn.Module.__call__`."""
    own = [getattr(module, name) for name in _HOOKS]
    return own + [getattr(module_globals, f"_global{name}") for name in _HOOKS]


def has_hooks(module: nn.Module) -> bool:
    """Whether a call of this module runs hooks of its own.

    >>> has_hooks(nn.Linear(2, 2))
    False
    """
    return any(getattr(module, name) for name in _HOOKS)


def owner(module: nn.Module, name: str) -> tuple[dict[str, Any], str]:
    """The dictionary in which a module keeps a weight, and the weight's name in it.

    Raises:
        AttributeError: there is no such parameter, buffer or tensor.

    >>> owner(nn.Sequential(nn.Linear(2, 2)), "0.bias")[1]
    'bias'
    """
    path, _, leaf = name.rpartition(".")
    holder = module.get_submodule(path) if path else module
    for table in (holder._parameters, holder._buffers, holder.__dict__):
        if isinstance(table.get(leaf), torch.Tensor):
            return table, leaf
    raise AttributeError(f"{type(module).__name__} has no parameter, buffer or tensor {name!r}")


def weight(module: nn.Module, name: str) -> torch.Tensor:
    """A parameter, buffer or tensor attribute by its fully qualified name.

    >>> weight(nn.Sequential(nn.Linear(2, 3)), "0.bias").shape
    torch.Size([3])
    """
    table, leaf = owner(module, name)
    return table[leaf]
