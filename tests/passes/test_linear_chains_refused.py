"""What linear_chains must leave alone, and what it says about it."""

import re

import pytest
import torch
from graphs import counts, run, trace
from torch import nn
from torch.nn import functional as F

from stonefx.passes.cost.machine import Machine
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.site import Context

WEIGHTS = {
    "W1": torch.randn(24, 20),
    "b1": torch.randn(24),
    "W2": torch.randn(12, 24),
    "b2": torch.randn(12),
    "g": torch.randn(12, 1),
}
X = torch.randn(6, 20)


def first(w, x):
    return F.linear(x, w.W1, w.b1)


def second(w, x):
    return F.linear(x, w.W2, w.b2)


def rewrite(function, *inputs, weights=WEIGHTS, **context):
    """Trace a function and run the pass; what was refused must be as it was, node for node."""
    module = trace(function, *(inputs or (X,)), weights=weights)
    before = module.code
    sites = LINEAR_CHAINS.run(module, Context(**context))
    if all(site.status == "refused" for site in sites):
        assert module.code == before
    return module, sites


def returned(w, x):
    hidden = first(w, x)
    return second(w, hidden), hidden


def used_elsewhere(w, x):
    hidden = first(w, x)
    return second(w, hidden) + hidden.sum()


def shared_view(w, x):
    hidden = first(w, x).view(3, 2, 24)
    return second(w, hidden), hidden


def autocast(w, x):
    with torch.autocast("cpu", torch.bfloat16):
        return second(w, first(w, x))


def cast_between(w, x):
    return second(w, first(w, x).to(torch.float64).to(torch.float32))


def in_place_chain(w, x):
    return second(w, first(w, x).relu_())


def weight_written(w, x):
    result = second(w, first(w, x))
    w.W2.mul_(0.5)
    return result


def input_written(w, x):
    y = x.sin()
    hidden = first(w, y)
    y.zero_()
    return second(w, hidden), y


def run_time_weight(w, x):
    return F.linear(first(w, x), x[:3, :].repeat(1, 2)[:, :24])


def active_dropout(w, x):
    return second(w, F.dropout(first(w, x), 0.1, training=True))


def layer_norm(w, x):
    return second(w, F.layer_norm(first(w, x), (24,), w.b1))


def scaled_in_place(w, x):
    return second(w, first(w, x).mul_(2))


REFUSED = {
    returned: "the intermediate 'linear' is returned, so it has to be computed",
    used_elsewhere: r"the intermediate 'linear' is used in 2 places \(linear_1, sum_1\)",
    shared_view: "the intermediate 'view' is returned",
    autocast: "`linear` runs under autocast \\(float32 to bfloat16\\)",
    cast_between: "the dtype changes from float32 to float64 between the maps",
    scaled_in_place: "`mul_` changes the value between the maps in place",
    weight_written: "the weight 'W2' is changed inside the graph by `mul_`",
    input_written: "the chain's input 'sin' is changed in place before its end",
    run_time_weight: "is computed at run time, or is an input of the graph, not a parameter",
    active_dropout: "dropout with p=0.1 is active in between",
    layer_norm: "`layer_norm` between the maps is not a fixed linear map of the features",
}


@pytest.mark.parametrize("function", REFUSED, ids=lambda function: function.__name__)
def test_the_reason_is_said(function):
    _, sites = rewrite(function)
    site = sites[0]
    assert site.status == "refused"
    assert site.target == "linear_chain"
    assert re.search(REFUSED[function], site.reason), site.reason
    assert len(site.nodes) >= 2
    assert site.params_after == site.params_before > 0


