"""What takes a layer's place: it answers for the layer's attributes, its weight included."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn


class DeferredWeight(Tensor):
    """A weight whose type, device and shape are known and whose values are computed where somebody needs them.

    Models ask `layer.weight.dtype` in every call; a product of factors each time would cost more than the layer.
    """

    compute: Callable[[], Tensor]

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Facts without the values; all else on the values."""
        if func in _FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return func(*_values(args), **_values(kwargs or {}))


_FACTS = {
    *(
        getattr(Tensor, name).__get__
        for name in ("dtype", "device", "shape", "ndim", "layout", "requires_grad", "is_cuda", "is_meta")
    ),
    *(
        getattr(Tensor, name)
        for name in (
            "size",
            "dim",
            "numel",
            "element_size",
            "is_floating_point",
            "get_device",
            "is_complex",
            "__len__",
        )
    ),
}


def _values(value: Any) -> Any:
    if isinstance(value, DeferredWeight):
        return value.compute()
    if isinstance(value, dict):
        return {k: _values(v) for k, v in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(_values, value))
    return value


def deferred(
    shape: tuple[int, ...], like: Tensor, compute: Callable[[], Tensor], reader: nn.Module | None = None
) -> Tensor:
    """`compute()`, at once where a program is being traced, else when its values are needed.

    Args:
        shape: of the weight.
        like: a tensor of its dtype and device.
        compute: the values.
        reader: the module whose weight it is; it remembers that it was asked for, see `read`.

    >>> deferred((2, 3), torch.ones(1), lambda: torch.full((2, 3), 4.0)).sum()
    tensor(24.)
    """
    if torch.compiler.is_compiling():
        return compute()
    if reader is not None:
        vars(reader).setdefault(_READ, "facts")
        compute = partial(_noted, reader, compute)
    with torch.no_grad():
        # Of a quantised weight too, which makes none like itself.
        empty = torch.empty((), dtype=like.dtype, device=like.device)
        made = empty.expand(shape).as_subclass(DeferredWeight)
    made.compute = compute
    return made


_READ = "_weight_read"


def _noted(reader: nn.Module, compute: Callable[[], Tensor]) -> Tensor:
    vars(reader)[_READ] = "values"
    return compute()


def read(module: nn.Module) -> str | None:
    """What the model has asked of a module's weight so far: "facts" as its dtype, "values", or None."""
    found: str | None = vars(module).get(_READ)
    return found


class WeightOfMap(nn.Module):
    """A layer of vectors that knows the matrix it stands for: `weight`, laid out as in the layer it replaces."""

    transposed = False

    @property
    def weight(self) -> Tensor:
        """`[out, in]`, or `[in, out]` for transformers' Conv1D."""
        first = next(self.parameters())
        facts: Any = self
        columns, rows = (facts.nx, facts.nf) if self.transposed else (facts.in_features, facts.out_features)

        def compute() -> Tensor:
            points = torch.eye(columns, dtype=first.dtype, device=first.device)
            matrix = self(points) - self(torch.zeros_like(points[:1]))
            return matrix if self.transposed else matrix.t()

        return deferred((columns, rows) if self.transposed else (rows, columns), first, compute, self)


class Factors(WeightOfMap, nn.Sequential):
    """Layers in a row that stand for one linear layer."""

    @property
    def bias(self) -> Any:
        """Of the layer that these stand for."""
        return getattr(self[-1], "bias", None)

    def plain(self) -> nn.Sequential:
        """The same layers in a row, which torch has; see `saving.plain`."""
        return nn.Sequential(*self).train(self.training)


def standing_in(module: nn.Module, layer: nn.Module) -> nn.Module:
    """`module` in the place of `layer`: with its plain attributes, its dtype, device and mode, and trained as little.

    Models read `layer.stride` or `layer.in_features` of their parts.
    """
    weight = next(p for p in layer.parameters() if p.dim() > 1)
    answering(module, layer)
    return module.to(weight.device, weight.dtype).train(layer.training).requires_grad_(weight.requires_grad)


def answering(module: nn.Module, layer: nn.Module) -> nn.Module:
    """`module` with the plain attributes of `layer`."""
    for name, value in vars(layer).items():
        hidden = name.startswith("_") or name == "training" or hasattr(type(module), name)
        if not hidden and not isinstance(value, (Tensor, nn.Module)):
            module.__dict__.setdefault(name, value)
    if isinstance(module, WeightOfMap):
        module.transposed = hasattr(layer, "nf")
    return module


class _Whole(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def traced(module: nn.Module, constants: Mapping[str, Any] | None = None) -> fx.GraphModule:
    """A module whose forward is operators of torch, as one of torch: its parameters, attributes and mode.

    Args:
        module: what is traced; with `constants` its parts stay modules.
        constants: arguments that have one value in all calls.
    """
    graph = fx.Tracer().trace(module) if constants is None else _Whole().trace(module, dict(constants))
    for node in list(graph.nodes):
        if getattr(node.target, "__name__", "") == "_assert_is_none":
            # That function of fx cannot be traced a second time, as loading does; nor can `is`.
            with graph.inserting_before(node):
                is_none = graph.call_function(operator.eq, (node.args[0], None))
                graph.call_function(torch._assert, (is_none, node.args[1]))
            graph.erase_node(node)
            continue
        # Annotations are names here, which a saved graph cannot import.
        node.type = None
        if node.op == "placeholder" and constants and (name := node.target.rpartition("_")[0]) in constants:
            node.target = name
    made = fx.GraphModule(module, graph, "Plain")
    return answering(made, module).train(module.training)  # type: ignore[return-value]
