"""The interpreter that carries Dynamo's graph into pre-dispatch ATen, node by node."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from .located import Located
from .opaque import (
    copy_higher_order,
    is_checkpoint,
    is_custom_function,
    is_higher_order,
    wants_gradient,
    without_switches,
)
from .regions import Region, find_regions, is_loader, run_region
from .state import recording_paused


class Retrace(Located):
    """Run a Dynamo graph on fake tensors under `make_fx(pre_dispatch=True)`.

    Functorch regions, autocast and higher-order operators need more than to be called; each has its own step.

    Args:
        module: the graph.
        inline_checkpoints: record the body of a checkpoint also where a gradient may be wanted: the gradient is the
            same, and takes the memory that the checkpoint would save.
    """

    def __init__(self, module: fx.GraphModule, inline_checkpoints: bool = False) -> None:
        super().__init__(module)
        self._inline_checkpoints = inline_checkpoints
        self._graph_module = module
        regions = find_regions(module.graph)
        self._region_at: dict[fx.Node, Region] = {region.nodes[0]: region for region in regions}
        self._in_region = {node for region in regions for node in region.nodes}
        self._step: dict[Callable[..., Any], Callable[[fx.Node], Any]] = {
            torch.amp.autocast_mode._enter_autocast: self._enter_autocast,
            torch.amp.autocast_mode._exit_autocast: self._exit_autocast,
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
        return super().evaluate(node)

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
        return Retrace(body, self._inline_checkpoints).run(*operands)

    def _custom_function(self, body: fx.GraphModule, *operands: Any) -> Any:
        results, _saved = Retrace(without_switches(body), self._inline_checkpoints).run(*operands)
        return results

    def _run_region(self, region: Region) -> None:
        values = [self.env[node] for node in region.inputs]
        self.env.update(zip(region.outputs, run_region(self._graph_module, region, values), strict=True))

    def _enter_autocast(self, node: fx.Node) -> torch.autocast:
        # The bare function only records itself: the casts would be missing from every later fake value.
        device_type, dtype, enabled, cache_enabled = self.fetch_args_kwargs_from_env(node)[0]
        context = torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)
        context.__enter__()
        return context

    def _exit_autocast(self, node: fx.Node) -> None:
        (entered,) = node.all_input_nodes
        self.env[entered].__exit__(None, None, None)
