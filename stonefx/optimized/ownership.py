"""A copy of a model that shares the original's weights until it is known which of them it needs."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import nn


class Borrowed:
    """A copied model over the memory of the original's weights.

    Nothing may be written to a borrowed weight before `own` has given the copy its own.

    Args:
        model: the original, which is left as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        self.lent: dict[int, torch.Tensor] = {}
        memo: dict[int, object] = {}
        for tensor in _sole_owners(model):
            # `data` has a version counter of its own, so that a write by the copy is no write to the original.
            alias = nn.Parameter(tensor.data, tensor.requires_grad)
            memo[id(tensor)] = alias
            self.lent[id(alias)] = alias
        self.model: nn.Module = copy.deepcopy(model, memo)

    @property
    def storages(self) -> frozenset[int]:
        """The addresses of the memory that is the original's."""
        return frozenset(tensor.untyped_storage().data_ptr() for tensor in self.lent.values())

    def own(self, tensors: Iterable[torch.Tensor] | None = None) -> None:
        """Copy borrowed weights: the given ones, or all that the model still has; let go of the others."""
        wanted = self.model.parameters() if tensors is None else tensors
        with torch.no_grad():
            for tensor in wanted:
                if self.lent.pop(id(tensor), None) is not None:
                    tensor.data = tensor.data.clone(memory_format=torch.preserve_format)
        if tensors is None:
            self.lent.clear()


def _sole_owners(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that a plain alias can stand for, each once."""
    return [
        tensor
        for tensor in model.parameters()
        if type(tensor) is nn.Parameter
        and tensor.layout is torch.strided
        and not tensor.is_quantized
        and not tensor.is_inference()
        and tensor.device.type in ("cpu", "cuda")
    ]
