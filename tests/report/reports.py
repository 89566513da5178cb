"""Small reports to write, compare and show."""

import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from stonefx.passes.site import Site
from stonefx.report import Report, graph_text, graph_totals


def chain_graph(rows: int = 4, dynamic: bool = False) -> fx.GraphModule:
    """x [rows, 8] through two linears, weights marked as `capture` marks them."""

    def forward(x, w1, b1, w2):
        return torch.nn.functional.linear(torch.nn.functional.linear(x, w1, b1), w2)

    arguments = torch.randn(rows, 8), torch.randn(6, 8), torch.randn(6), torch.randn(2, 6)
    mode = "symbolic" if dynamic else "fake"
    module = make_fx(forward, pre_dispatch=True, tracing_mode=mode)(*arguments)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders[1:], ("0.weight", "0.bias", "1.weight"), strict=True):
        node.meta["weight"] = name
    return module


def merged_graph() -> fx.GraphModule:
    """The same value as one linear over a fold."""

    def forward(x, w1, b1, w2):
        weight = (w2.double() @ w1.double()).float()
        bias = (w2.double() @ b1.double()).float()
        return torch.nn.functional.linear(x, weight, bias)

    arguments = torch.randn(4, 8), torch.randn(6, 8), torch.randn(6), torch.randn(2, 6)
    module = make_fx(forward, pre_dispatch=True, tracing_mode="fake")(*arguments)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders[1:], ("0.weight", "0.bias", "1.weight"), strict=True):
        node.meta["weight"] = name
    linear = next(node for node in module.graph.nodes if node.target is torch.ops.aten.linear.default)
    linear.args[1].meta["fold"] = "0+1.weight"
    linear.args[2].meta["fold"] = "0+1.bias"
    return module


def site(**changes) -> Site:
    fields = {
        "pass_name": "linear_chains",
        "target": "linear_chain",
        "status": "rewritten",
        "module_path": "head",
        "source": "/home/me/model.py:12",
        "params_before": 66,
        "params_after": 18,
        "flops_before": 480,
        "flops_after": 128,
        "original_error": 3e-8,
        "max_error": 2e-8,
        "bound": 1e-6,
    }
    return Site(**(fields | changes))


def report(**changes) -> Report:
    fields = {
        "sites": [site(), site(status="refused", reason="the value between is returned", module_path="tail")],
        "before": graph_text(chain_graph()),
        "after": graph_text(merged_graph()),
        "notes": ["decoder: not captured"],
        "seconds": {"linear_chains": 0.25},
        "totals_before": graph_totals(chain_graph()),
        "totals_after": graph_totals(merged_graph()),
        "backend": {"door": "optimize", "inner": "eager", "torch": "2.13.0"},
    }
    return Report(**(fields | changes))
