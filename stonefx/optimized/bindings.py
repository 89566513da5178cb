"""The quickest Python callable of an ATen operator.

`torch.ops.aten.x` parses its arguments against a schema at every call, 1 to 3 us more than the generated
binding that `torch.x` is. The operators below have a binding with the same arguments in the same order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

_FUNCTIONS = """
abs add addmm bitwise_and bitwise_not bitwise_or bmm cat clamp clamp_max clamp_min conv1d conv2d
conv3d cos cumsum div embedding eq exp flatten full_like ge gt index_select layer_norm le log log1p
logical_and logical_not lt masked_fill matmul maximum mean minimum mm mul ne neg ones_like permute pow
reciprocal relu reshape rms_norm rsqrt rsub select sigmoid sin softmax sqrt square squeeze stack sub sum tanh
transpose tril triu unsqueeze where zeros_like
""".split()

_NN_FUNCTIONS = """
adaptive_avg_pool2d avg_pool2d elu gelu hardsigmoid hardswish hardtanh leaky_relu linear log_sigmoid mish
scaled_dot_product_attention silu softplus
""".split()

_METHODS = "contiguous detach expand permute t view".split()


BINDINGS: dict[str, Callable[..., Any]] = {
    **{f"aten::{name}": getattr(torch, name) for name in _FUNCTIONS},
    **{f"aten::{name}": getattr(torch._C._nn, name) for name in _NN_FUNCTIONS},
    **{f"aten::{name}": getattr(torch.Tensor, name) for name in _METHODS},
}

# `alpha` is positional in these overloads' schemas and by keyword only in their bindings.
_ALPHA = frozenset({"aten::add", "aten::sub", "aten::rsub"})


@functools.cache
def _without_gradient_where_none_is_wanted(operator: Any, twin: Any) -> Callable[..., Any]:
    """The operator, or its twin that has no gradient to set up and costs a third of a small call."""
    with_gradient, without, grad_enabled = operator._op, twin._op, torch.is_grad_enabled

    def call(*args: Any, **kwargs: Any) -> Any:
        return with_gradient(*args, **kwargs) if grad_enabled() else without(*args, **kwargs)

    return call


def binding(node: fx.Node) -> Callable[..., Any]:
    """The callable to run for a node: a generated binding where one takes these arguments, else the target.

    >>> graph = fx.Graph()
    >>> x = graph.placeholder("x")
    >>> binding(graph.call_function(torch.ops.aten.relu.default, (x,))) is torch.relu
    True
    >>> binding(graph.call_function(torch.ops.aten.erf.default, (x,))) is torch.ops.aten.erf.default._op
    True
    """
    target: Any = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return target
    name = target._schema.name
    twin = (
        getattr(torch.ops.stone, f"{target._opname}_forward", None) if target.namespace == "stone" else None
    )
    if twin is not None:
        return _without_gradient_where_none_is_wanted(target, twin.default)
    named = "name" in target._schema.overload_name.lower()
    by_position = name in _ALPHA and len(node.args) > 2
    if name not in BINDINGS or named or by_position:
        return target._op
    return BINDINGS[name]
