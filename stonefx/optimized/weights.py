"""Where an `nn.Module` keeps its weights and hooks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as module_globals
from torch.nn.utils.prune import BasePruningMethod

from ..memory import apart, extent, has_memory

_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


def global_hook_tables() -> list[dict[int, Any]]:
    """The tables for hooks on all modules: where one has an entry, a call is for `nn.Module.__call__`."""
    return [getattr(module_globals, f"_global{name}") for name in _HOOKS]


def hook_tables(module: nn.Module) -> list[dict[int, Any]]:
    """The tables that must all be empty for a call to need nothing of `nn.Module.__call__`."""
    return [*(getattr(module, name) for name in _HOOKS), *global_hook_tables()]


def hooks(module: nn.Module) -> list[Any]:
    """The hooks that a call of this module runs."""
    return [hook for name in _HOOKS for hook in getattr(module, name).values()]


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


def owner_or_none(module: nn.Module, name: str) -> tuple[dict[str, Any], str] | None:
    """As `owner`; None where the weight is computed anew for every call."""
    if Reading(module, name).is_needed():
        return None
    return owner(module, name)


class Reading:
    """A weight that is computed when it is read: it is parametrised, or a pruning hook masks it.

    Args:
        module: the model.
        name: of the weight in it.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        path, _, self.leaf = name.rpartition(".")
        self.holder = module.get_submodule(path) if path else module

    def _hooks(self) -> list[BasePruningMethod]:
        hooks: list[Any] = list(self.holder._forward_pre_hooks.values())
        return [hook for hook in hooks if getattr(hook, "_tensor_name", None) == self.leaf]

    def is_needed(self) -> bool:
        """Whether the weight is computed at all."""
        return isinstance(inspect.getattr_static(type(self.holder), self.leaf, None), property) or bool(
            self._hooks()
        )

    def __call__(self) -> torch.Tensor:
        """The weight as it is now."""
        for hook in self._hooks():
            hook(self.holder, ())
        value: torch.Tensor = getattr(self.holder, self.leaf)
        return value


def held_elsewhere(whole: nn.Module, part: nn.Module) -> set[str]:
    """The weights of a part of a model that another part holds as well, by their names in the first.

    >>> tied = nn.ModuleDict({"first": nn.Linear(2, 2), "second": nn.Linear(2, 2)})
    >>> tied.second.weight = tied.first.weight
    >>> held_elsewhere(tied, tied), held_elsewhere(tied, tied.first)
    (set(), {'weight'})
    """
    modules = set(part.modules())
    beyond = [module for module in whole.modules() if module not in modules]
    outside = {id(tensor) for module in beyond for _, tensor in _held(module)}
    return {name for name, tensor in _weights(part) if id(tensor) in outside} if outside else set()


def overlapping_weights(whole: nn.Module, part: nn.Module) -> dict[str, str]:
    """Why a write to another weight of a model changes one of a part of it, too, by its name in the part.

    One tensor under several names is one weight.

    >>> flat = nn.Module()
    >>> flat.weight = nn.Parameter(torch.ones(4, 2))
    >>> flat.register_buffer("row", flat.weight.detach()[1])
    >>> overlapping_weights(flat, flat)["weight"]
    "'row' lies in the same memory"
    """
    everything = {id(tensor): (name, tensor) for name, tensor in _weights(whole) if has_memory(tensor)}
    shared: dict[int, str] = {}
    furthest: tuple[str, torch.Tensor] | None = None
    # By where they start, so that one which reaches into others reaches into the next one.
    for name, tensor in sorted(everything.values(), key=lambda item: extent(item[1])):
        if furthest is not None and not apart(tensor, furthest[1]):
            shared.setdefault(id(tensor), furthest[0])
            shared.setdefault(id(furthest[1]), name)
        if furthest is None or extent(tensor)[1] > extent(furthest[1])[1]:
            furthest = name, tensor
    return {
        name: f"{shared[id(tensor)]!r} lies in the same memory"
        for name, tensor in _weights(part)
        if id(tensor) in shared
    }


def _weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters and buffers of a module, under each of their names."""
    for path, child in module.named_modules(remove_duplicate=False):
        for leaf, tensor in _held(child):
            yield f"{path}.{leaf}".lstrip("."), tensor


def _held(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    held = {**module._parameters, **module._buffers}
    return [(leaf, tensor) for leaf, tensor in held.items() if tensor is not None]


def current_weight(module: nn.Module, name: str) -> torch.Tensor:
    """As `weight`, also where the weight is computed when it is read."""
    reading = Reading(module, name)
    return reading() if reading.is_needed() else weight(module, name)


def weight(module: nn.Module, name: str) -> torch.Tensor:
    """A parameter, buffer or tensor attribute by its fully qualified name.

    >>> weight(nn.Sequential(nn.Linear(2, 3)), "0.bias").shape
    torch.Size([3])
    """
    table, leaf = owner(module, name)
    return table[leaf]
