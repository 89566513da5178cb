"""The parameters and buffers of a module as entries of one flat table, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from . import schema

_REGISTERED = ("parameter", "buffer", "scratch")


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


def table_of(document: Any) -> list[Entry]:
    """The entries that were written as lists.

    Raises:
        Malformed: they were not.
    """
    where = "the table of weights"
    table = []
    for row in schema.items(document, where):
        name, tensor, kind, requires_grad, device, order = schema.items(row, where, 6)
        parts = schema.text(name, where).split(".")
        if not all(parts) or len(parts) > schema.DEPTH:
            raise schema.expected("the name of a weight", name, where)
        table.append(
            Entry(
                name,
                schema.text(tensor, where),
                schema.word(kind, where, _REGISTERED),
                schema.flag(requires_grad, where),
                schema.identifier(device, where),
                tuple(schema.integer(dim, where, 0, 63) for dim in schema.items(order, where)),
            )
        )
    if len({entry.name for entry in table}) != len(table):
        raise schema.expected("each weight once", [entry.name for entry in table], where)
    return table


def restored(table: Sequence[Entry], tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parameters and buffers by name, one object where names share a tensor.

    Raises:
        Malformed: the table and the tensors do not fit.
        ValueError: the device that a tensor was on is not there.
    """
    where = "the table of weights"
    if {entry.tensor for entry in table} != tensors.keys():
        raise schema.expected("one entry or more for each tensor", sorted(tensors), where)
    made: dict[str, torch.Tensor] = {}
    result = {}
    for entry in table:
        if entry.tensor not in made:
            value = tensors[entry.tensor]
            if sorted(entry.order) != list(range(value.dim())):
                raise schema.expected(f"an order of {value.dim()} dimensions", list(entry.order), where)
            value = _moved(
                value.permute([entry.order.index(dim) for dim in range(value.dim())]), entry.device
            )
            if entry.kind == "parameter":
                if entry.requires_grad and not (value.is_floating_point() or value.is_complex()):
                    raise schema.expected("a gradient for floating numbers only", entry.name, where)
                value = nn.Parameter(value, entry.requires_grad)
            made[entry.tensor] = value
        result[entry.name] = made[entry.tensor]
    return result


def _moved(value: torch.Tensor, device: str) -> torch.Tensor:
    try:
        return value.to(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"the weights were on a device of type {device!r}, which is not here: {error}; move the model to the CPU "
            "before saving it"
        ) from error


def fill(
    module: nn.Module, table: Sequence[Entry], tensors: Mapping[str, torch.Tensor], below: str = ""
) -> nn.Module:
    """Register the named tensors in a module, making the submodules on the way; returns the module.

    Args:
        module: has no weights; submodules that are missing on the way are made.
        table: entries of any modules.
        tensors: see `restored`.
        below: only those whose name starts with this path, which is left out of the names.

    Raises:
        Malformed: a module cannot have a weight of such a name.
    """
    prefix = f"{below}." if below else ""
    for entry in table:
        if not entry.name.startswith(prefix):
            continue
        try:
            _register(module, entry.name.removeprefix(prefix), tensors[entry.name], entry.kind == "buffer")
        except KeyError as error:  # a name that modules have for something else
            raise schema.expected("a name that a weight can have", entry.name, str(error)) from error
    return module


def _register(module: nn.Module, name: str, value: torch.Tensor, persistent: bool) -> None:
    *parents, leaf = name.split(".")
    for part in parents:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        child = module._modules[part]
        assert child is not None
        module = child
    if isinstance(value, nn.Parameter):
        module.register_parameter(leaf, value)
    else:
        module.register_buffer(leaf, value, persistent=persistent)


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
