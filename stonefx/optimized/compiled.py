"""A graph compiled ahead of time by AOT autograd or inductor, one variant for each set of wanted gradients."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from ..inner import compile_inner
from ..passes.lower import LOWER
from ..passes.pipeline import copy_graph, run_named
from ..passes.site import Context


class CompiledGraph:
    """Compiles a graph at the first call that needs it, anew for each set of inputs that want a gradient.

    Args:
        module: the rewritten graph, not lowered; its fake values say which sizes may vary.
        inner: "aot_eager" or "inductor".
        inference: the graph for calls that want no gradient, where that is another.
    """

    def __init__(self, module: fx.GraphModule, inner: str, inference: fx.GraphModule | None = None) -> None:
        self.module = module
        self.inference = inference or module
        self.inner = inner
        self.variants: dict[tuple[bool, ...], Callable[..., Any]] = {}
        self.lock = threading.Lock()

    def __call__(self, *values: Any) -> Any:
        """Run the graph on the values of its placeholders; returns its flat outputs."""
        if torch.compiler.is_exporting():
            # The exporter traces operations; compiled code would hide them.
            return self._lowered(torch.is_grad_enabled())(*values)
        wanted: tuple[bool, ...] = ()
        if torch.is_grad_enabled():
            wanted = tuple(isinstance(value, torch.Tensor) and value.requires_grad for value in values)
        variant = self.variants.get(wanted)
        if variant is None:
            with self.lock:
                variant = self.variants.get(wanted) or self.variants.setdefault(wanted, self._compile(wanted))
        return variant(*values)

    def _lowered(self, grad: bool) -> fx.GraphModule:
        subject = self.module if grad else self.inference
        module = fx.GraphModule(subject, copy_graph(subject.graph))
        # The graph is no longer Dynamo's, whose facts about it do not hold here.
        module.meta.clear()
        if not grad:  # else the end of a region without gradients would switch them on for the caller
            for node in module.graph.find_nodes(op="call_function", target=torch._C._set_grad_enabled):
                module.graph.erase_node(node)
        run_named(LOWER, module, Context(grad=grad, inner=self.inner))
        module.recompile()
        return module

    def _compile(self, wanted: tuple[bool, ...]) -> Callable[..., Any]:
        module = self._lowered(any(wanted))
        fakes = [node.meta["val"] for node in module.graph.find_nodes(op="placeholder")]
        if any(wanted):
            fakes = [
                fake.detach().requires_grad_(grad) if isinstance(fake, torch.Tensor) else fake
                for fake, grad in zip(fakes, wanted, strict=True)
            ]
        with torch.set_grad_enabled(any(wanted)):
            return compile_inner(module, fakes, self.inner)
