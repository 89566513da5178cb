"""Normalisation changes no bit, removes what does nothing, and keeps what can be observed."""

import pytest
import torch
from graphs import counts, run, trace
from torch import nn
from torch.nn import functional as F

from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context

X = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0))

REMOVED = {
    "eval dropout": lambda w, x: F.dropout(x.sin(), 0.5, training=False).cos(),
    "eval feature dropout": lambda w, x: F.dropout1d(x.sin(), 0.5, training=False).cos(),
    "eval alpha dropout": lambda w, x: F.alpha_dropout(x.sin(), 0.5, training=False).cos(),
    "alias": lambda w, x: torch.ops.aten.alias(x.sin()).cos(),
    "view onto the same shape": lambda w, x: x.sin().view(x.shape).cos(),
    "reshape to the same shape": lambda w, x: x.sin().reshape(4, 5, -1).cos(),
    "flatten of nothing": lambda w, x: x.sin().flatten(0, 0).cos(),
    "expand to the same shape": lambda w, x: x.sin().expand(-1, 5, 6).cos(),
    "permute to the same order": lambda w, x: x.sin().permute(0, 1, 2).cos(),
    "transpose of an axis with itself": lambda w, x: x.sin().transpose(1, 1).cos(),
    "full slice": lambda w, x: x.sin()[:, :].cos(),
    "to the same dtype": lambda w, x: x.sin().to(torch.float32).cos(),
    "to the same device": lambda w, x: x.sin().to("cpu").cos(),
    "float of float": lambda w, x: x.sin().float().cos(),
    "contiguous": lambda w, x: x.sin().contiguous().cos(),
    "clone": lambda w, x: x.sin().clone().cos(),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", REMOVED)
def test_what_does_nothing_goes(name, dynamic):
    module = trace(REMOVED[name], X, dynamic=dynamic)
    before = run(module, [], X)
    assert NORMALIZE.run(module, Context()) == []
    assert {op: n for op, n in counts(module).items() if not op.startswith("sym_size")} == {
        "sin": 1,
        "cos": 1,
    }
    assert torch.equal(run(module, [], X), before)


def clone_then_write(w, x):
    y = x.sin()
    kept = y.clone()
    y.mul_(2)
    return y + kept


def write_to_clone(w, x):
    y = x.sin()
    copy = y.clone()
    copy.mul_(2)
    return y.cos() + copy


def returned_view_of_clone(w, x):
    return x.clone().view(-1)


def returned_alias(w, x):
    return x.view(x.shape)


KEPT = {
    "active dropout": (lambda w, x: F.dropout(x, 0.5, training=True), "dropout"),
    "detach": (lambda w, x: x.sin().detach().cos(), "detach"),
    "conversion": (lambda w, x: x.to(torch.float64).cos(), "to"),
    "copying conversion": (lambda w, x: x.to(torch.float32, copy=True).view(-1), "to"),
    "transposition": (lambda w, x: x.transpose(0, 1).cos(), "transpose"),
    "contiguous of a transposed value": (lambda w, x: x.transpose(0, 1).contiguous().cos(), "contiguous"),
    "clone of an expanded value": (lambda w, x: x[:1].expand(4, 5, 6).clone().cos(), "clone"),
    "clone of what is written": (clone_then_write, "clone"),
    "clone that is written": (write_to_clone, "clone"),
    "clone that is returned": (lambda w, x: x.clone(), "clone"),
    "clone whose view is returned": (returned_view_of_clone, "clone"),
    "view that is returned": (returned_alias, "view"),
    "reshape": (lambda w, x: x.view(20, 6).cos(), "view"),
    "part of a slice": (lambda w, x: x[:3].cos(), "slice"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_can_be_observed_stays(name):
    function, operator = KEPT[name]
    module = trace(function, X)
    operators = counts(module)
    NORMALIZE.run(module, Context())
    assert operators[operator] >= 1
    assert counts(module) == operators


def test_views_under_no_grad_stay_since_they_cut_gradients_off():
    def function(w, x):
        with torch.no_grad():
            y = x.view(x.shape)
        return y * x

    for grad in (True, False):  # what comes out may be trained later
        module = trace(function, X)
        NORMALIZE.run(module, Context(grad=grad))
        assert counts(module)["view"] == 1


def test_default_arguments_are_filled_in():
    def function(w, x):
        return torch.softmax(F.linear(x, w.W).add(other=1), dim=-1)

    module = trace(function, X, weights={"W": X[0]})
    NORMALIZE.run(module, Context())
    calls = {node.target.overloadpacket: node for node in module.graph.nodes if node.op == "call_function"}
    assert len(calls[torch.ops.aten.linear].args) == 3
    assert calls[torch.ops.aten.linear].args[2] is None
    assert calls[torch.ops.aten.softmax].args[1:] == (-1, None)
    for node in calls.values():
        assert node.kwargs == {}


TWINS = {
    "multiply": (lambda w, x: torch.multiply(x, x), "mul"),
    "multiply by a number": (lambda w, x: x.multiply(2), "mul"),
    "multiply in place": (lambda w, x: x.sin().multiply_(x), "mul_"),
    "divide": (lambda w, x: torch.divide(x, x + 2), "div"),
    "divide, rounded": (lambda w, x: torch.divide(x, x + 2, rounding_mode="floor"), "div"),
    "true_divide": (lambda w, x: torch.true_divide(x, 3), "div"),
    "subtract": (lambda w, x: torch.subtract(x, x, alpha=3), "sub"),
    "negative": (lambda w, x: torch.negative(x), "neg"),
    "concat": (lambda w, x: torch.concat([x, x], 1), "cat"),
    "concatenate": (lambda w, x: torch.concatenate([x, x], dim=-1), "cat"),
    "moveaxis": (lambda w, x: torch.moveaxis(x, 0, 2), "movedim"),
    "broadcast_to": (lambda w, x: torch.broadcast_to(x[:1], (3, 5, 6)), "expand"),
    "tile": (lambda w, x: torch.tile(x, (2,)), "repeat"),
    "tile with more axes": (lambda w, x: torch.tile(x, (2, 1, 1, 2)), "repeat"),
    "to another value": (lambda w, x: torch.ones(3, dtype=torch.long).to(x), "to"),
    "type_as": (lambda w, x: torch.ones(3, dtype=torch.long).type_as(x), "to"),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", TWINS)
def test_other_names_of_operators_become_one(name, dynamic):
    function, operator = TWINS[name]
    module = trace(function, X, dynamic=dynamic)
    NORMALIZE.run(module, Context())
    assert counts(module)[operator] == 1
    assert all(operator != "to" or len(node.all_input_nodes) < 2 for node in module.graph.nodes)
    got, want = run(module, [], X), function(None, X)
    assert torch.equal(got, want) and got.dtype == want.dtype


def test_spellings_of_linear_maps_are_left_to_the_pass_that_merges_them():
    weights = {"W": torch.randn(6, 6), "b": torch.randn(6)}
    module = trace(lambda w, x: torch.einsum("bti,oi->bto", x @ w.W + w.b, w.W), X, weights=weights)
    NORMALIZE.run(module, Context())
    assert counts(module) == {"matmul": 1, "add": 1, "einsum": 1}


def test_a_model_computes_the_same_bits():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(3, 7, 16)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        module = trace(layer, x, dynamic=True)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    before = run(module, layer, x)
    nodes = len(module.graph.nodes)
    NORMALIZE.run(module, Context())
    assert len(module.graph.nodes) < nodes
    assert torch.equal(run(module, layer, x), before)


def test_normalising_twice_changes_nothing_more():
    module = trace(nn.Sequential(nn.Linear(6, 6), nn.Dropout(), nn.Flatten(0, 1)).eval(), X)
    NORMALIZE.run(module, Context())
    code = module.code
    NORMALIZE.run(module, Context())
    assert module.code == code
