"""A compressed model of transformers as a folder that transformers loads without this package."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from . import folder_model
from .saving import plain

FILE = "modeling_compressed"
_NAMES = ("torch", "device", "inf", "nan")


def save_transformers(model: nn.Module, folder: str | os.PathLike[str]) -> Path:
    """Write a compressed model of transformers as a folder for `from_pretrained(folder, trust_remote_code=True)`.

    The folder holds the weights as safetensors, the configuration with a description of each layer that was replaced,
    and one file of code that needs torch and transformers alone (and torchao, where layers are int8). It appears at
    once or not at all. Save the tokenizer beside it: `tokenizer.save_pretrained(folder)`.

    Args:
        model: what `compress` returned for a model of transformers.
        folder: new or empty.

    Returns:
        The folder.

    Raises:
        TypeError: the model is none of transformers, is defined outside of it, or has a layer without a description.
        FileExistsError: the folder holds files.
        FileNotFoundError: the folder above does not exist.
    """
    target = Path(folder)
    base = type(model)
    config = getattr(model, "config", None)
    if not base.__module__.startswith("transformers.models.") or config is None:
        raise TypeError(
            f"save_transformers: expected a model whose class is part of transformers, got a {base.__name__} of "
            f"{base.__module__}; use torch.save(stonefx.compress.plain(model), path)"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and is not empty; name a new folder")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"cannot write {target}: there is no folder {target.absolute().parent}; create it first"
        )
    stored = plain(model)
    with torch.device("meta"):
        original = base(copy.deepcopy(config))
    graphs: list[str] = []
    layers: dict[str, Any] = {}
    first: dict[nn.Module, str] = {}
    for path, module in list(_changed(original, stored)):
        if module in first:
            # One module in two places, which is stored once.
            layers[path] = {"class": "Same", "arguments": {"path": first[module]}}
            parent, _, name = path.rpartition(".")
            setattr(stored.get_submodule(parent), name, nn.Identity())
        else:
            layers[path] = _description(module, path, graphs)
            first[module] = path
    for path, module in list(stored.named_modules()):
        if _is_int8(module):
            parent, _, name = path.rpartition(".")
            setattr(stored.get_submodule(parent), name, _int8_holder(module))
    temporary = Path(tempfile.mkdtemp(dir=target.absolute().parent, prefix=f".{target.name}.", suffix=".tmp"))
    try:
        stored.save_pretrained(temporary)  # type: ignore[operator]
        name = f"Compressed{base.__name__}"
        configuration = temporary / "config.json"
        document = json.loads(configuration.read_text())
        document["architectures"] = [name]
        document["auto_map"] = dict.fromkeys(_auto_classes(model), f"{FILE}.{name}")
        document["compression"] = layers
        configuration.write_text(json.dumps(document, indent=2) + "\n")
        (temporary / f"{FILE}.py").write_text(_code(base, name, graphs))
        temporary.chmod(0o755)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _changed(original: nn.Module, model: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost modules of `model` that are not what the configuration makes."""
    if _signature(original) != _signature(model):
        yield path, model
        return
    for name, child in model.named_children():
        yield from _changed(getattr(original, name), child, f"{path}.{name}" if path else name)


def _signature(module: nn.Module) -> Any:
    tensors = {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    return type(module), shapes, [name for name, _ in module.named_children()], _is_int8(module)


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
        children = {name: _description(child, path, graphs) for name, child in module.named_children()}
        found = {"class": "Sequential", "arguments": children}
        weight = module._buffers.get("weight")
        return found if weight is None else {**found, "weight": list(weight.shape)}
    if isinstance(module, fx.GraphModule):
        return {"class": "Graph", "arguments": _graph(module, path, graphs)}
    if kind == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        nx, nf = module.weight.shape  # type: ignore[misc]
        return {"class": "Conv1D", "arguments": {"nf": int(nf), "nx": int(nx)}}
    names = folder_model.LAYERS.get(kind)
    if names is None or type(module) is not getattr(nn, kind):
        raise TypeError(
            f"save_transformers: {path or 'the model'} became a {kind}, which has no description; known are "
            f"{', '.join(folder_model.LAYERS)}; use torch.save(stonefx.compress.plain(model), path)"
        )
    arguments = {name: getattr(module, name) for name in names}
    if hasattr(module, "bias") and "affine" not in arguments:
        arguments["bias"] = module.bias is not None
    return {"class": kind, "arguments": arguments}


def _graph(module: fx.GraphModule, path: str, graphs: list[str]) -> dict[str, Any]:
    code = module.graph.python_code("self")
    foreign = [name for name in code.globals if name not in _NAMES and re.search(rf"\b{name}\b", code.src)]
    if foreign:
        raise TypeError(
            f"save_transformers: {path} is a graph that uses {', '.join(foreign)}, which the folder has not"
        )
    if code.src not in graphs:
        graphs.append(code.src)

    def tensors(named: Any) -> dict[str, Any]:
        return {name: (list(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in named}

    return {
        "code": graphs.index(code.src),
        "parameters": tensors(module.named_parameters(recurse=False)),
        "buffers": tensors(module.named_buffers(recurse=False)),
        "children": {name: _description(child, path, graphs) for name, child in module.named_children()},
    }


def _is_int8(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and hasattr(module.weight, "__tensor_flatten__")


def _int8_holder(linear: Any) -> nn.Module:
    holder = folder_model.Int8Linear(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        linear.weight.act_quant_kwargs is not None,
    )
    weight = linear.weight
    holder.qdata, holder.scale = weight.qdata, weight.scale
    if isinstance(weight.zero_point, Tensor):
        holder.zero_point = weight.zero_point
    if linear.bias is not None:
        holder.bias = linear.bias
    return holder.train(linear.training)


def _auto_classes(model: nn.Module) -> list[str]:
    from transformers.models.auto import modeling_auto

    found = []
    for name in dir(modeling_auto):
        mapping = getattr(getattr(modeling_auto, name), "_model_mapping", None)
        if not name.startswith("AutoModel") or mapping is None:
            continue
        classes = mapping.get(type(model.config), ())
        if type(model) in (classes if isinstance(classes, (tuple, list)) else (classes,)):
            found.append(name)
    return found or ["AutoModel"]


def _code(base: type, name: str, graphs: list[str]) -> str:
    parts = [Path(folder_model.__file__).read_text().rstrip()]
    if graphs:
        parts.append("from torch import device, inf, nan  # noqa: E402, F401")
    for i, source in enumerate(graphs):
        body = "\n".join(f"    {line}" if line else "" for line in source.strip().splitlines())
        parts.append(f"class Graph{i}(Graph):\n{body}\n\n\nGRAPHS[{i}] = Graph{i}")
    parts.append(
        f"from {base.__module__} import {base.__name__}  # noqa: E402\n\n\n"
        f"class {name}({base.__name__}):\n"
        "    def __init__(self, config, *args, **kwargs):\n"
        "        super().__init__(config, *args, **kwargs)\n"
        "        put(self, config.compression)\n\n"
        "    def _tie_or_clone_weights(self, output_embeddings, input_embeddings):\n"
        "        # One module in two places is tied as it is.\n"
        "        if output_embeddings is not input_embeddings:\n"
        "            super()._tie_or_clone_weights(output_embeddings, input_embeddings)"
    )
    return "\n\n\n".join(parts) + "\n"
