"""The interpreter that carries Dynamo's graph into pre-dispatch ATen, node by node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from .errors import capture_error, node_location
from .located import Located
from .opaque import (
    copy_higher_order,
    is_checkpoint,
    is_custom_function,
    is_higher_order,
    wants_gradient,
    without_switches,
)
from .regions import Region, evaluate_region, find_regions, is_loader, run_region
from .state import recording_paused
from .subclasses import subclasses_in
from .verbatim import Recording


class Retrace(Located):
    """Run a Dynamo graph on fake tensors under `make_fx(pre_dispatch=True)`.

    Functorch regions, autocast, inference mode and higher-order operators need more than to be called; each has its
    own step.

    Args:
        module: Dynamo's graph.
        shape_env: of the fake tensors.
        verbatim: copy what the graph language has no words for as it stands, instead of raising `CaptureError`.
        inline_checkpoints: record the body of a checkpoint also where a gradient may be wanted: the gradient is the
            same, and takes the memory that the checkpoint would save.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        shape_env: ShapeEnv | None,
        *,
        verbatim: bool,
        inline_checkpoints: bool = False,
    ) -> None:
        super().__init__(module)
        self._shape_env = shape_env
        self._inline_checkpoints = inline_checkpoints
        self._graph_module = module
        self._verbatim = verbatim
        regions = find_regions(module.graph)
        self._region_at: dict[fx.Node, Region] = {region.nodes[0]: region for region in regions}
        self._in_region = {node for region in regions for node in region.nodes}
        self._step: dict[Callable[..., Any], Callable[[fx.Node], Any]] = {
            torch.amp.autocast_mode._enter_autocast: self._enter_autocast,
            torch.amp.autocast_mode._exit_autocast: self._exit_autocast,
            torch.autograd.grad_mode._enter_inference_mode: self._enter_inference_mode,
            torch.autograd.grad_mode._exit_inference_mode: self._exit_inference_mode,
        }

    def evaluate(self, node: fx.Node) -> Any:
        """The value of one node, by the step that its kind needs."""
        if node in self._region_at:
            self._run_region(self._region_at[node])
        if node in self._in_region:
            return self.env.get(node)
        if node.op == "call_function":
            if node.target in self._step:
                return self._step[node.target](node)
            if is_higher_order(node):
                return self._higher_order(node)
            if is_loader(node):
                return None
        if node.op in ("call_function", "call_method"):
            return self._call(node)
        return super().evaluate(node)

    def _call(self, node: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        recording = Recording()
        found = subclasses_in(args, kwargs, node.meta.get("example_value"))
        reads = f"on {found[0]}" if found else "on what recording does not see"
        if not found:
            last = recording.last()
            try:
                result = super().evaluate(node)
                if recording.saw(result):
                    return result
            except Exception:
                if not self._verbatim:
                    raise
            recording.forget_after(last)
        if not self._verbatim:
            raise capture_error(
                f"`{node.format_node()}` works {reads}",
                "Exclude this code with torch.compiler.disable.",
                node_location(node),
            )
        with self._unrecorded():
            return recording.copy(node, args, kwargs, super().evaluate(node), reads)

    @contextmanager
    def _unrecorded(self) -> Iterator[None]:
        """Record nothing, and no guard either: what Dynamo found to hold for its own nodes holds for their copies."""
        with recording_paused(), self._shape_env.suppress_guards() if self._shape_env else nullcontext():
            yield

    def _higher_order(self, node: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        if is_checkpoint(node):
            run = partial(self._checkpoint, args[0])
            operands, inline = args[1:], self._inline_checkpoints
        elif is_custom_function(node):
            run = partial(self._custom_function, args[0])
            operands, inline = args[2:], False
        else:
            return copy_higher_order(node, args, kwargs)
        if inline or not wants_gradient(node):
            return run(*operands)
        with recording_paused():
            body = make_fx(run, pre_dispatch=True)(*operands)
        return copy_higher_order(node, args, kwargs, body)

    def _checkpoint(self, body: fx.GraphModule, *operands: Any) -> Any:
        return self._retrace(body).run(*operands)

    def _custom_function(self, body: fx.GraphModule, *operands: Any) -> Any:
        results, _saved = self._retrace(without_switches(body)).run(*operands)
        return results

    def _retrace(self, body: fx.GraphModule) -> Retrace:
        return Retrace(
            body, self._shape_env, verbatim=self._verbatim, inline_checkpoints=self._inline_checkpoints
        )

    def _run_region(self, region: Region) -> None:
        values = [self.env[node] for node in region.inputs]
        recording = Recording()
        last = recording.last()
        try:
            results = run_region(self._graph_module, region, values)
        except Exception:
            if not self._verbatim:
                raise
            recording.forget_after(last)
            with self._unrecorded():
                results = evaluate_region(self._graph_module, region, values)
                recording.copy_region(region, values, results)
        self.env.update(zip(region.outputs, results, strict=True))

    def _enter_autocast(self, node: fx.Node) -> torch.autocast:
        # The bare function only records itself: the casts would be missing from every later fake value.
        device_type, dtype, enabled, cache_enabled = self.fetch_args_kwargs_from_env(node)[0]
        context = torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)
        context.__enter__()
        return context

    def _exit_autocast(self, node: fx.Node) -> None:
        (entered,) = node.all_input_nodes
        self.env[entered].__exit__(None, None, None)

    def _enter_inference_mode(self, node: fx.Node) -> bool:
        # To be in the mode records nothing. Of what it does, a graph has the gradient mode that it sets.
        (enabled,) = self.fetch_args_kwargs_from_env(node)[0]
        before = torch.is_grad_enabled()
        torch._C._set_grad_enabled(not enabled)
        return before

    def _exit_inference_mode(self, node: fx.Node) -> None:
        (before,) = self.fetch_args_kwargs_from_env(node)[0]
        torch._C._set_grad_enabled(before)
