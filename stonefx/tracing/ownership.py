"""Copies of a model to own, which may share the original's weights until it is known which of them are needed."""

from __future__ import annotations

import copy
import functools
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from stonefx.integrations import copied

from .arguments import Path, walk
from .errors import CaptureError, capture_error


def owned(model: nn.Module) -> nn.Module:
    """A copy of a model, with plain tensors in the place of those that were made under inference mode.

    Raises:
        CaptureError: the model cannot be copied, in which case the message names the tensor, if it is one that cannot;
            or it has weights without values, or no Python code.
    """
    borrowed = Borrowed(model)
    borrowed.own()
    return borrowed.model


class Borrowed:
    """A copied model over the memory of the original's weights.

    Nothing may be written to a borrowed weight before `own` has given the copy its own.

    Args:
        model: the original, which is left as it is.

    Raises:
        CaptureError: as of `owned`.
    """

    def __init__(self, model: nn.Module) -> None:
        check_owned(model)
        self.original = model
        self.lent: dict[int, torch.Tensor] = {}
        memo: dict[int, Any] = {}
        with torch.inference_mode(False):
            try:
                for tensor in _sole_owners(model):
                    # `data` has a version counter of its own, so that a write by the copy is no write to the original.
                    alias = nn.Parameter(tensor.data, tensor.requires_grad)
                    memo[id(tensor)] = alias
                    self.lent[id(alias)] = alias
                memo.update((id(tensor), tensor.detach().clone()) for tensor in _made_by_hooks(model))
                copied(model, memo)
                self.model: nn.Module = copy.deepcopy(model, memo)
                _rebind(self.model, memo)
            except Exception as error:
                raise _uncopied(model, error) from error

    @property
    def storages(self) -> frozenset[int]:
        """The addresses of the memory that is the original's."""
        return frozenset(tensor.untyped_storage().data_ptr() for tensor in self.lent.values())

    def own(self, tensors: Iterable[torch.Tensor] | None = None) -> None:
        """Copy borrowed weights: the given ones, or all that the model still has; let go of the others."""
        wanted = self.model.parameters() if tensors is None else tensors
        with torch.inference_mode(False), torch.no_grad():
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


def _made_by_hooks(model: nn.Module) -> Iterator[torch.Tensor]:
    """The weights that a hook of `torch.nn.utils` makes anew before each forward; what lies there has a history."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm | SpectralNorm | prune.BasePruningMethod):
                name = hook._tensor_name if isinstance(hook, prune.BasePruningMethod) else hook.name
                if isinstance(value := vars(module).get(name), torch.Tensor):
                    yield value


def check_owned(model: nn.Module) -> None:
    """Refuse a model that cannot be owned, as of `owned`."""
    if isinstance(model, torch.jit.ScriptModule):
        raise capture_error(
            f"the model is a {type(model).__name__}, a TorchScript module, of whose code capture sees nothing",
            "Pass the nn.Module that it was scripted or traced from.",
        )
    if wrapped := _sharded(model):
        raise capture_error(
            f"{wrapped} is wrapped by FSDP, which gathers its weights for each call and frees them behind it, so that "
            "they can be neither copied nor folded",
            'Optimize the model before it is wrapped, or use torch.compile(model, backend="stone").',
        )
    empty = [name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta]
    if empty:
        more = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        raise capture_error(
            f"`{empty[0]}`{more} of {type(model).__name__} is a meta tensor, which has no values",
            'Give the model memory with model.to_empty(device="cpu") and load its state_dict first.',
        )


def _sharded(model: nn.Module) -> str:
    """The first part of a model that FSDP manages; empty where there is none."""
    library = sys.modules.get("torch.distributed.fsdp")  # a model that it wrapped has imported it
    kinds = tuple(
        kind
        for name in ("FSDPModule", "FullyShardedDataParallel")
        if isinstance(kind := getattr(library, name, None), type)
    )
    for path, module in model.named_modules():
        if kinds and isinstance(module, kinds):
            return f"`{path}`" if path else f"the model, a {type(module).__name__},"
    return ""


def _rebind(made: nn.Module, memo: dict[int, Any]) -> None:
    """Let `m.forward = torch.compile(m.forward)` run the copy's own forward: copies of functions are the functions."""
    for module in made.modules():
        for name, value in list(vars(module).items()):
            if hasattr(value, "_torchdynamo_orig_callable"):
                method = _method_inside(value)
                if method is not None and id(method.__self__) in memo:
                    vars(module)[name] = types.MethodType(method.__func__, memo[id(method.__self__)])


def _method_inside(value: Any, depth: int = 4) -> types.MethodType | None:
    """The bound method that a wrapper of torch.compile calls in the end."""
    if isinstance(value, types.MethodType):
        return value
    if depth and isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            found = _method_inside(cell.cell_contents, depth - 1)
            if found is not None and isinstance(found.__self__, nn.Module):
                return found
    return None


def _uncopied(model: nn.Module, error: Exception) -> CaptureError:
    for name, tensor in _tensors(model):
        try:
            copy.deepcopy(tensor)
        except Exception as reason:
            return capture_error(
                f"`{name}` of {type(model).__name__} is a {type(tensor).__name__}, which cannot be copied",
                "Give its class a __deepcopy__, or detach a tensor that has a history.",
                cause=reason,
            )
    return capture_error(
        f"{type(model).__name__} cannot be copied",
        "Let copy.deepcopy(model) work, or remove what it cannot copy while stonefx.optimize runs.",
        cause=error,
    )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The tensors of a model by name, those in its attributes and their containers included."""
    yield from model.named_parameters()
    yield from model.named_buffers()
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if not name.startswith("_"):
                for place, item in walk(value, Path(f"{path}.{name}" if path else name)):
                    if isinstance(item, torch.Tensor):
                        yield str(place), item


def reachable_tensors(model: nn.Module) -> set[int]:
    """Identities of the tensors that belong to a model: what copy.deepcopy of it copies.

    Those in closures, globals and class attributes belong to others.
    """
    found: set[int] = set()
    seen: set[int] = set()
    left: list[Any] = [model]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, torch.Tensor):
            found.add(id(value))
            left.append(vars(value))  # a tensor of a library may hold its data in an attribute
        elif isinstance(value, dict):
            left += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)):
            left += value
        elif isinstance(value, types.MethodType):
            left.append(value.__self__)
        elif isinstance(value, functools.partial):
            left += [value.func, value.args, value.keywords]
        elif not isinstance(value, (type, types.FunctionType, types.ModuleType)):
            left.append(getattr(value, "__dict__", {}))
    return found
