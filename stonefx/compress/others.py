"""Why a layer or a matrix cannot be made smaller, where that does not depend on its kind."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.nn.utils import parametrize

from .streaming import OWN_HOOKS

NO_MATRIX = "which is not a linear layer that can be replaced"


def why_not(layer: nn.Module) -> str | None:
    """Why a layer of a known kind stays as it is all the same; None where nothing is in the way."""
    if parametrize.is_parametrized(layer):
        return (
            "its weight is computed from others by a parametrisation; "
            "torch.nn.utils.parametrize.remove_parametrizations makes it a plain one"
        )
    weights = [p for p in layer.parameters(recurse=False) if p.dim() > 1]
    if any(hasattr(layer, f"{name}_{end}") for name in _weight_names(layer) for end in ("g", "orig")):
        return (
            "its weight is computed in every call by a hook (weight_norm, spectral_norm or pruning); "
            "the matching remove function of torch.nn.utils makes it a plain one"
        )
    if not weights:
        return f"its weight is no parameter of its own but {_what(getattr(layer, 'weight', None))}"
    for weight in weights:
        if type(weight) is not nn.Parameter or type(weight.data) not in (Tensor, nn.Parameter):
            return f"its weight is {_what(weight if type(weight) is not nn.Parameter else weight.data)}"
        if weight.is_meta:
            return "its weight is on the meta device and has no values"
        if not weight.is_floating_point():
            return f"its weight is of type {weight.dtype}, and only real floating-point ones are factored"
        if weight.layout is not torch.strided:
            return f"its weight is stored as {weight.layout}"
        if weight.element_size() < 2:
            return f"its weight is of type {weight.dtype}, which is quantised already"
    if "forward" in vars(layer):
        return "its forward was replaced on this very layer, and what took its place would be lost"
    if hooks := _hooks(layer):
        return f"it has {hooks}, which would be lost with the layer"
    return None


def unread(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of all matrices of a module that is of no known kind, with the reason why they stay as they are."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() < 2:
            continue
        kind = type(module).__name__
        if isinstance(module, nn.MultiheadAttention):
            yield name, IN_ATTENTION
        elif isinstance(module, nn.Bilinear):
            yield name, "a Bilinear multiplies its weight with two inputs, and is no map of one"
        elif parametrize.is_parametrized(module):
            yield name, "its module is parametrised"
        elif parameter.dim() == 3 and min(parameter.shape) > 1:
            yield (
                name,
                f"weight of a {kind}, a batch of {parameter.shape[0]} matrices that its own forward multiplies, "
                + NO_MATRIX,
            )
        else:
            yield name, f"weight of a {kind}, {NO_MATRIX}"


IN_ATTENTION = (
    "nn.MultiheadAttention computes with all its matrices in one call; none of them is a layer called alone"
)


def claimed(model: nn.Module) -> dict[nn.Module, str]:
    """Modules that another one uses in a way of its own: by their weights, without calling them."""
    found: dict[nn.Module, str] = {}
    for module in model.modules():
        if (
            isinstance(module, nn.MultiheadAttention)
            and type(module).forward is nn.MultiheadAttention.forward
        ):
            found[module.out_proj] = IN_ATTENTION
        if parametrize.is_parametrized(module):
            # The layer itself is listed.
            found |= dict.fromkeys(module.parametrizations.modules(), "")  # type: ignore[union-attr]
    return found


def is_quantised(module: nn.Module) -> bool:
    """Whether a module is one of torch's own quantised ones, whose weights are no parameters."""
    return type(module).__module__.startswith("torch.ao.nn.") and hasattr(module, "_packed_params")


def uninitialised(model: nn.Module) -> list[str]:
    """Paths of lazy layers whose weights have no shape yet."""
    return [
        path
        for path, module in model.named_modules()
        if any(isinstance(p, UninitializedParameter) for p in module.parameters(recurse=False))
    ]


def _weight_names(layer: nn.Module) -> set[str]:
    return {"weight", *(n for n in vars(layer) if n.startswith("weight"))}


def _what(weight: object) -> str:
    if weight is None:
        return "missing"
    return f"a {type(weight).__module__}.{type(weight).__qualname__}"


def _hooks(layer: nn.Module) -> str:
    kinds = {
        "forward hooks": layer._forward_hooks,
        "forward pre-hooks": layer._forward_pre_hooks,
        "backward hooks": layer._backward_hooks,
        "backward pre-hooks": layer._backward_pre_hooks,
    }
    return " and ".join(name for name, hooks in kinds.items() if set(hooks.values()) - set(OWN_HOOKS))
