"""Weights that are computed from parameters alone are computed once, and taken into the maps around them."""

import copy

import pytest
import torch
from graphs import counts, folds, run, trace
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize
from torch.utils._python_dispatch import TorchDispatchMode

import stonefx
from stonefx.passes.fold_weights import WEIGHT_EXPRESSIONS
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.site import Context


class Computed(nn.Module):
    """A map whose weight and bias are a function of parameters, and what reads its result."""

    def __init__(self, weight, bias=lambda s: s.b, after=None):
        super().__init__()
        self.weight_of, self.bias_of = weight, bias
        self.w, self.b = nn.Parameter(torch.randn(32, 24) / 5), nn.Parameter(torch.randn(32))
        self.g, self.s = nn.Parameter(torch.rand(32, 1) + 0.5), nn.Parameter(torch.randn(24) / 4)
        self.u, self.v = nn.Parameter(torch.randn(32, 2)), nn.Parameter(torch.randn(2, 24))
        self.register_buffer("order", torch.randperm(24))
        self.register_buffer("codes", torch.randint(-127, 128, (32, 24), dtype=torch.int8))
        self.after = after or nn.Linear(32, 4)

    def forward(self, x):
        return self.after(F.linear(x, self.weight_of(self), self.bias_of(self)))


def parametrised(make, inputs=24, outputs=32):
    return nn.Sequential(make(nn.Linear(inputs, outputs)), nn.Linear(outputs, 4))


class Symmetric(nn.Module):
    def forward(self, weight):
        return weight.triu() + weight.triu(1).mT


def symmetric(layer):
    parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


EXPRESSIONS = {
    "weight_norm": lambda: parametrised(parametrizations.weight_norm),
    "spectral_norm": lambda: parametrised(parametrizations.spectral_norm),
    "orthogonal": lambda: parametrised(parametrizations.orthogonal, 24, 24),
    "a parametrisation of one's own": lambda: parametrised(symmetric, 24, 24),
    "the operator of weight_norm": lambda: Computed(lambda s: torch._weight_norm(s.w, s.g, 0)),
    "exp of a scale": lambda: Computed(lambda s: s.w * s.s.exp()),
    "masked": lambda: Computed(lambda s: s.w * (s.w > 0)),
    "permuted": lambda: Computed(lambda s: s.w[:, s.order]),
    "concatenated": lambda: Computed(lambda s: torch.cat([s.w[:8], s.w[8:] * 2])),
    "cast": lambda: Computed(lambda s: s.w.to(torch.bfloat16).to(s.w.dtype)),
    "dequantised": lambda: Computed(lambda s: s.codes.to(s.w.dtype) * s.g / 127),
    "low rank added": lambda: Computed(lambda s: s.w + s.u @ s.v),
    "a bias through a function": lambda: Computed(lambda s: s.w, lambda s: s.b.tanh() * 2),
    "convolution": lambda: nn.Sequential(
        parametrizations.weight_norm(nn.Conv1d(24, 32, 3, padding=1)), nn.Conv1d(32, 4, 1)
    ),
}


def made(name):
    torch.manual_seed(0)
    model = EXPRESSIONS[name]().eval()
    return model, torch.randn(2, 24, 9) if name == "convolution" else torch.randn(6, 24)


def relative(value, exact):
    return ((value.double() - exact).abs().max() / exact.abs().max()).item()


def rounded_first(model, x):
    """The float64 value of a model with weights as it computes them in its own dtype."""
    with torch.no_grad():
        first, last = (model[0], model[1]) if isinstance(model, nn.Sequential) else (None, model.after)
        weight = first.weight if first is not None else model.weight_of(model)
        bias = first.bias if first is not None else model.bias_of(model)
        if x.dim() == 3:
            return F.conv1d(
                F.conv1d(x.double(), weight.double(), bias.double(), padding=1),
                last.weight.double(),
                last.bias.double(),
            )
        return F.linear(
            F.linear(x.double(), weight.double(), bias.double()), last.weight.double(), last.bias.double()
        )


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_optimize_leaves_one_map_of_the_weight_as_it_was_computed(name):
    model, x = made(name)
    fast = stonefx.optimize(model, x)
    (site,) = [site for site in fast.report.sites if site.status == "rewritten"]
    assert site.target in ("linear_chain", "conv_chain"), site
    assert site.params_after == 4 * 24 * (3 if name == "convolution" else 1) + 4
    with torch.no_grad():
        assert relative(fast(x), rounded_first(model, x)) <= 2e-6


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_compile_keeps_the_folds_fresh(name):
    model, x = made(name)
    torch._dynamo.reset()
    fast = torch.compile(model, backend="stone", options={"inner": "eager"})
    with torch.no_grad():
        fast(x)
        assert [s.status for s in stonefx.last_report().sites].count("rewritten") == 1
        for parameter in model.parameters():
            parameter.mul_(1.25)
        assert relative(fast(x), rounded_first(model, x)) <= 2e-6


