"""The parameters and buffers of a module as entries of one flat table, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Entry:
    """One name under which a module holds a tensor.

    Args:
        name: fully qualified; two names may hold one tensor.
        tensor: name of the tensor in the file: the first name that holds it.
        kind: "parameter", "buffer", or "scratch" for a buffer that is no part of the state_dict.
        requires_grad: of a parameter.
        device: type of the device it was on.
        order: the dimensions from the slowest to the quickest in memory.
    """

    name: str
    tensor: str
    kind: str
    requires_grad: bool
    device: str
    order: tuple[int, ...]


def entries(module: nn.Module) -> list[Entry]:
    """Every name of every parameter and buffer, in the order of the state_dict.

    Raises:
        TypeError: a tensor is of a kind that safetensors cannot hold; the message names it.
    """
    first: dict[int, str] = {}
    found = []
    for name, tensor, kind in _named(module):
        if type(tensor) not in (torch.Tensor, nn.Parameter) or tensor.layout is not torch.strided:
            raise TypeError(
                f"cannot save {name!r}: expected a plain dense tensor, got a {type(tensor).__name__} of layout "
                f"{tensor.layout}"
            )
        key = first.setdefault(id(tensor), name)
        found.append(Entry(name, key, kind, tensor.requires_grad, tensor.device.type, _order(tensor)))
    return found


def stored(module: nn.Module, table: Sequence[Entry]) -> dict[str, torch.Tensor]:
    """The tensors to write, each once, contiguous in its own order of dimensions and in memory of its own."""
    tensors = {name: tensor for name, tensor, _ in _named(module)}
    result = {}
    storages: set[int] = set()
    for entry in table:
        if entry.tensor != entry.name:
            continue
        value = tensors[entry.name].detach().permute(entry.order).contiguous()
        # safetensors refuses two tensors in one storage.
        if value.untyped_storage().data_ptr() in storages or value.untyped_storage().nbytes() != value.nbytes:
            value = value.clone()
        storages.add(value.untyped_storage().data_ptr())
        result[entry.tensor] = value
    return result


def restored(table: Sequence[Entry], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters and buffers by name, one object where names share a tensor."""
    made: dict[str, torch.Tensor] = {}
    result = {}
    for entry in table:
        if entry.tensor not in made:
            value = tensors[entry.tensor]
            value = value.permute([entry.order.index(dim) for dim in range(value.dim())])
            made[entry.tensor] = (
                nn.Parameter(value, entry.requires_grad) if entry.kind == "parameter" else value
            )
        result[entry.name] = made[entry.tensor]
    return result


def fill(
    module: nn.Module, table: Sequence[Entry], tensors: Mapping[str, torch.Tensor], below: str = ""
) -> nn.Module:
    """Register the named tensors in a module, making the submodules on the way; returns the module.

    Args:
        module: empty.
        table: entries of any modules.
        tensors: see `restored`.
        below: only those whose name starts with this path, which is left out of the names.
    """
    prefix = f"{below}." if below else ""
    for entry in table:
        if not entry.name.startswith(prefix):
            continue
        *parents, leaf = entry.name.removeprefix(prefix).split(".")
        holder = module
        for part in parents:
            if part not in holder._modules:
                holder.add_module(part, nn.Module())
            child = holder._modules[part]
            assert child is not None
            holder = child
        value = tensors[entry.name]
        if isinstance(value, nn.Parameter):
            holder.register_parameter(leaf, value)
        else:
            holder.register_buffer(leaf, value, persistent=entry.kind == "buffer")
    return module


def _named(module: nn.Module) -> Iterator[tuple[str, torch.Tensor, str]]:
    for path, holder in module.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for leaf, parameter in holder._parameters.items():
            if parameter is not None:
                yield prefix + leaf, parameter, "parameter"
        for leaf, buffer in holder._buffers.items():
            if buffer is not None:
                scratch = leaf in holder._non_persistent_buffers_set
                yield prefix + leaf, buffer, "scratch" if scratch else "buffer"


def _order(tensor: torch.Tensor) -> tuple[int, ...]:
    """Dimensions from the largest stride to the smallest; plain order where the tensor has gaps or overlaps."""
    strides = tensor.stride()
    order = tuple(sorted(range(tensor.dim()), key=lambda dim: -strides[dim]))
    return order if tensor.permute(order).is_contiguous() else tuple(range(tensor.dim()))
