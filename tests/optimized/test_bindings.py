"""Each quick binding computes what the ATen operator computes, from the same arguments in the same order."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

from stonefx.optimized.bindings import BINDINGS, binding

aten = torch.ops.aten
A = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
B = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1))
M, N = A[0], B[0].t()
MASK = A > 0
IMAGE, KERNEL = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3)

CASES: dict[str, list[tuple[Any, tuple[Any, ...], dict[str, Any]]]] = {
    "addmm": [(aten.addmm.default, (torch.ones(3), M, N), {"beta": 2})],
    "add": [
        (aten.add.Tensor, (A, B), {"alpha": 2}),
        (aten.add.Tensor, (A, 1.5), {}),
        (aten.add.Scalar, (A, 2), {}),
    ],
    "sub": [(aten.sub.Tensor, (A, B), {"alpha": 2}), (aten.sub.Scalar, (A, 2, 3), {})],
    "rsub": [(aten.rsub.Scalar, (A, 1.0), {}), (aten.rsub.Scalar, (A, 1.0, 2), {})],
    "bmm": [(aten.bmm.default, (A, B.transpose(1, 2)), {})],
    "mm": [(aten.mm.default, (M, N), {})],
    "matmul": [(aten.matmul.default, (A, N), {})],
    "cat": [(aten.cat.default, ([A, B], 1), {})],
    "stack": [(aten.stack.default, ([A, B], 1), {})],
    "clamp": [(aten.clamp.default, (A, None, 0.5), {}), (aten.clamp.Tensor, (A, B), {})],
    "clamp_min": [(aten.clamp_min.default, (A, 0.1), {})],
    "clamp_max": [(aten.clamp_max.default, (A, 0.1), {})],
    "conv1d": [(aten.conv1d.default, (torch.ones(1, 2, 7), torch.ones(3, 2, 3), None, [2], [1]), {})],
    "conv2d": [(aten.conv2d.default, (IMAGE, KERNEL, None, [2, 2], [1, 1], [1, 1], 1), {})],
    "conv3d": [(aten.conv3d.default, (torch.ones(1, 2, 4, 4, 4), torch.ones(3, 2, 3, 3, 3)), {})],
    "cumsum": [(aten.cumsum.default, (A, 1), {"dtype": torch.float64})],
    "div": [(aten.div.Tensor, (A, B), {}), (aten.div.Tensor_mode, (A, B), {"rounding_mode": "floor"})],
    "embedding": [(aten.embedding.default, (M, torch.tensor([2, 0]), 1), {})],
    "flatten": [(aten.flatten.using_ints, (A, 1, 2), {})],
    "full_like": [(aten.full_like.default, (A, 2.0), {"dtype": torch.float64})],
    "index_select": [(aten.index_select.default, (A, 1, torch.tensor([0, 2])), {})],
    "layer_norm": [(aten.layer_norm.default, (A, [4], torch.ones(4), torch.zeros(4), 1e-3), {})],
    "rms_norm": [(aten.rms_norm.default, (A, [4], torch.ones(4), 1e-3), {})],
    "masked_fill": [(aten.masked_fill.Scalar, (A, MASK, -1.0), {})],
    "mean": [(aten.mean.dim, (A, [1], True), {}), (aten.mean.default, (A,), {})],
    "sum": [(aten.sum.dim_IntList, (A, [-1], True), {"dtype": torch.float64})],
    "permute": [(aten.permute.default, (A, [2, 0, 1]), {})],
    "pow": [(aten.pow.Tensor_Scalar, (A, 2), {}), (aten.pow.Scalar, (2, A), {})],
    "reshape": [(aten.reshape.default, (A, [4, -1]), {})],
    "select": [(aten.select.int, (A, 1, 2), {})],
    "softmax": [(aten.softmax.int, (A, -1, torch.float64), {})],
    "squeeze": [(aten.squeeze.dim, (A[:, :1], 1), {})],
    "unsqueeze": [(aten.unsqueeze.default, (A, 1), {})],
    "transpose": [(aten.transpose.int, (A, 0, 2), {})],
    "tril": [(aten.tril.default, (M, -1), {})],
    "triu": [(aten.triu.default, (M, 1), {})],
    "where": [(aten.where.self, (MASK, A, B), {}), (aten.where.ScalarOther, (MASK, A, 0.0), {})],
    "adaptive_avg_pool2d": [(aten.adaptive_avg_pool2d.default, (IMAGE, [2, 2]), {})],
    "avg_pool2d": [(aten.avg_pool2d.default, (IMAGE, [2, 2], [1, 1]), {})],
    "elu": [(aten.elu.default, (A, 0.5), {})],
    "gelu": [(aten.gelu.default, (A,), {"approximate": "tanh"})],
    "hardtanh": [(aten.hardtanh.default, (A, -0.5, 0.5), {})],
    "leaky_relu": [(aten.leaky_relu.default, (A, 0.2), {})],
    "linear": [(aten.linear.default, (A, N.t().contiguous(), torch.ones(3)), {})],
    "scaled_dot_product_attention": [
        (aten.scaled_dot_product_attention.default, (A, B, A, None, 0.0, True), {"scale": 0.3})
    ],
    "softplus": [(aten.softplus.default, (A, 2.0, 10.0), {})],
    "contiguous": [(aten.contiguous.default, (A.transpose(0, 1),), {})],
    "expand": [(aten.expand.default, (A[:, :1], [2, 3, 4]), {})],
    "t": [(aten.t.default, (M,), {})],
    "view": [(aten.view.default, (A, [6, 4]), {})],
    "bitwise_and": [(aten.bitwise_and.Tensor, (MASK, ~MASK), {})],
    "bitwise_or": [(aten.bitwise_or.Tensor, (MASK, ~MASK), {})],
    "bitwise_not": [(aten.bitwise_not.default, (MASK,), {})],
}
UNARY = """
abs cos detach exp hardsigmoid hardswish log log1p log_sigmoid logical_not mish neg ones_like reciprocal relu rsqrt
sigmoid silu sin sqrt square tanh zeros_like
""".split()
CASES |= {name: [(getattr(aten, name).default, (A,), {})] for name in UNARY}
CASES |= {name: [(getattr(aten, name).Tensor, (A, B), {})] for name in "eq ge gt le lt ne mul".split()}
CASES |= {name: [(getattr(aten, name).default, (A, B), {})] for name in "logical_and maximum minimum".split()}


@pytest.mark.parametrize("name", sorted(BINDINGS))
def test_a_binding_computes_what_its_operator_does(name: str) -> None:
    for target, args, kwargs in CASES[name.removeprefix("aten::")]:
        graph = fx.Graph()
        operands = [graph.placeholder(f"x{i}") for i in range(len(args))]
        found = binding(graph.call_function(target, tuple(operands), kwargs))
        torch.testing.assert_close(
            found(*args, **kwargs), target(*args, **kwargs), rtol=0, atol=0, equal_nan=True
        )
