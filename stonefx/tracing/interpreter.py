"""The interpreter that carries Dynamo's graph into pre-dispatch ATen, node by node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from .errors import CaptureError, capture_error, node_location
from .opaque import copy_higher_order, is_higher_order
from .regions import Region, find_regions, is_loader, run_region


class Retrace(fx.Interpreter):
    """Run a Dynamo graph on fake tensors under `make_fx(pre_dispatch=True)`.

    Functorch regions, autocast and higher-order operators need more than to be called; each has its own step.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        regions = find_regions(module.graph)
        self._region_at: dict[fx.Node, Region] = {region.nodes[0]: region for region in regions}
        self._in_region = {node for region in regions for node in region.nodes}
        self._step: dict[Callable[..., Any], Callable[[fx.Node], Any]] = {
            torch.amp.autocast_mode._enter_autocast: self._enter_autocast,
            torch.amp.autocast_mode._exit_autocast: self._exit_autocast,
        }

    def run_node(self, n: fx.Node) -> Any:
        """Evaluate one node; an error names it and the line of the user's code."""
        try:
            with self._set_current_node(n):
                return self._evaluate(n)
        except CaptureError:
            raise
        except Exception as error:
            raise capture_error(
                f"cannot retrace `{n.format_node()}`",
                "Exclude this code with torch.compiler.disable, or report the operator.",
                node_location(n),
                error,
            ) from error

    def _evaluate(self, node: fx.Node) -> Any:
        if node in self._region_at:
            self._run_region(self._region_at[node])
        if node in self._in_region:
            return self.env.get(node)
        if node.op == "call_function":
            if node.target in self._step:
                return self._step[node.target](node)
            if is_higher_order(node):
                return copy_higher_order(node, *self.fetch_args_kwargs_from_env(node))
            if is_loader(node):
                return None
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        return getattr(self, node.op)(node.target, args, kwargs)

    def _run_region(self, region: Region) -> None:
        values = [self.env[node] for node in region.inputs]
        self.env.update(zip(region.outputs, run_region(self.module, region, values), strict=True))

    def _enter_autocast(self, node: fx.Node) -> torch.autocast:
        # The bare function only records itself: the casts would be missing from every later fake value.
        device_type, dtype, enabled, cache_enabled = self.fetch_args_kwargs_from_env(node)[0]
        context = torch.autocast(device_type, dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)
        context.__enter__()
        return context

    def _exit_autocast(self, node: fx.Node) -> None:
        self.env[node.args[0]].__exit__(None, None, None)
