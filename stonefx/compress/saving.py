"""A compressed model with the layers of torch alone, which is saved and loaded where this package is not installed."""

from __future__ import annotations

import copy

from torch import nn


def plain(model: nn.Module) -> nn.Module:
    """An equal model whose layers are torch's and its own: `torch.save` writes it, and loading needs no stonefx.

    Tied weights stay tied. Layers under int8 hold weights of torchao, which must be there to load them.

    Args:
        model: what `compress` returned.

    Returns:
        A copy.

    Raises:
        TypeError: it holds a layer of this package that torch has no equal of.

    >>> import torch, stonefx
    >>> model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    >>> small, stats = stonefx.compress(model, energy=0.5, forms=["pair"])
    >>> {type(module).__module__.split(".")[0] for module in plain(small).modules()}
    {'torch'}
    """
    copied = copy.deepcopy(model)
    made: dict[int, nn.Module] = {}
    if (replaced := _plain_layer(copied, made)) is not copied:
        return replaced
    for module in list(copied.modules()):
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = _plain_layer(child, made)
    for path, module in copied.named_modules():
        if type(module).__module__.partition(".")[0] == "stonefx":
            raise TypeError(
                f"plain: {path or 'the model'} is a {type(module).__name__} of stonefx, which torch has no equal of; "
                "save the model where stonefx is installed: torch.save(model, path)"
            )
    return copied


def _plain_layer(layer: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    if id(layer) not in made:
        make = getattr(layer, "plain", None)
        if type(layer).__module__.partition(".")[0] != "stonefx":
            made[id(layer)] = layer
        elif callable(make):
            made[id(layer)] = make().train(layer.training)
        elif isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
            made[id(layer)] = nn.Sequential(*layer).train(layer.training)
        else:
            made[id(layer)] = layer
    return made[id(layer)]
