"""A compressed model with the layers of torch alone, which is saved and loaded where this package is not installed."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn

from .padding import PaddedEncoder, without_fast_paths
from .standing import answering, read
from .streaming import weights_of


def plain(model: nn.Module) -> nn.Module:
    """An equal model whose layers are torch's and its own: `torch.save` writes it, and loading needs no stonefx.

    Tied weights stay tied. Layers under int8 hold weights of torchao, which must be there to load them.

    Args:
        model: what `compress` returned.

    What is not known before a call is taken from the calls so far: where the model's code reads `layer.weight.dtype`
    of a layer that was replaced, a stand-in answers, all of whose values are NaN. Call the model once before, if it was
    compressed without data.

    Returns:
        A copy.

    Raises:
        TypeError: it holds a layer of this package that torch has no equal of; the message names it and says why.

    >>> import torch, stonefx
    >>> model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    >>> small, stats = stonefx.compress(model, energy=0.5, forms=["pair"])
    >>> {type(module).__module__.split(".")[0] for module in plain(small).modules()}
    {'torch'}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"plain: expected what compress returned, got {type(model).__name__}")
    copied = _plain_module(copy.deepcopy(model), {})
    for path, module in copied.named_modules():
        if type(module).__module__.partition(".")[0] == "stonefx" and type(module) is not PaddedEncoder:
            raise TypeError(
                f"plain: {path or 'the model'} is a {type(module).__name__} of stonefx, which torch has no equal of; "
                "save the model where stonefx is installed: torch.save(model, path)"
            )
    without_fast_paths(copied)
    return copied


def _plain_module(module: nn.Module, made: dict[nn.Module, nn.Module], path: str = "") -> nn.Module:
    """A module with all its parts in torch's own classes, each made once."""
    if module not in made:
        found = made[module] = _plain_layer(module, path)
        made[found] = found
        for name, child in list(found._modules.items()):
            if child is not None:
                found._modules[name] = _plain_module(child, made, f"{path}.{name}" if path else name)
    return made[module]


def _plain_layer(layer: nn.Module, path: str) -> nn.Module:
    make = getattr(layer, "plain", None)
    if type(layer).__module__.partition(".")[0] != "stonefx":
        return layer
    if not callable(make):
        sequence = isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward
        if not sequence:
            return layer
        found = answering(nn.Sequential(*layer), layer).train(layer.training)  # type: ignore[misc]
        return _with_weight(found, layer, path) if hasattr(layer, "weight") else found
    try:
        found = answering(make(), layer)
    except TypeError as error:
        raise TypeError(f"plain: {path or 'the model'} became a {type(layer).__name__}: {error}") from None
    if (weights := weights_of(layer)) is not None:
        # Of a model larger than memory one layer at a time is in it.
        weights.offload(found)
    return _with_weight(found.train(layer.training), layer, path)


def _with_weight(made: nn.Module, layer: nn.Module, path: str) -> nn.Module:
    """What the model asks of the layer's weight in its calls, where that is its dtype, device or shape."""
    asked = read(layer)
    if asked == "values":
        raise TypeError(
            f"plain: the model reads the values of {path or 'its'}.weight, which two layers in its place have not; "
            "save the model where stonefx is installed: torch.save(model, path), or leave it out with layers="
        )
    if asked is None:
        return made
    weight: Tensor = layer.weight  # type: ignore[assignment]
    # One number in the place of all. Whoever computes with it is told so by what comes out.
    stand_in = torch.full((), torch.nan, dtype=weight.dtype, device=weight.device).expand(weight.shape)
    holder = nn.Sequential(made) if isinstance(made, fx.GraphModule) else made
    holder.register_buffer("weight", stand_in, persistent=False)
    return holder.train(layer.training)