NONLINEAR = {
    "relu": lambda w, x: second(w, first(w, x).relu()),
    "relu_": in_place_chain,
    "softmax": lambda w, x: second(w, first(w, x).softmax(-1)),
    "reciprocal": lambda w, x: second(w, 1 / first(w, x)),
    "gelu": lambda w, x: second(w, F.gelu(first(w, x))),
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_what_is_not_linear_is_named(name):
    _, (site,) = rewrite(NONLINEAR[name])
    assert (site.status, site.target, site.code) == ("refused", "linear_chain", "nonlinear")
    assert site.figures["operator"] == f"`{name}`"
    assert site.reason == f"`{name}` between the maps is not a fixed linear map"
    assert site.seconds_after is None, "without it the model would be another one: there is nothing to save"
    assert "linear" in site.nodes and site.nodes[-1] == site.output and site.params_before > 0


BOTH = ": both of its operands are computed at each call"
ROWS = ", which scales each row by other factors"


def stored_rows(w):
    return torch.cat([w.b1[None]] * 6)


UNREAD = {
    "a product": (lambda w, x: second(w, first(w, x) * first(w, x)), "nonlinear", "mul", BOTH),
    "a square": (lambda w, x: second(w, (lambda h: h * h)(first(w, x))), "nonlinear", "mul", BOTH),
    "a quotient": (lambda w, x: second(w, first(w, x) / first(w, x)), "nonlinear", "div", BOTH),
    "a sum of rows": (
        lambda w, x: second(w, first(w, x) + x.cos().sum(-1, keepdim=True)),
        "unread",
        "add",
        ", which adds another term to each row",
    ),
    "a scale of rows": (lambda w, x: second(w, first(w, x) * stored_rows(w)), "unread", "mul", ROWS),
    "features apart": (
        lambda w, x: F.linear(F.linear(x, w.W1).view(-1, 12), w.W2[:, :12]),
        "unread",
        "view",
        ", which takes features and rows apart",
    ),
    "rows from elsewhere": (
        lambda w, x: second(w, torch.cat([first(w, x), stored_rows(w)])),
        "unread",
        "cat",
        ", which joins them with other values",
    ),
    "a transform": (lambda w, x: second(w, torch.fft.fft(first(w, x), dim=0).real), "unread", "fft_fft", ""),
    "the largest": (
        lambda w, x: second(w, first(w, x).amax(0, keepdim=True).expand(6, -1)),
        "nonlinear",
        "amax",
        "",
    ),
}


@pytest.mark.parametrize("name", UNREAD)
def test_what_is_not_read_is_named_with_what_it_does(name):
    function, code, operator, how = UNREAD[name]
    _, sites = rewrite(function)
    site = next(each for each in sites if each.code in ("nonlinear", "unread"))
    assert (site.code, site.figures["operator"], site.figures["how"]) == (code, f"`{operator}`", how)
    assert site.seconds_after is None and "linear" in site.nodes


SINGLE = {
    "an axis more": (lambda w, x: F.linear(F.linear(x, w.W1[:1]).unsqueeze(-1), w.W2[:, :1]), "unsqueeze"),
    "rows apart": (lambda w, x: F.linear(F.linear(x, w.W1[:1]).view(2, 3, 1), w.W2[:, :1]), "view"),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_view_of_a_single_feature_is_named(name):
    function, operator = SINGLE[name]
    _, sites = rewrite(function)
    (site,) = [site for site in sites if site.code == "single_feature"]
    assert site.figures["operator"] == f"`{operator}`" and "a single feature" in site.reason


def test_what_reads_sizes_alone_is_not_between():
    def noise(w, x):
        return second(w, x.sum() + torch.randn_like(first(w, x)))

    _, sites = rewrite(noise)
    assert not [site for site in sites if site.code in ("nonlinear", "unread")]


NO_SITES = {
    "one map": first,
    "attention scores": lambda w, x: torch.matmul(first(w, x)[None], first(w, x).mT[None]),
    "einsum over rows": lambda w, x: torch.einsum("bi,ob->oi", first(w, x), w.W1[:, :6]),
}


@pytest.mark.parametrize("name", NO_SITES)
def test_what_is_no_chain_is_not_mentioned(name):
    _, sites = rewrite(NO_SITES[name])
    assert sites == []


def test_training_keeps_the_parametrisation():
    model = nn.Sequential(nn.Linear(20, 24), nn.Linear(24, 12))
    module = trace(model, X)
    before = module.code
    (site,) = LINEAR_CHAINS.run(module, Context(grad=True))
    assert site.status == "refused"
    assert site.reason.startswith(
        "gradients are wanted of 0.weight, 0.bias, 1.weight, 1.bias: merging would train"
    )
    assert "torch.no_grad()" in site.reason
    assert module.code == before


def test_a_long_list_of_trained_weights_is_cut_short():
    model = nn.Sequential(nn.Linear(20, 24), nn.Linear(24, 12), nn.Linear(12, 4))
    (site,) = LINEAR_CHAINS.run(trace(model, X), Context(grad=True))
    assert "0.weight, 0.bias, 1.weight, 1.bias and 2 more: merging" in site.reason


def test_gradients_that_stop_between_the_maps_are_kept():
    frozen = {name: value.clone() for name, value in WEIGHTS.items()}

    def detached(w, x):
        return second(w, first(w, x).detach())

    def no_grad(w, x):
        with torch.no_grad():
            hidden = first(w, x)
        return second(w, hidden)

    for function, reason in ((detached, "stops gradients"), (no_grad, "a no_grad region begins or ends")):
        for grad in (True, False):  # what comes out may be trained later
            _, (site,) = rewrite(function, weights=frozen, grad=grad)
            assert site.status == "refused" and reason in site.reason


def test_the_cost_model_may_say_no_with_both_costs():
    weights = {"A": torch.randn(4, 64), "B": torch.randn(64, 4)}

    def function(w, x):
        return F.linear(F.linear(x, w.A), w.B)

    machine = Machine(launch=1e-9, pair_launches=2)
    _, (site,) = rewrite(function, torch.randn(8192, 64), weights=weights, machine=machine)
    assert site.status == "refused"
    assert site.reason.startswith("merging 64 -> 4 -> 64 would be no faster: predicted")
    assert "us as it stands at 8192 rows, 512 against 512 weights" in site.reason


def test_verification_may_deny_a_site():
    _, (site,) = rewrite(lambda w, x: second(w, first(w, x)))
    assert site.status == "rewritten"
    denied = {site.key: "verification: relative error 1e-2, allowed 1e-6"}
    module, (site,) = rewrite(lambda w, x: second(w, first(w, x)), denied=denied)
    assert site.status == "refused"
    assert site.reason == "verification: relative error 1e-2, allowed 1e-6"
    assert counts(module) == {"linear": 2}


def test_an_integer_chain_is_refused():
    weights = {"W1": torch.ones(3, 2, dtype=torch.int64), "W2": torch.ones(2, 3, dtype=torch.int64)}

    def function(w, x):
        return x @ w.W1.T @ w.W2.T

    _, (site,) = rewrite(function, torch.ones(4, 2, dtype=torch.int64), weights=weights)
    assert site.reason == "`matmul` computes in int64, not in a real floating-point dtype"


def test_a_bias_that_differs_by_row_ends_the_chain():
    weights = WEIGHTS | {"V": torch.randn(7, 12)}

    def function(w, x, rows):
        return F.linear(torch.addmm(rows, first(w, x), w.W2.t()), w.V)

    _, sites = rewrite(function, X, torch.randn(6, 12), weights=weights)
    (site,) = sites
    assert "the term that `addmm` adds is not a bias" in site.reason


def test_the_rest_of_a_broken_chain_is_still_merged():
    weights = WEIGHTS | {"U": torch.randn(20, 20), "V": torch.randn(9, 12)}

    def function(w, x):
        hidden = F.linear(F.linear(x, w.U), w.W1)
        return F.linear(F.linear(hidden, w.W2, w.b2), w.V), hidden

    module, sites = rewrite(function, weights=weights)
    assert [site.status for site in sites] == ["rewritten", "refused", "rewritten"]
    assert counts(module) == {"linear": 2}
    new, old = (
        run(module, list(weights.values()), X),
        run(trace(function, X, weights=weights), list(weights.values()), X),
    )
    for value, expected in zip(new, old, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-3)


def test_a_call_that_spends_more_on_looking_at_weights_is_left_alone():
    def chain(w, x):
        return second(w, first(w, x))

    _, (site,) = rewrite(chain, look=1e-9)
    assert site.status == "rewritten"
    _, (site,) = rewrite(chain, look=1e-4)
    assert site.code == "no_faster" and site.figures["after"] > 400 > site.figures["before"]  # four weights
