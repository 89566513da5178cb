"""Chains of linear maps, in every spelling, are merged into what the plan says, with the same values."""

import itertools

import pytest
import torch
from graphs import counts, folds, run, trace
from torch import nn
from torch.nn import functional as F

import stonefx.ops  # noqa: F401  (registers stone::low_rank_linear)
from stonefx.passes.cost.machine import Machine
from stonefx.passes.linear import LINEAR_CHAINS, LINEAR_CONTRACTIONS
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

ROWS, WIDE, MIDDLE, NARROW = 6, 20, 24, 12
SHAPES = {"W1": (MIDDLE, WIDE), "b1": (MIDDLE,), "W2": (NARROW, MIDDLE), "b2": (NARROW,), "s": (MIDDLE,)}


def make_weights(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def relative(value, exact):
    return ((value.double() - exact).abs().max() / exact.abs().max()).item()


def rewrite(module, **context):
    return LINEAR_CHAINS.run(module, Context(**context))


SPELLINGS = {
    "linear": lambda w, x: F.linear(F.linear(x, w.W1, w.b1), w.W2, w.b2),
    "linear without bias": lambda w, x: F.linear(F.linear(x, w.W1), w.W2),
    "first bias only": lambda w, x: F.linear(F.linear(x, w.W1, w.b1), w.W2),
    "last bias only": lambda w, x: F.linear(F.linear(x, w.W1), w.W2, w.b2),
    "x @ W.T + b": lambda w, x: (x @ w.W1.T + w.b1) @ w.W2.T + w.b2,
    "b + x @ W.t()": lambda w, x: w.b2 + (w.b1 + x @ w.W1.t()) @ w.W2.t(),
    "x @ W.mT": lambda w, x: x @ w.W1.mT @ w.W2.mT,
    "transpose": lambda w, x: torch.matmul(torch.matmul(x, w.W1.transpose(0, 1)), w.W2.transpose(-1, -2)),
    "permute": lambda w, x: torch.matmul(torch.matmul(x, w.W1.permute(1, 0)), w.W2.permute(-1, 0)),
    "mm": lambda w, x: torch.mm(torch.mm(x, w.W1.t()), w.W2.t()),
    "addmm": lambda w, x: torch.addmm(w.b2, torch.addmm(w.b1, x, w.W1.t()), w.W2.t()),
    "addmm with factors": lambda w, x: torch.addmm(
        w.b2, torch.addmm(w.b1, x, w.W1.t(), beta=0.5, alpha=2.0), w.W2.t(), beta=-1, alpha=3
    ),
    "einsum": lambda w, x: torch.einsum("bj,oj->bo", torch.einsum("bi,oi->bo", x, w.W1), w.W2),
    "einsum, ellipsis": lambda w, x: torch.einsum("... j, oj -> ... o", F.linear(x, w.W1), w.W2),
    "einsum, weight first": lambda w, x: torch.einsum("oj,bj->bo", w.W2, torch.einsum("oi,bi->bo", w.W1, x)),
    "mixed": lambda w, x: torch.einsum("bi,oi->bo", torch.addmm(w.b1, x, w.W1.t()), w.W2) + w.b2,
    "scalar bias": lambda w, x: (x @ w.W1.T + 0.5) @ w.W2.T - 2,
    "scalar first": lambda w, x: 1.5 - (2 + x @ w.W1.T) @ w.W2.T,
    "bias subtracted": lambda w, x: w.b2 - F.linear(F.linear(x, w.W1) - w.b1, w.W2),
    "bias with alpha": lambda w, x: torch.add(F.linear(torch.sub(F.linear(x, w.W1), w.b1, alpha=3), w.W2), 1),
    "bias as a row": lambda w, x: F.linear(F.linear(x, w.W1) + w.b1[None], w.W2),
    "scaled": lambda w, x: F.linear(F.linear(x, w.W1, w.b1) * 0.25, w.W2) / 3,
    "scaled by a weight": lambda w, x: F.linear(w.s * F.linear(x, w.W1, w.b1) / w.s.exp(), w.W2),
    "negated": lambda w, x: -F.linear(-F.linear(x, w.W1, w.b1), w.W2),
    "eval dropout": lambda w, x: F.linear(F.dropout(F.linear(x, w.W1), 0.5, training=False), w.W2),
    "no-op conversions": lambda w, x: F.linear(F.linear(x, w.W1).to(x.dtype).contiguous().clone(), w.W2),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("normalized", [False, True], ids=["raw", "normalized"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_becomes_one_linear(spelling, normalized, dynamic):
    weights, function = make_weights(), SPELLINGS[spelling]
    x = torch.randn(ROWS, WIDE, generator=torch.Generator().manual_seed(1))
    module = trace(function, x, weights=weights, dynamic=dynamic)
    if normalized:
        NORMALIZE.run(module, Context())
    (site,) = rewrite(module)
    assert site.status == "rewritten", site.reason
    assert counts(module) == {"linear": 1}
    exact = function_in_double(function, weights, x)
    assert relative(run(module, list(weights.values()), x), exact) <= site.bound
    if dynamic:
        more = torch.randn(3 * ROWS, WIDE, generator=torch.Generator().manual_seed(2))
        exact = function_in_double(function, weights, more)
        assert relative(run(module, list(weights.values()), more), exact) <= site.bound


def function_in_double(function, weights, *inputs):
    held = type("Held", (), {name: value.double() for name, value in weights.items()})
    return function(held, *(value.double() for value in inputs))


RESHAPED = {
    "flatten": lambda w, x: F.linear(F.linear(x, w.W1, w.b1).flatten(0, 1), w.W2, w.b2),
    "flatten and back": lambda w, x: F.linear(F.linear(x, w.W1).flatten(0, 1), w.W2).unflatten(
        0, x.shape[:2]
    ),
    "view": lambda w, x: F.linear(F.linear(x, w.W1, w.b1).view(-1, MIDDLE), w.W2),
    "view, feature axis inferred": lambda w, x: F.linear(
        F.linear(x, w.W1).view(x.shape[0] * x.shape[1], -1), w.W2
    ),
    "reshape twice": lambda w, x: F.linear(
        F.linear(x, w.W1).reshape(-1, MIDDLE).reshape(x.shape[1], x.shape[0], MIDDLE), w.W2
    ),
    "sizes read off the intermediate": lambda w, x: size_reader(w, x),
    "unsqueeze": lambda w, x: F.linear(F.linear(x, w.W1).unsqueeze(1), w.W2),
    "unsqueeze and squeeze": lambda w, x: F.linear(F.linear(x, w.W1).unsqueeze(0).squeeze(0), w.W2),
    "unflatten": lambda w, x: F.linear(F.linear(x, w.W1).unflatten(0, (2, -1)), w.W2),
    "bias behind a reshape": lambda w, x: F.linear(F.linear(x, w.W1), w.W2).reshape(-1, NARROW) + w.b2,
}


def size_reader(w, x):
    hidden = F.linear(x, w.W1, w.b1)
    batch, length, width = hidden.shape
    flat = hidden.reshape(batch * length, width)
    return F.linear(flat, w.W2).reshape(batch, length, NARROW) + w.b2


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("spelling", RESHAPED)
def test_reshapes_of_leading_dimensions_are_seen_through(spelling, dynamic):
    weights, function = make_weights(), RESHAPED[spelling]
    x = torch.randn(4, 5, WIDE, generator=torch.Generator().manual_seed(1))
    module = trace(function, x, weights=weights, dynamic=dynamic)
    NORMALIZE.run(module, Context())
    (site,) = rewrite(module)
    assert site.status == "rewritten", site.reason
    assert counts(module)["linear"] == 1
    for batch, length in ((4, 5), (6, 3)) if dynamic else ((4, 5),):
        value = torch.randn(batch, length, WIDE, generator=torch.Generator().manual_seed(2))
        exact = function_in_double(function, weights, value)
        result = run(module, list(weights.values()), value)
        assert result.shape == exact.shape
        assert relative(result, exact) <= site.bound


def seed_chain():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(128, 256),
        nn.Identity(),
        nn.Linear(256, 128),
        nn.Dropout(),
        nn.Linear(128, 64),
        nn.Linear(64, 32),
    ).eval()


def test_the_seed_chain():
    model, x = seed_chain(), torch.randn(32, 128)
    module = trace(model, x)
    (site,) = rewrite(module)
    assert (site.pass_name, site.target, site.status) == ("linear_chains", "linear_chain", "rewritten")
    assert (site.params_before, site.params_after) == (76256, 4128)
    assert (site.flops_before, site.flops_after) == (2 * 32 * 75776, 2 * 32 * 4096)
    assert site.nodes == ("linear", "linear_1", "dropout", "linear_2", "linear_3")
    assert site.output == site.replacement == "linear_3"
    assert len(site.inputs) == 1 + 8
    assert site.guards == {}
    assert site.reason.startswith("128 -> 256 -> 128 -> 64 -> 32 became 128 -> 32; predicted")
    assert folds(module) == ["0+2+4+5.weight", "0+2+4+5.bias"]
    value = run(module, model, x)
    assert relative(value, model.double()(x.double())) <= 1e-6


def test_folds_are_computed_from_weights_alone_and_follow_them():
    model, x = seed_chain(), torch.randn(8, 128)
    module = trace(model, x)
    rewrite(module)
    for node in module.graph.nodes:
        if "fold" in node.meta:
            assert node.meta["val"].dtype == torch.float32
            assert node.meta["val"].shape in ((32, 128), (32,))
    with torch.no_grad():
        model[0].weight.mul_(3)
        model[5].bias.add_(1)
    assert relative(run(module, model, x), model.double()(x.double())) <= 1e-6


def test_verification_accepts_the_sites_and_measures_them():
    model = seed_chain()
    module = trace(model, torch.randn(32, 4, 128), dynamic=True)
    before = trace(model, torch.randn(32, 4, 128), dynamic=True)
    sites = rewrite(module)
    names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    values = dict(zip(names, model.parameters(), strict=False))
    assert Verifier(values).failures(before, module, sites) == {}
    assert 0 < sites[0].max_error <= 1e-6


def test_a_thin_middle_becomes_a_low_rank_pair():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(96, 4), nn.Linear(4, 96)).eval()
    x = torch.randn(5, 7, 96)
    module = trace(model, x, dynamic=True)
    (site,) = rewrite(module)
    assert (site.target, site.status) == ("low_rank", "rewritten")
    assert counts(module) == {"low_rank_linear": 1}
    assert folds(module) == ["1.bias"]
    assert (site.params_before, site.params_after) == (2 * 96 * 4 + 100, 2 * 96 * 4 + 96)
    assert relative(run(module, model, x), model.double()(x.double())) <= site.bound


def test_a_long_chain_with_a_thin_middle_is_cut_there():
    torch.manual_seed(0)
    widths = [256, 512, 4, 512, 256]
    model = nn.Sequential(*(nn.Linear(*pair) for pair in itertools.pairwise(widths))).eval()
    x = torch.randn(64, 256)
    module = trace(model, x)
    (site,) = rewrite(module)
    assert site.target == "low_rank"
    assert counts(module) == {"low_rank_linear": 1}
    assert folds(module) == ["0+1.weight", "2+3.weight", "2+3.bias"]
    assert relative(run(module, model, x), model.double()(x.double())) <= site.bound


def test_a_plan_of_several_parts_keeps_the_bias_of_each():
    torch.manual_seed(0)
    widths = [64, 128, 8, 8, 8, 256]
    model = nn.Sequential(*(nn.Linear(*pair) for pair in itertools.pairwise(widths))).eval()
    x = torch.randn(64, 64)
    module = trace(model, x)
    machine = Machine(launch=1e-9, pair_launches=100)
    (site,) = rewrite(module, machine=machine)
    assert site.status == "rewritten"
    assert counts(module) == {"linear": 2}
    assert relative(run(module, model, x), model.double()(x.double())) <= site.bound


def test_under_inductor_a_plain_thin_pair_is_left_alone():
    model = nn.Sequential(nn.Linear(96, 4), nn.Linear(4, 96)).eval()
    (site,) = rewrite(trace(model, torch.randn(4096, 96)), inner="inductor")
    assert site.status == "refused"
    assert "would be no faster" in site.reason


def test_the_same_weight_may_occur_twice():
    torch.manual_seed(0)
    weights = {"W": torch.randn(16, 16), "b": torch.randn(16)}

    def function(w, x):
        return F.linear(F.linear(F.linear(x, w.W, w.b), w.W, w.b), w.W, w.b)

    x = torch.randn(4, 16)
    module = trace(function, x, weights=weights)
    (site,) = rewrite(module)
    assert counts(module) == {"linear": 1}
    assert (site.params_before, site.params_after) == (272, 272)
    exact = function_in_double(function, weights, x)
    assert relative(run(module, list(weights.values()), x), exact) <= site.bound


def test_two_chains_back_to_back_across_a_shared_value():
    weights = make_weights() | {"V": torch.randn(20, 12), "U": torch.randn(8, 20)}

    def function(w, x):
        first = F.linear(F.linear(x, w.W1, w.b1), w.W2, w.b2)
        return first.relu() + F.pad(F.linear(F.linear(first, w.V), w.U), (0, 4))

    x = torch.randn(9, WIDE)
    module = trace(function, x, weights=weights)
    sites = rewrite(module)
    assert [site.status for site in sites] == ["rewritten", "refused", "rewritten"]
    assert sites[0].output in sites[1].nodes
    assert "relu" in sites[2].inputs
    exact = function_in_double(function, weights, x)
    assert relative(run(module, list(weights.values()), x), exact) <= 2 * sites[0].bound


def test_frozen_weights_are_merged_though_gradients_are_wanted():
    model = seed_chain().requires_grad_(False)
    module = trace(model, torch.randn(32, 128))
    (site,) = rewrite(module, grad=True)
    assert site.status == "rewritten"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_half_precision_folds_are_as_accurate_as_the_chain(dtype, biased):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(96, 128, biased), nn.Linear(128, 96, biased), nn.Linear(96, 48, biased)
    ).eval()
    model = model.to(dtype)
    x = torch.randn(64, 96, dtype=dtype)
    module = trace(model, x)
    (site,) = rewrite(module)
    with torch.no_grad():
        original = model(x)
        merged = run(module, model, x)
        exact = model.double()(x.double())
    assert merged.dtype == dtype
    assert relative(merged, exact) <= relative(original, exact) + torch.finfo(dtype).eps / 2
    assert relative(merged, exact) <= site.bound


def test_float64_chains_are_merged_in_float64():
    model = seed_chain().double()
    x = torch.randn(8, 128, dtype=torch.float64)
    module = trace(model, x)
    (site,) = rewrite(module)
    assert site.bound < 1e-12
    with torch.no_grad():
        assert relative(run(module, model, x), model(x)) <= site.bound


def test_regions_that_cross_are_reported_as_they_were():
    """The maps of the last axis are gone by the time that their own region, which loses to the other, is reported."""

    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = (
                nn.Conv2d(4, 24, 1, bias=False),
                nn.Conv2d(24, 8, 3, padding=1, bias=False),
            )
            self.weight = nn.Parameter(torch.randn(16, 4))

        def forward(self, x):
            return F.linear(F.linear(self.second(self.first(x)), self.weight), self.weight.t())

    model, x = Crossed().eval(), torch.randn(2, 4, 5, 4)
    module = trace(model, x)
    merged, other = LINEAR_CHAINS.run(module, Context())
    assert (merged.status, other.status, other.code) == ("rewritten", "refused", "other_axis")
    assert other.flops_before == 2 * 2 * (2 * 8 * 5 * 4 * 16)
    assert merged.flops_before == 2 * (2 * 5 * 4) * (4 * 24 + 24 * 9 * 8)
    assert relative(run(module, model, x), model.double()(x.double())) <= merged.bound


def test_a_product_that_moves_its_features_is_no_map_along_one_axis():
    """`tensordot` puts what it makes last: along another axis that would be the result with its axes swapped."""
    weights = {"up": torch.randn(8, 64), "down": torch.randn(64, 8)}
    x = torch.randn(8, 8)

    def function(w, x):
        hidden = torch.tensordot(x, w.up, dims=([0], [0]))
        return torch.tensordot(hidden, w.down, dims=([1], [0]))

    module = trace(function, x, weights=weights)
    NORMALIZE.run(module, Context())
    exact = (x.double().T @ weights["up"].double()) @ weights["down"].double()
    for each in (LINEAR_CHAINS, LINEAR_CONTRACTIONS):
        each.run(module, Context())
        assert relative(run(module, list(weights.values()), x), exact) <= 1e-5
    assert counts(module)["einsum"] == 1 and "tensordot" not in counts(module)


def test_a_single_row_without_batch_dimension():
    model, x = seed_chain(), torch.randn(128)
    module = trace(model, x)
    (site,) = rewrite(module)
    assert site.flops_before == 2 * 75776
    assert relative(run(module, model, x), model.double()(x.double())) <= site.bound


def test_an_empty_batch():
    model = seed_chain()
    module = trace(model, torch.randn(8, 128), dynamic=True)
    rewrite(module)
    assert run(module, model, torch.randn(0, 128)).shape == (0, 32)


def test_no_guard_is_added_to_dynamic_shapes():
    model, x = seed_chain(), torch.randn(6, 5, 128)
    module = trace(model, x, dynamic=True)
    environment = next(iter(module.graph.nodes)).meta["val"].fake_mode.shape_env
    before = [str(guard.expr) for guard in environment.guards]
    (site,) = rewrite(module)
    assert site.status == "rewritten"
    assert [str(guard.expr) for guard in environment.guards] == before


def test_every_new_node_has_a_value_of_the_right_shape_and_dtype():
    weights = make_weights(torch.bfloat16)
    x = torch.randn(4, 5, WIDE, dtype=torch.bfloat16)
    module = trace(RESHAPED["flatten"], x, weights=weights)
    rewrite(module)
    shapes = {}

    class Record(torch.fx.Interpreter):
        def run_node(self, n):
            shapes[n.name] = result = super().run_node(n)
            return result

    Record(module).run(*weights.values(), x)
    for node in module.graph.nodes:
        if node.op == "call_function":
            assert node.meta["val"].shape == shapes[node.name].shape, node.format_node()
            assert node.meta["val"].dtype == shapes[node.name].dtype, node.format_node()
            assert node.meta["val"].stride() == shapes[node.name].stride(), node.format_node()