class Calls(TorchDispatchMode):
    """Notes the operators that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def alone(weight, **more):
    return Computed(weight, after=nn.ReLU(), **more)


ALONE = {
    "weight_norm": lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(24, 32)), nn.ReLU()),
    "exp of a scale": lambda: alone(lambda s: s.w * s.s.exp()),
    "dequantised": lambda: alone(lambda s: s.codes.to(s.w.dtype) * s.g / 127),
    "transposed behind": lambda: alone(lambda s: (s.w * 2).mT.contiguous().mT),
}


@pytest.mark.parametrize("name", ALONE)
def test_where_nothing_is_merged_the_expression_is_computed_once(name):
    torch.manual_seed(0)
    model, x = ALONE[name]().eval(), torch.randn(6, 24)
    fast = stonefx.optimize(model, x)
    (site,) = fast.report.sites
    assert (site.target, site.status) == ("weight_expression", "rewritten")
    assert site.reason.endswith("of weights alone: computed once")
    with torch.no_grad():
        with Calls() as calls:
            got = fast(x)
        # A view of what is kept copies nothing.
        assert set(calls.names) - {"t", "transpose"} == {"addmm", "relu"}, calls.names
        torch.testing.assert_close(got, model(x))
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="stone", options={"inner": "eager"})
        compiled(x)
        for parameter in model.parameters():
            parameter.mul_(1.25)
        torch.testing.assert_close(compiled(x), model(x))


def graph_of(function, **context):
    weights = {"w": torch.randn(4, 6), "s": torch.randn(6), "b": torch.randn(4)}
    module = trace(function, torch.randn(3, 6), weights=weights)
    return module, WEIGHT_EXPRESSIONS.run(module, Context(**context))


def test_what_is_read_through_views_is_folded_below_them():
    module, (site,) = graph_of(lambda w, x: x * w.s.exp().view(1, 6).expand(3, 6))
    assert site.output == "exp" and folds(module) == ["s.exp"]


COPIES = {
    "contiguous": lambda w: (w * 2).mT.contiguous(),
    "contiguous, seen transposed": lambda w: (w * 2).mT.contiguous().mT,
    "reshape": lambda w: (w * 2).mT.reshape(24),
    "flatten": lambda w: (w * 2).mT.flatten(),
    "expanded": lambda w: (w.view(1, 4, 6) * 2).expand(3, 4, 6).reshape(12, 6),
    "to": lambda w: (w * 2).to(torch.float64),
    "cast there and back": lambda w: (w * 2).bfloat16().float(),
    "contiguous of a slice": lambda w: (w * 2)[:, ::2].contiguous(),
}
VIEWS = {
    "contiguous already": lambda w: (w * 2).contiguous(),
    "reshape": lambda w: (w * 2).reshape(24),
    "to its own dtype": lambda w: (w * 2).to(torch.float32),
    "flatten": lambda w: (w * 2).flatten(),
    "slice": lambda w: (w * 2)[:, ::2],
}


@pytest.mark.parametrize("expression", COPIES.values(), ids=COPIES)
def test_a_copy_is_folded_with_the_expression(expression):
    module, (site,) = graph_of(lambda w, x: x.sum() * expression(w.w))
    left = {"sum", "mul", "mT"}  # a view of what is kept copies nothing
    assert site.status == "rewritten" and set(counts(module)) <= left, counts(module)
    assert counts(module)["mul"] == 1


@pytest.mark.parametrize("expression", VIEWS.values(), ids=VIEWS)
def test_what_copies_nothing_is_left_behind_the_fold(expression):
    _, (site,) = graph_of(lambda w, x: x.sum() * expression(w.w))
    assert site.status == "rewritten" and site.output == "mul"


def test_views_of_weights_are_no_expressions():
    _, sites = graph_of(lambda w, x: F.linear(x, w.w.t().t()) + w.b.view(1, 4))
    assert sites == []


def test_a_value_that_the_caller_gets_is_computed_at_every_call():
    _, sites = graph_of(lambda w, x: (x * w.s.exp(), w.s.exp()))
    assert len(sites) == 1
    _, sites = graph_of(lambda w, x: (lambda e: (x * e, e.view(2, 3)))(w.s.exp()))
    assert sites == []


def test_a_value_that_outgrows_its_weights_is_not_kept():
    _, sites = graph_of(lambda w, x: x[:, :1, None] * (w.s[:, None] + w.s[None]).repeat(1, 3000))
    assert sites == []


def test_what_must_not_be_folded_says_why():
    def changed(w, x):
        scale = w.s.exp()
        view = scale.view(6)
        scale.mul_(2)
        return F.linear(x * view, w.w)

    _, (site,) = graph_of(changed)
    assert site.status == "refused" and "is changed by `mul_`" in site.reason

    def autocast(w, x):
        with torch.autocast("cpu", torch.bfloat16):
            weight = w.w @ w.w.mT
        return F.linear(x[:, :4], weight.float())

    _, sites = graph_of(autocast)
    assert any("under autocast, where the dtype is chosen at run time" in site.reason for site in sites)
    _, (site,) = graph_of(lambda w, x: x * w.s.exp(), keep=("s",))
    assert site.reason == "the weight 's' is to be kept as it is"


def test_an_expression_that_is_written_to_is_not_merged():
    def changed(w, x):
        scale = w.s.exp()
        view = scale.view(6)
        scale.mul_(2)
        return F.linear(F.linear(x * view, w.w), w.w.t())

    weights = {"w": torch.randn(4, 6), "s": torch.randn(6)}
    x = torch.randn(3, 6)
    module = trace(changed, x, weights=weights)
    LINEAR_CHAINS.run(module, Context())
    torch.testing.assert_close(run(module, list(weights.values()), x), changed(type("W", (), weights), x))


def test_training_keeps_the_expression():
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(24, 32)), nn.ReLU())
    module = trace(model, torch.randn(6, 24))
    before = counts(module)
    (site,) = WEIGHT_EXPRESSIONS.run(module, Context(grad=True))
    assert site.status == "refused" and site.reason.startswith("gradients are wanted of 0.parametrizations")
    assert counts(module) == before


def test_a_saved_result_holds_what_was_computed(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(24, 32)), nn.ReLU(), nn.Linear(32, 4)).eval()
    x = torch.randn(6, 24)
    fast = stonefx.optimize(copy.deepcopy(model), x)
    stonefx.save(fast, tmp_path / "model.stone")
    torch.testing.assert_close(stonefx.load(tmp_path / "model.stone")(x), fast(x))


def test_what_is_computed_along_with_its_reader_is_not_kept():
    """A fused step costs no more than reading what it would have made; before a product it is one of its own."""
    _, (site,) = graph_of(lambda w, x: x * w.s.exp(), inner="inductor", look=1e-7)
    assert (site.status, site.code) == ("refused", "expression_no_faster")
    assert site.reason.startswith("`exp` of weights alone, computed once, would spare")
    _, (site,) = graph_of(lambda w, x: x * w.s.exp(), inner="eager", look=1e-7)
    assert site.status == "rewritten"

    _, (site,) = graph_of(lambda w, x: F.linear(x, (w.w * 2)[:2]), inner="inductor", look=1e-9)
    assert site.status == "rewritten"


def test_looking_at_weights_may_cost_more_than_the_expression():
    for look, status in ((0.0, "rewritten"), (1e-3, "refused")):
        _, (site,) = graph_of(lambda w, x: x * w.s.exp(), look=look)
        assert site.status == status, site.reason
    assert "and 1e+03 us would go into seeing that the weights have not changed" in site.reason
