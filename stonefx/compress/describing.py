"""The layers of a compressed model that its own code does not make, as plain values and code of torch alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import fx, nn

from . import folder_model

FILE = "modeling_compressed"
_NAMES = ("torch", "device", "inf", "nan")


@dataclass(frozen=True)
class Described:
    """What `folder_model.put` is given.

    Attributes:
        layers: by path.
        graphs: sources of forwards that layers have.
    """

    layers: dict[str, Any]
    graphs: list[str]


def described(original: nn.Module, stored: nn.Module) -> Described:
    """All layers of `stored`, which are torch's, that differ from those of `original`.

    Raises:
        TypeError: one of them has no description.
    """
    found = Described({}, [])
    first: dict[nn.Module, str] = {}
    for path, module in _changed(original, stored):
        if module in first:
            # One module in two places, which is stored once.
            found.layers[path] = {"class": "Same", "arguments": {"path": first[module]}}
        else:
            found.layers[path] = _description(module, path, found.graphs)
            first[module] = path
    return found


def code(described: Described, model: str = "") -> str:
    """The file that makes the layers, with the code of a `model` at its end."""
    parts = [Path(folder_model.__file__).read_text(encoding="utf-8").rstrip()]
    if described.graphs:
        parts.append("from torch import device, inf, nan  # noqa: E402, F401")
    for i, source in enumerate(described.graphs):
        body = "\n".join(f"    {line}" if line else "" for line in source.strip().splitlines())
        parts.append(f"class Graph{i}(Graph):\n{body}\n\n\nGRAPHS[{i}] = Graph{i}")
    return "\n\n\n".join([*parts, model] if model else parts) + "\n"


def _changed(original: nn.Module, model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules of `model` that are not what the configuration makes."""
    if _signature(original) != _signature(model):
        yield path, model
        return
    # A module that its parent has twice too: both names are written.
    for name, child in _children(model):
        yield from _changed(getattr(original, name), child, f"{path}.{name}" if path else name)


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, child) for name, child in module._modules.items() if child is not None]


def _signature(module: nn.Module) -> Any:
    tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return type(module), shapes, [name for name, _ in _children(module)], _is_int8(module)


def _description(module: nn.Module, path: str, graphs: list[str]) -> dict[str, Any]:
    kind = type(module).__name__
    if _is_int8(module):
        arguments: dict[str, Any] = {
            "inputs": module.in_features,
            "outputs": module.out_features,
            "bias": module.bias is not None,
            "dynamic": module.weight.act_quant_kwargs is not None,  # type: ignore[union-attr]
        }
        return {"class": "Int8Linear", "arguments": arguments}
    if type(module) is nn.Sequential:
        children = {name: _description(child, path, graphs) for name, child in _children(module)}
        found = {"class": "Sequential", "arguments": children}
        weight = module._buffers.get("weight")
        found["facts"] = _facts(module)
        return found if weight is None else {**found, "weight": list(weight.shape)}
    if isinstance(module, fx.GraphModule):
        return {"class": "Graph", "arguments": _graph(module, path, graphs), "facts": _facts(module)}
    if kind == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        nx, nf = module.weight.shape  # type: ignore[misc]
        return {"class": "Conv1D", "arguments": {"nf": int(nf), "nx": int(nx)}}
    names = folder_model.LAYERS.get(kind)
    if names is None or type(module) is not getattr(nn, kind):
        raise TypeError(
            f"{path or 'the model'} became a {kind}, which has no description; known are "
            f"{', '.join(folder_model.LAYERS)}; use torch.save(stonefx.compress.plain(model), path)"
        )
    arguments = {name: getattr(module, name) for name in names}
    if hasattr(module, "bias") and "affine" not in arguments:
        arguments["bias"] = module.bias is not None and module.bias is not False
    return {"class": kind, "arguments": arguments}


def _facts(module: nn.Module) -> dict[str, Any]:
    """Plain attributes, such as `in_features`, of the layer that a module stands in for."""

    def is_plain(value: Any) -> bool:
        if isinstance(value, (list, tuple)):
            return all(map(is_plain, value))
        return value is None or isinstance(value, (bool, int, float, str))

    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and is_plain(value)
    }


def _graph(module: fx.GraphModule, path: str, graphs: list[str]) -> dict[str, Any]:
    code = module.graph.python_code("self")
    foreign = [name for name in code.globals if name not in _NAMES and re.search(rf"\b{name}\b", code.src)]
    if foreign:
        raise TypeError(f"{path} is a graph that uses {', '.join(foreign)}, which the folder has not")
    if code.src not in graphs:
        graphs.append(code.src)

    def tensors(named: Any) -> dict[str, Any]:
        return {name: (list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in named}

    return {
        "code": graphs.index(code.src),
        "parameters": tensors(module.named_parameters(recurse=False)),
        "buffers": tensors(module.named_buffers(recurse=False)),
        "children": {name: _description(child, path, graphs) for name, child in _children(module)},
    }


def _is_int8(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and hasattr(module.weight, "__tensor_flatten__")
