"""Folded weights of two-dimensional linear calls are stored transposed; everything else stays."""

from __future__ import annotations

import pytest
import torch
from graphs import counts, run, trace
from torch import nn

from stonefx.passes.graph.transpose import store_transposed
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.site import Context


def chain(dtype: torch.dtype = torch.float32, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 64, bias=bias), nn.Linear(64, 5, bias=bias)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_merged_layer_becomes_addmm(dtype: torch.dtype, dynamic: bool) -> None:
    model, x = chain(dtype), torch.randn(4, 8, dtype=dtype)
    module = trace(model, x, dynamic=dynamic)
    LINEAR_CHAINS.run(module, Context())
    assert store_transposed(module) == 1
    assert counts(module) == {"addmm": 1}
    (stored,) = [node for node in module.graph.nodes if node.meta.get("fold", "").endswith("transposed")]
    assert list(stored.meta["val"].shape) == [8, 5] and stored.meta["val"].is_contiguous()
    torch.testing.assert_close(run(module, model, x), model(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (chain(bias=False), torch.randn(4, 8)),
        (chain(), torch.randn(2, 4, 8)),
        (chain(torch.bfloat16), torch.randn(4, 8, dtype=torch.bfloat16)),
        (nn.Linear(8, 5), torch.randn(4, 8)),
    ],
    ids=["no bias", "three dimensions", "bfloat16", "not folded"],
)
def test_other_calls_stay(model: nn.Module, x: torch.Tensor) -> None:
    module = trace(model, x)
    LINEAR_CHAINS.run(module, Context())
    code = module.code
    assert store_transposed(module) == 0
    assert module.code == code
