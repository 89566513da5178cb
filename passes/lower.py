"""The pass `lower`: from what an operation means to the form that will run."""

from __future__ import annotations

import torch
from torch import fx

from .graph.arguments import is_operator, named_arguments
from .graph.nodes import val
from .site import Context, Site

aten = torch.ops.aten


class Lower:
    """Turns recognised operations into the cheapest form for the inner compiler.

    - `stone.x` becomes its twin `stone.x_forward` where no gradients are wanted: the twin has no gradient to set
      up, which saves most of the cost of a small call.
    - `stone.low_rank_linear` becomes two `aten.linear` under inductor, which cannot see into an operator of
      ours: as two products it chooses kernels for both and fuses what comes before and after. In eager modes it
      stays one operator, and one call, on the CPU. On CUDA the operator starts two kernels as well and costs more
      on the host than two linear maps, so that without gradients these run there too.
    """

    name = "lower"
    targets = ()

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        """Lower a graph in place. Reports no sites: the passes that recognised the operations have."""
        graph = module.graph
        for node in list(graph.nodes):
            if not is_operator(node) or node.target.namespace != "stone":
                continue
            if node.target is torch.ops.stone.low_rank_linear.default and _wants_products(node, context):
                _as_two_products(node)
            elif not context.grad:
                _without_gradient(node)
        graph.lint()
        module.recompile()
        return []


LOWER = Lower()


def _wants_products(node: fx.Node, context: Context) -> bool:
    on_cuda = val(named_arguments(node)["x"]).device.type == "cuda"
    return context.inner == "inductor" or (on_cuda and not context.grad)


def _without_gradient(node: fx.Node) -> None:
    name: str = node.target._schema.name.removeprefix("stone::")  # type: ignore[union-attr]
    twin = getattr(torch.ops.stone, f"{name}_forward", None)
    if twin is not None:
        node.target = twin.default


def _as_two_products(node: fx.Node) -> None:
    given = named_arguments(node)
    x, a, b = given["x"], given["a"], given["b"]
    graph = node.graph
    with graph.inserting_before(node):
        inner = graph.call_function(aten.linear.default, (x, a, None))
    inner.meta = {key: value for key, value in node.meta.items() if key in ("stack_trace", "nn_module_stack")}
    inner.meta["val"] = val(x).new_empty((*val(x).shape[:-1], val(a).shape[0]))
    node.target, node.args, node.kwargs = aten.linear.default, (inner, b, given["bias"]), {}
