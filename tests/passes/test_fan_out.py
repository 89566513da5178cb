"""Maps that read one value become one map and a split, and the key map of a single head moves to the query."""

import pytest
import torch
from graphs import counts, folds, run, trace
from torch import nn
from torch.nn import functional as F

import stonefx
from stonefx.passes.cost.machine import Machine
from stonefx.passes.linear import ATTENTION, LINEAR_CHAINS, LINEAR_FAN_OUT
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier


class SelfAttention(nn.Module):
    def __init__(self, width=64, heads=4, bias=True, split=True):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width, bias and i != 1) for i in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x):
        batch, length, width = x.shape
        query, key, value = (
            layer(x).view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


class ImageAttention(nn.Module):
    """The attention of an image autoencoder: one head, maps that are convolutions of single places."""

    def __init__(self, width=32):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x):
        batch, width, height, length = x.shape
        query, key, value = (
            layer(x).reshape(batch, 1, width, height * length).transpose(2, 3)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return x + self.out(mixed.transpose(2, 3).reshape(batch, width, height, length))


class Projected(nn.Module):
    """ALBERT's: a narrow embedding, mapped to the width of a layer that reads it four times."""

    def __init__(self):
        super().__init__()
        self.mapping = nn.Linear(16, 64)
        self.layer = SelfAttention(64, 4)

    def forward(self, x):
        hidden = self.mapping(x)
        return hidden + self.layer(hidden)


def rewritten(model, x, *passes, dynamic=False, **context):
    torch.manual_seed(0)
    module, sites = trace(model, x, dynamic=dynamic), []
    NORMALIZE.run(module, Context())
    names = [node.name for node in module.graph.nodes if node.op == "placeholder"]
    values = dict(zip(names, [*model.parameters(), *model.buffers()], strict=False))
    for each in passes:
        before = trace(model, x, dynamic=dynamic) if each is passes[0] else None
        if before is not None:
            NORMALIZE.run(before, Context())
        found = each.run(module, Context(**context))
        if before is not None:
            assert Verifier(values).failures(before, module, found) == {}
        sites += found
    return module, sites


def check(module, model, x):
    exact = model.double()(x.double())
    model.float()
    value = run(module, model, x)
    assert (value.double() - exact).abs().max() <= 2e-6 * exact.abs().max()


@pytest.mark.parametrize("dynamic", [False, True])
def test_query_key_and_value_become_one_map(dynamic):
    model, x = SelfAttention().eval(), torch.randn(2, 5, 64)
    module, (site,) = rewritten(model, x, LINEAR_FAN_OUT, dynamic=dynamic)
    assert (site.target, site.status) == ("linear_fan_out", "rewritten"), site.reason
    assert counts(module)["linear"] == 2 and counts(module)["split_with_sizes"] == 1
    assert folds(module) == ["query+key+value.weight", "query+key+value.bias"]
    assert site.also == ("linear_1", "linear_2")
    check(module, model, x)
    if dynamic:
        check(module, model, torch.randn(3, 7, 64))


def test_large_maps_gain_nothing_and_stay():
    model, x = SelfAttention(512, 8).eval(), torch.randn(2, 64, 512)
    _, (site,) = rewritten(model, x, LINEAR_FAN_OUT)
    assert site.status == "refused"
    assert "one map 512 -> 512 + 512 + 512 would be no faster: predicted" in site.reason


class Pair(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(16, 16) for _ in range(3))
        self.function = function

    def forward(self, x):
        return self.function(self, x)


REFUSED = {
    "is returned": lambda m, x: (m.a(x), m.b(x).relu() + m.c(x).relu()),
    "is changed in place": lambda m, x: m.a(x).add_(1) * m.b(x) * m.c(x).relu(),
    "viewed in a way": lambda m, x: m.a(x).view(-1) * m.b(x).view(-1) * m.c(x).view(-1),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_part_of_a_wider_result_cannot_be_is_refused(reason):
    model, x = Pair(REFUSED[reason]).eval(), torch.randn(4, 16)
    module = trace(model, x)
    code = module.code
    (site,) = LINEAR_FAN_OUT.run(module, Context(machine=Machine(launch=1e-3)))
    assert site.status == "refused" and reason in site.reason
    assert module.code == code


def test_training_keeps_the_maps_apart():
    _, (site,) = rewritten(SelfAttention(), torch.randn(2, 5, 64), LINEAR_FAN_OUT, grad=True)
    assert site.reason.startswith("gradients are wanted of")


def test_a_mapped_embedding_is_read_past_the_mapping():
    model, x = Projected().eval(), torch.randn(2, 5, 16)
    module, sites = rewritten(model, x, LINEAR_CHAINS, LINEAR_FAN_OUT)
    assert [site.target for site in sites if site.status == "rewritten"] == 3 * ["linear_chain"] + [
        "linear_fan_out"
    ]
    assert counts(module)["linear"] == 2
    check(module, model, x)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(
    ("model", "shape", "maps"), [(SelfAttention(64, 1), (2, 5, 64), 2), (ImageAttention(), (1, 32, 8, 8), 2)]
)
def test_a_single_head_needs_no_key_map_and_no_output_map(model, shape, maps, dynamic):
    if dynamic and len(shape) == 4:
        pytest.skip("a reshape of sizes that all vary cannot be traced")
    model, x = model.eval(), torch.randn(shape)
    module, sites = rewritten(model, x, ATTENTION, LINEAR_CHAINS, dynamic=dynamic)
    assert [site.status for site in sites] == ["rewritten"] * 3, sites
    assert counts(module).get("linear", 0) + counts(module).get("conv2d", 0) == maps
    check(module, model, x)


def test_several_heads_are_refused_with_the_figures():
    _, (site,) = rewritten(SelfAttention(64, 4).eval(), torch.randn(2, 5, 64), ATTENTION)
    assert site.status == "refused"
    assert "would make each of 4 heads 64 features wide instead of 16: predicted" in site.reason
    assert (
        "taking the output map into the value map would make each head 64 wide instead of 16" in site.reason
    )


def test_a_mask_keeps_the_constant_of_the_values():
    class Masked(SelfAttention):
        def forward(self, x):
            batch, length, width = x.shape
            query, key, value = (
                layer(x).view(batch, length, 1, width).transpose(1, 2)
                for layer in (self.query, self.key, self.value)
            )
            mask = torch.zeros(length, length, dtype=torch.bool)
            mask[1:] = True  # the first row sees nothing, and gets no average
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            return self.out(mixed.transpose(1, 2).reshape(batch, length, width)[:, 1:])

    model, x = Masked(64, 1).eval(), torch.randn(2, 5, 64)
    module, _ = rewritten(model, x, ATTENTION, LINEAR_CHAINS)
    check(module, model, x)


def test_a_norm_scale_goes_into_every_map_that_reads_it():
    class Normed(SelfAttention):
        def __init__(self):
            super().__init__(32, 4)
            self.scale = nn.Parameter(torch.randn(32))

        def forward(self, x):
            return super().forward(x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.scale)

    model, x = Normed().eval(), torch.randn(2, 5, 32)
    module, sites = rewritten(model, x, LINEAR_CHAINS)
    assert [site.status for site in sites].count("rewritten") == 3
    assert counts(module)["mul"] == 1
    check(module, model, x)


def test_a_layer_norm_gives_its_weights_away_where_that_pays():
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.map = nn.LayerNorm(32), nn.Linear(32, 32)
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.bias)

        def forward(self, x):
            return self.map(self.norm(x))

    model, x = Normed().eval(), torch.randn(2, 5, 32)
    slow_memory = Machine(bandwidth=1e6, flop_rate=1e12, launch=1e-9)
    module, (site,) = rewritten(model, x, LINEAR_CHAINS, machine=slow_memory)
    assert site.status == "rewritten"
    (norm,) = [node for node in module.graph.nodes if "layer_norm" in str(node.target)]
    assert norm.args[2] is None and norm.args[3] is None
    check(module, model, x)


def test_folds_on_the_way_to_a_merged_map_are_not_kept():
    """The scale is taken into each of three maps, which then become one: its weights alone are left."""

    class Projections(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.rand(64) + 0.5)
            self.maps = nn.ModuleList(nn.Linear(64, width, bias=False) for width in (64, 32, 32))

        def forward(self, x):
            scaled = torch.tanh(x) * self.scale
            return sum(torch.relu(each(scaled)).sum() for each in self.maps)

    model = Projections().eval()
    fast = stonefx.optimize(model, torch.randn(4, 8, 64), machine="default")
    assert {site.target for site in fast.report.rewritten()} >= {"linear_chain", "linear_fan_out"}
    assert sum(value.numel() for value in fast.parameters()) == 64 * 128


def test_residual_blocks_of_one_value_become_one_map():
    """What each becomes is folded with an identity matrix in it, and is a weight all the same."""

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))

        def forward(self, x):
            x = torch.tanh(x)
            return sum(torch.relu(x + block(x)) for block in self.blocks)

    model, x = Blocks().eval(), torch.randn(4, 16)
    fast = stonefx.optimize(model, x, machine="default")
    targets = [site.target for site in fast.report.rewritten()]
    assert targets == [*["linear_chain"] * 4, "linear_fan_out"]
    exact = model.double()(x.double())
    assert (fast(x).double() - exact).abs().max() <= 1e-5 * exact.abs().max()
