"""A Dynamo graph into the graph language: retraced node by node, then cleaned of constants and mutation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import traceback as fx_traceback
from torch.fx.experimental.proxy_tensor import make_fx

from .constants import check_constants, fake_constants, inline_scalars
from .errors import CaptureError, capture_error
from .interpreter import Retrace
from .metadata import carry_dynamo_meta
from .mutation import remove_mutation
from .opaque import bodies
from .state import restored_state
from .subclasses import is_subclass, plain_parts


def from_dynamo(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any] | None = None,
    *,
    verbatim: bool = False,
    inline_checkpoints: bool = False,
) -> fx.GraphModule:
    """Retrace a graph of Dynamo's into functional pre-dispatch ATen with fake values, before autograd.

    The placeholders keep their order. Those that are parameters or buffers carry their fully qualified name
    in `meta["weight"]`. Dynamo's own metadata is carried over, so that `compile_fx` accepts the result. Grad
    mode, autocast and functorch nesting are as before the call, also when it raises. `gm` is not changed.

    Args:
        gm: what a `torch.compile` backend receives.
        example_inputs: what it receives with it; read only where a placeholder has no fake tensor.
        verbatim: copy what the graph language has no words for, such as nodes that touch tensor subclasses, as Dynamo
            has it: such nodes are marked (`verbatim.is_verbatim`), and whatever takes Dynamo's graphs takes the result.
        inline_checkpoints: look into checkpoints also where a gradient may be wanted, see `Retrace`.

    Raises:
        CaptureError: the graph holds something that the graph language cannot say.
    """
    try:
        return _retrace(gm, example_inputs, verbatim, inline_checkpoints)
    except CaptureError:
        raise
    except Exception as error:
        raise capture_error(
            "the graph cannot be retraced",
            "Exclude this code with torch.compiler.disable, or report it.",
            "",
            error,
        ) from error


def _retrace(
    gm: fx.GraphModule, example_inputs: Sequence[Any] | None, verbatim: bool, inline_checkpoints: bool
) -> fx.GraphModule:
    fakes = _fake_inputs(gm, example_inputs, verbatim)
    parts = (part for fake in fakes if isinstance(fake, torch.Tensor) for part in plain_parts(fake))
    fake_mode = next((part.fake_mode for part in parts if isinstance(part, FakeTensor)), None)
    shape_env = fake_mode.shape_env if fake_mode else None
    retrace = Retrace(gm, shape_env, verbatim=verbatim, inline_checkpoints=inline_checkpoints)
    devices = {"cpu"} | {fake.device.type for fake in fakes if isinstance(fake, torch.Tensor)}
    with (
        restored_state(devices),
        fake_mode or nullcontext(),
        torch._guards.tracing(None),
        fx_traceback.preserve_node_meta(),
    ):
        traced = make_fx(retrace.run, pre_dispatch=True)(*fakes)
    for graph in (*bodies(traced), traced):
        check_constants(graph)
        inline_scalars(graph)
        if fake_mode is not None:
            fake_constants(graph, fake_mode)
        if graph is traced:
            carry_dynamo_meta(gm, traced)
        remove_mutation(graph)
        graph.graph.lint()
        graph.recompile()
    return traced


def _fake_inputs(gm: fx.GraphModule, example_inputs: Sequence[Any] | None, subclasses: bool) -> list[Any]:
    placeholders = gm.graph.find_nodes(op="placeholder")
    fakes = []
    for i, node in enumerate(placeholders):
        value = node.meta.get("example_value", node.meta.get("val"))
        if value is None and example_inputs is not None:
            value = example_inputs[i]
        if is_subclass(value) and not subclasses:
            raise capture_error(
                f"the input `{node.name}` is a {type(value).__name__}, a tensor subclass",
                "Pass plain tensors; tensor subclasses are not captured.",
            )
        if value is None:
            raise capture_error(
                f"the input `{node.name}` has no example value",
                "Pass a graph made by torch.compile, with its example inputs.",
            )
        fakes.append(value)
    return fakes
