"""Which layers feed which, read from the model's captured graph."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, fx, nn

from stonefx.capture import Capture, capturable_submodules, from_module
from stonefx.passes.graph.nodes import module_path
from stonefx.tracing.errors import first_line

from .data import Batch, device_of

EXAMPLE = 2
"""Samples that the example call has."""


@dataclass(frozen=True)
class Structure:
    """The graphs of a model and what stands behind their nodes.

    Attributes:
        model: that was captured.
        calls: path of the layer by the node of its call: layers called once, as modules, whose weights nothing else
            reads.
        holders: path of the module and name in it, by the placeholder of a parameter or buffer.
        notes: what could not be read, and why.
    """

    model: nn.Module
    calls: dict[fx.Node, str] = field(default_factory=dict)
    holders: dict[fx.Node, tuple[str, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def layer(self, node: fx.Node) -> Any:
        """The layer that a node is the plain call of; None for other nodes."""
        path = self.calls.get(node)
        return None if path is None else self.model.get_submodule(path)


class Tensors(nn.Module):
    """A model that returns the tensors of its result alone, so that caches and the like do not stop a capture."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """The tensors of the model's result."""
        return tuple(tensors(self.model(*args, **kwargs)))


def tensors(value: Any) -> list[Tensor]:
    """All tensors in tuples, lists and mappings.

    >>> len(tensors({"a": torch.ones(1), "b": [torch.ones(1), None]}))
    2
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [t for entry in value.values() for t in tensors(entry)]
    if isinstance(value, (tuple, list)):
        return [t for entry in value for t in tensors(entry)]
    return []


def example(model: nn.Module, batch: Batch | None) -> Batch | None:
    """A small call of the model; without data one is made where the first layer says what it takes."""
    if batch is not None:
        return batch.take(list(range(min(EXAMPLE, batch.samples))))
    first = model
    while isinstance(first, nn.Sequential) and len(first):
        first = first[0]
    if first is model or not isinstance(first, nn.Linear):
        return None
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EXAMPLE, first.in_features, generator=generator).to(first.weight.dtype)
    return Batch((x,), samples=EXAMPLE)


def without_cache(model: nn.Module, batch: Batch) -> Batch:
    """The call without the cache that models which generate text return: blocks called again would add to it."""
    if "use_cache" not in inspect.signature(model.forward).parameters:
        return batch
    return replace(batch, kwargs={"use_cache": False, **batch.kwargs})


def read(model: nn.Module, batch: Batch) -> Structure:
    """The structure of a model on an example call; where it cannot be captured whole, that of its largest parts."""
    batch = batch.on(device_of(model))
    structure = Structure(model)
    for prefix, capture in _captures(model, batch, structure.notes):
        _add(structure, prefix, capture)
    if structure.calls:
        times = Counter(called(model, batch, set(structure.calls.values())))
        for node in [n for n, path in structure.calls.items() if times[path] != 1]:
            del structure.calls[node]
    return structure


def among(model: nn.Module, chosen: str | Iterable[str] | None) -> set[str]:
    """Paths of the modules that `layers=` names; of all of them where it is None."""
    patterns = ["*"] if chosen is None else [chosen] if isinstance(chosen, str) else list(chosen)
    names: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        names.setdefault(id(module), []).append(path)
    return {
        group[0] for group in names.values() if any(fnmatchcase(name, p) for name in group for p in patterns)
    }


def value(node: Any) -> Tensor:
    """The example value of a node: its shape and dtype."""
    found: Tensor = node.meta["val"]
    return found


def _captures(model: nn.Module, batch: Batch, notes: list[str]) -> Iterator[tuple[str, Capture]]:
    kwargs = without_cache(model, batch).kwargs
    reasons = []
    for prefix, whole in (("", model), ("model", Tensors(model))):
        try:
            yield prefix, from_module(whole, batch.args, kwargs, dynamic=False)
            return
        except Exception as error:
            reasons.append(first_line(error))
    try:
        parts, _ = capturable_submodules(model, batch.args, kwargs, dynamic=False)
    except Exception as error:
        notes.append(f"which layers feed which could not be read: {type(error).__name__}: {error}")
        return
    notes.append(
        f"the model is no single graph ({reasons[0]}); layers are made smaller together only within "
        f"{len(parts)} parts of it"
    )
    for path, capture, _, _ in parts:
        yield f".{path}", capture


def _add(structure: Structure, prefix: str, capture: Capture) -> None:
    """Read one graph; `prefix` is "model" where the model is the one entry of a wrapper, or "." and a path in it."""

    def full(path: str) -> str:
        if prefix.startswith("."):
            return f"{prefix[1:]}.{path}" if path else prefix[1:]
        return path.removeprefix(prefix).removeprefix(".") if prefix else path

    model = structure.model
    first = {id(module): path for path, module in model.named_modules()}
    by_path = {path: first[id(module)] for path, module in model.named_modules(remove_duplicate=False)}
    held: dict[int, list[tuple[str, str]]] = {}
    for path, module in model.named_modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            held.setdefault(id(tensor), []).append((path, name))
    for node in capture.module.graph.find_nodes(op="placeholder"):
        name = capture.weights.get(node.name)
        if name is None:
            continue
        owner, _, attribute = full(name).rpartition(".")
        tensor = getattr(model.get_submodule(owner), attribute)
        holders = held.get(id(tensor), [])
        if len(holders) == 1:
            structure.holders[node] = holders[0]
    for node in capture.module.graph.nodes:
        if node.op != "call_function":
            continue
        path = by_path.get(full(module_path(node)))
        if path is not None and _is_plain(structure, node, path):
            structure.calls[node] = path


_LAYERS: dict[type[nn.Module], tuple[Any, int]] = {
    nn.Linear: (torch.ops.aten.linear.default, 1),
    nn.Conv1d: (torch.ops.aten.conv1d, 1),
    nn.Conv2d: (torch.ops.aten.conv2d, 1),
    nn.Conv3d: (torch.ops.aten.conv3d, 1),
    nn.BatchNorm1d: (torch.ops.aten.batch_norm.default, 1),
    nn.BatchNorm2d: (torch.ops.aten.batch_norm.default, 1),
    nn.BatchNorm3d: (torch.ops.aten.batch_norm.default, 1),
    nn.LayerNorm: (torch.ops.aten.layer_norm.default, 2),
}
"""The operator that each kind of layer is one call of, and where its weights begin among the arguments."""


def _is_plain(structure: Structure, node: fx.Node, path: str) -> bool:
    """The node is all that the module at `path` does, and nothing else reads the module's weights."""
    module = structure.model.get_submodule(path)
    known = _LAYERS.get(type(module))
    if known is None or module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
        return False
    target, start = known
    if node.target is not target and getattr(node.target, "overloadpacket", None) is not target:
        return False
    own = {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
    own.pop("num_batches_tracked", None)
    read = [a for a in node.args[start:] if isinstance(a, fx.Node)]
    read += [a for a in node.kwargs.values() if isinstance(a, fx.Node)]
    names = {structure.holders.get(a) for a in read}
    return names == {(path, name) for name in own} and all(set(a.users) == {node} for a in read)


def called(model: nn.Module, batch: Batch, paths: Iterable[str]) -> list[str]:
    """Those of `paths` that one call of the model calls, in that order, each as often as it is called."""
    order: list[str] = []

    def hook(path: str) -> Callable[..., None]:
        return lambda module, args: order.append(path)

    handles = [model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
    try:
        with torch.no_grad():
            batch.call(model)
    finally:
        for handle in handles:
            handle.remove()
    return order
