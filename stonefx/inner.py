"""What runs a rewritten graph: eager, AOT autograd alone, or inductor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import fx
from torch._dynamo.exc import TensorifyScalarRestartAnalysis

from .passes.pipeline import copy_graph
from .tracing.functions import with_functions

Compiled = Callable[..., Any]
_MOST_SIZES = 8


def compile_inner(
    module: fx.GraphModule, inputs: Sequence[Any], inner: str, mode: str | None = None
) -> Compiled:
    """Hand a rewritten graph to what will run it.

    Args:
        module: the graph; it is not used again by the caller.
        inputs: one example a placeholder: tensors, fake tensors or sizes.
        inner: "eager", "aot_eager" or "inductor".
        mode: a mode of `torch.compile`, such as "max-autotune"; only inductor has modes.

    Returns:
        A callable that takes the placeholders' values one by one and returns the graph's flat outputs.
    """
    run = {"eager": _eager, "aot_eager": _aot_eager, "inductor": _inductor}[inner]
    try:
        return run(module, inputs, mode)
    except TensorifyScalarRestartAnalysis:
        # Numbers in float64 are symbols until AOT autograd asks to start again with their values; it is Dynamo that
        # does so where it is under way.
        if torch._guards.TracingContext.try_get() is not None:
            raise
        return run(module, inputs, mode)


def compile_later(module: fx.GraphModule, inner: str, mode: str | None = None) -> Compiled:
    """Hand a graph of Dynamo's to what will run it at its first call, which may never come.

    Inductor compiles it for the sizes that come, a few of them, since what it would assume of sizes that vary could no
    longer become a guard; calls of more sizes run the graph as it is.

    Args:
        module: the graph as Dynamo made it; it is left as it is.
        inner, mode: as of `compile_inner`; without inductor the graph runs as it is.
    """
    if inner != "inductor":
        return module.forward
    compiled: dict[Hashable, Compiled] = {}
    compiling = threading.Lock()

    def run(*inputs: Any) -> Any:
        sizes = tuple(
            (each.shape, each.stride()) if isinstance(each, torch.Tensor) else each for each in inputs
        )
        if sizes not in compiled:
            with compiling:
                if sizes not in compiled and len(compiled) < _MOST_SIZES:
                    copy = fx.GraphModule(module, copy_graph(module.graph))
                    compiled[sizes] = compile_inner(copy, inputs, inner, mode)
        return compiled.get(sizes, module.forward)(*inputs)

    return run


def _eager(module: fx.GraphModule, inputs: Sequence[Any], mode: str | None) -> Compiled:
    return with_functions(module).forward


def _aot_eager(module: fx.GraphModule, inputs: Sequence[Any], mode: str | None) -> Compiled:
    from functorch.compile import aot_module_simplified, make_boxed_func, min_cut_rematerialization_partition

    def run_as_is(graph: fx.GraphModule, _: Any) -> Any:
        return make_boxed_func(graph.forward)

    return aot_module_simplified(
        module,
        inputs,
        fw_compiler=run_as_is,
        bw_compiler=run_as_is,
        partition_fn=min_cut_rematerialization_partition,
        keep_inference_input_mutations=True,
    )


def _inductor(module: fx.GraphModule, inputs: Sequence[Any], mode: str | None) -> Compiled:
    from torch._inductor import list_mode_options
    from torch._inductor.compile_fx import compile_fx

    for node in module.graph.find_nodes(op="placeholder"):
        # A graph whose inputs carry values is taken for an exported one, in which no size is an input.
        node.meta.pop("val", None)
    compiled: Any = compile_fx(module, inputs, config_patches=list_mode_options(mode) if mode else None)
    return compiled


def static_fake(tensor: torch.Tensor) -> torch.Tensor:
    """A fake of a fold for the compile that is under way: its sizes never become symbols."""
    context = torch._guards.TracingContext.try_get()
    if context is None or context.fake_mode is None:
        return tensor
    return context.fake_mode.from_tensor(tensor, static_shapes=True)
