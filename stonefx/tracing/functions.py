"""Custom functions and checkpoints of a captured graph as plain calls, for a graph that runs as it stands.

The operators themselves are for compilers: called, each makes a new class or interpreter for its body.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.utils.checkpoint import checkpoint

from .opaque import copy_of, erase_unused_attributes, is_checkpoint, is_custom_function, without_switches


class CustomFunction:
    """Calls a custom autograd function that Dynamo traced: its body, and where a gradient is wanted its backward.

    Args:
        forward: body of `(*operands) -> (results, saved)`.
        backward: body of `(*gradients, *saved) -> gradients of the operands`.
        non_differentiable: numbers of the results that have no gradient.
        checked: numbers of the saved values that nobody may write to until the backward.
    """

    __name__ = "custom_function"

    def __init__(
        self,
        forward: fx.GraphModule,
        backward: fx.GraphModule,
        non_differentiable: list[int],
        checked: list[int],
    ) -> None:
        body, gradient = without_switches(forward).forward, without_switches(backward).forward
        guarded = frozenset(checked)

        class Function(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, *operands: Any) -> Any:
                results, saved = body(*operands)
                tensors = [
                    i for i, value in enumerate(saved) if isinstance(value, torch.Tensor) and i in guarded
                ]
                ctx.save_for_backward(*(saved[i] for i in tensors))
                ctx.tensors = tensors
                ctx.others = [None if i in tensors else value for i, value in enumerate(saved)]
                if non_differentiable:
                    ctx.mark_non_differentiable(*(results[i] for i in non_differentiable))
                return results

            @staticmethod
            def backward(ctx: Any, *gradients: Any) -> Any:
                saved = list(ctx.others)
                for i, tensor in zip(ctx.tensors, ctx.saved_tensors, strict=True):
                    saved[i] = tensor
                return gradient(*gradients, *saved)

        self._apply: Callable[..., Any] = Function.apply
        self._body: Callable[..., Any] = body

    def __call__(self, *operands: Any) -> Any:
        """The results, as a tuple."""
        if torch.is_grad_enabled() and any(isinstance(x, torch.Tensor) and x.requires_grad for x in operands):
            return self._apply(*operands)
        return self._body(*operands)[0]


class Checkpoint:
    """Calls a body, and where a gradient is wanted keeps nothing of it but its operands.

    Args:
        body: of `(*operands) -> results`.
        options: of `torch.utils.checkpoint.checkpoint`.
    """

    __name__ = "checkpoint"

    def __init__(self, body: fx.GraphModule, options: dict[str, Any]) -> None:
        self._body: Callable[..., Any] = body.forward
        self._options = options

    def __call__(self, *operands: Any) -> Any:
        """The results, as a tuple."""
        if torch.is_grad_enabled():
            return checkpoint(self._body, *operands, **self._options)
        return self._body(*operands)


def with_functions(module: fx.GraphModule) -> fx.GraphModule:
    """The graph with plain calls in the place of its custom functions and checkpoints; itself where it has none."""
    found = [node.name for node in module.graph.nodes if is_custom_function(node) or is_checkpoint(node)]
    if not found:
        return module
    result = fx.GraphModule(module, copy_of(module.graph))
    nodes = {node.name: node for node in result.graph.nodes}
    for node in map(nodes.__getitem__, found):
        if is_checkpoint(node):
            body = getattr(module, str(node.args[0].target))
            call: Callable[..., Any] = Checkpoint(body, {"use_reentrant": False} | node.kwargs)
            node.args = node.args[1:]
        else:
            forward, backward = (getattr(module, str(argument.target)) for argument in node.args[:2])
            checked = node.kwargs.get("saved_for_backward_idx") or []
            call = CustomFunction(forward, backward, node.kwargs["non_differentiable_idx"], checked)
            node.args = node.args[2:]
        node.target, node.kwargs = call, {}
    erase_unused_attributes(result.graph)
    result.recompile()
    return result
