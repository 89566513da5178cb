"""Lowering chooses the form that the inner compiler runs best, and changes no value."""

import pytest
import torch
from graphs import counts, run, trace

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.lower import LOWER
from stonefx.passes.site import Context

WEIGHTS = {"a": torch.randn(3, 8), "b": torch.randn(5, 3), "bias": torch.randn(5), "c": torch.tensor(0.7)}
X = 0.1 * torch.randn(4, 8)


def pair(w, x):
    return torch.ops.stone.low_rank_linear(x, w.a, w.b, w.bias)


def pair_without_bias(w, x):
    return torch.ops.stone.low_rank_linear(x, w.a, w.b)


def maps(w, x):
    y = torch.ops.stone.expmap0(x, w.c, min_norm=1e-15)
    return torch.ops.stone.logmap0(torch.ops.stone.mobius_add(y, y, w.c), w.c)


@pytest.mark.parametrize("inner", ["eager", "aot_eager", "inductor"])
def test_operators_become_their_forward_twins_without_gradients(inner):
    module = trace(maps, X, weights=WEIGHTS)
    before = run(module, list(WEIGHTS.values()), X)
    assert LOWER.run(module, Context(inner=inner)) == []
    assert counts(module) == {"expmap0_forward": 1, "mobius_add_forward": 1, "logmap0_forward": 1}
    assert torch.equal(run(module, list(WEIGHTS.values()), X), before)


def test_attributes_stay_with_the_operator():
    module = trace(maps, X, weights=WEIGHTS)
    LOWER.run(module, Context())
    (node,) = [node for node in module.graph.nodes if node.target is torch.ops.stone.expmap0_forward.default]
    assert node.kwargs["min_norm"] == 1e-15


def test_operators_keep_their_gradient_where_it_is_wanted():
    module = trace(maps, X, weights=WEIGHTS)
    code = module.code
    LOWER.run(module, Context(grad=True))
    assert module.code == code


@pytest.mark.parametrize("inner", ["eager", "aot_eager"])
def test_a_low_rank_pair_stays_one_call_where_calls_count(inner):
    module = trace(pair, X, weights=WEIGHTS)
    LOWER.run(module, Context(inner=inner))
    assert counts(module) == {"low_rank_linear_forward": 1}


@pytest.mark.parametrize("function", [pair, pair_without_bias])
@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_inductor_sees_a_low_rank_pair_as_two_products(function, grad, dynamic):
    module = trace(function, X, weights=WEIGHTS, dynamic=dynamic)
    before = run(module, list(WEIGHTS.values()), X)
    LOWER.run(module, Context(inner="inductor", grad=grad))
    assert counts(module) == {"linear": 2}
    torch.testing.assert_close(run(module, list(WEIGHTS.values()), X), before)
    shapes = [node.meta["val"].shape[-1] for node in module.graph.nodes if node.op == "call_function"]
    assert shapes == [3, 5]


def test_a_lowered_graph_is_left_as_it_is():
    module = trace(maps, X, weights=WEIGHTS)
    LOWER.run(module, Context())
    code = module.code
    LOWER.run(module, Context())
    assert module.code == code
