"""Folded weights stored as `[in, out]`, so that a small call need not transpose them each time."""

from __future__ import annotations

import torch
from torch import fx

from .nodes import val

aten = torch.ops.aten


def store_transposed(module: fx.GraphModule) -> int:
    """Turn `linear(x, folded, bias)` on rows `x [rows, in]` into `addmm(bias, x, folded_t)`; returns how many.

    `linear` makes a transposed view of its weight at every call, which for a layer of a few thousand weights
    is a quarter of the call. A folded weight is ours to lay out. Only on the CPU, where calls are that short, and
    only in float32 and float64: the half types have matrix kernels of their own for the usual layout.
    """
    graph = module.graph
    done = 0
    for weight in [node for node in graph.nodes if "fold" in node.meta]:
        users = list(weight.users)
        if not users or not all(_fits(user, weight) for user in users):
            continue
        with graph.inserting_after(weight):
            view = graph.call_function(aten.t.default, (weight,))
        with graph.inserting_after(view):
            stored = graph.call_function(
                aten.clone.default, (view,), {"memory_format": torch.contiguous_format}
            )
        view.meta["val"] = val(weight).detach().t()
        stored.meta["val"] = view.meta["val"].clone(memory_format=torch.contiguous_format)
        stored.meta["fold"] = f"{weight.meta.pop('fold')}_transposed"
        for user in users:
            x, _, bias = user.args
            user.target, user.args = aten.addmm.default, (bias, x, stored)
            done += 1
    graph.lint()
    module.recompile()
    return done


def _fits(user: fx.Node, weight: fx.Node) -> bool:
    if user.target is not aten.linear.default or len(user.args) != 3 or user.kwargs:
        return False
    x, used, bias = user.args
    if used is not weight or not isinstance(x, fx.Node) or not isinstance(bias, fx.Node):
        return False
    return (
        x is not weight
        and bias is not weight
        and val(x).dim() == 2
        and val(x).device.type == "cpu"
        and val(x).dtype in (torch.float32, torch.float64)
        and val(x).dtype == val(weight).dtype == val(user).dtype
    )
