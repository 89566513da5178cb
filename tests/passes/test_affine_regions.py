"""Affine regions that branch, move their features or convolve are merged exactly, whatever stands between."""

import pytest
import torch
from graphs import counts, run, trace
from region_models import MERGED, DLinear, SegmentationHead, sequence
from torch import nn
from torch.nn import functional as F

import stonefx.ops  # noqa: F401  (registers stone::low_rank_linear)
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.normalize import NORMALIZE
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier


def build(make):
    torch.manual_seed(0)
    model = make().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.running_mean, module.weight.data, module.bias.data):
                tensor.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def traced(model, inputs, dynamic=False):
    module = trace(model, *inputs, dynamic=dynamic)
    NORMALIZE.run(module, Context())
    return module


def relative(value, exact):
    return ((value.double() - exact).abs().max() / exact.abs().max()).item()


@pytest.mark.parametrize("name", MERGED)
def test_the_region_is_merged(name):
    make, shapes, left = MERGED[name]
    model = build(make)
    inputs = [torch.randn(shape) for shape in shapes]
    module, before = traced(model, inputs), traced(model, inputs)
    sites = LINEAR_CHAINS.run(module, Context())
    (site,) = [site for site in sites if site.status == "rewritten"]
    found = counts(module)
    assert {operator: found.get(operator, 0) for operator in left} == left, site.reason
    values = dict(
        zip(
            [node.name for node in module.graph.nodes if node.op == "placeholder"],
            [*model.parameters(), *model.buffers()],
            strict=False,
        )
    )
    assert Verifier(values).failures(before, module, sites) == {}
    old, new = run(before, model, *inputs), run(module, model, *inputs)
    exact = model.double()(*(value.double() for value in inputs))
    assert relative(new, exact) <= site.bound
    assert relative(new, exact) <= relative(old, exact) + 4 * torch.finfo(torch.float32).eps
    assert new.shape == old.shape and new.stride() == old.stride()


@pytest.mark.parametrize(
    "name",
    [
        "lora",
        "residual",
        "residual blocks",
        "dense block",
        "towers with a way across",
        "dlinear",
        "mean over time",
        "last token",
        "concatenation",
    ],
)
def test_sizes_may_vary(name):
    make, (shape,), _ = MERGED[name]
    model = build(make)
    module = traced(model, [torch.randn(shape)], dynamic=True)
    environment = next(iter(module.graph.nodes)).meta["val"].fake_mode.shape_env
    guards = [str(guard.expr) for guard in environment.guards]
    sites = LINEAR_CHAINS.run(module, Context())
    assert [site.status for site in sites] == ["rewritten"], sites
    assert [str(guard.expr) for guard in environment.guards] == guards
    x = torch.randn(3 * shape[0], *shape[1:])
    value = run(module, model, x)
    assert relative(value, model.double()(x.double())) <= sites[0].bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["lora", "residual", "concatenation", "convolution and batch norm"])
def test_half_precision_is_no_less_accurate(name, dtype):
    make, shapes, _ = MERGED[name]
    model = build(make).to(dtype)
    inputs = [torch.randn(shape).to(dtype) for shape in shapes]
    module, before = traced(model, inputs), traced(model, inputs)
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert site.status == "rewritten"
    names = [node.name for node in before.graph.nodes if node.op == "placeholder"]
    values = dict(zip(names, [*model.parameters(), *model.buffers()], strict=False))
    assert Verifier(values).failures(before, module, [site]) == {}
    assert 0 < site.max_error <= site.original_error + torch.finfo(dtype).eps / 2
    with torch.no_grad():
        old, new = model(*inputs), run(module, model, *inputs)
        exact = model.double()(*(value.double() for value in inputs))
    assert new.dtype == dtype
    assert relative(new, exact) <= relative(old, exact) + torch.finfo(dtype).eps / 2


def test_the_segmentation_head_keeps_one_bias_and_maps_before_it_interpolates():
    model = build(SegmentationHead)
    module = traced(model, [torch.randn(2, 8, 8, 8), torch.randn(2, 12, 4, 4)])
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert site.params_after == 16 * (8 + 12) + 16
    assert site.flops_after == 2 * 2 * (64 * 8 * 16 + 16 * 12 * 16)
    assert site.reason.startswith("8 -> 16, 12 -> 16, 32 -> 16 became")


@pytest.mark.parametrize("batch", [1, 2])
def test_inductor_gets_linear_maps_of_pixels_for_those_convolutions(batch):
    model = build(SegmentationHead)
    inputs = [torch.randn(batch, 8, 8, 8), torch.randn(batch, 12, 4, 4)]
    module = traced(model, inputs)
    (site,) = LINEAR_CHAINS.run(module, Context(inner="inductor"))
    found = counts(module)
    assert (found.get("linear"), found.get("conv2d")) == (2, None), found
    assert not {"clone", "contiguous"} & set(found), found
    old, new = model(*inputs), run(module, model, *inputs)
    exact = model.double()(*(value.double() for value in inputs))
    assert new.shape == old.shape
    assert relative(new, exact) <= site.bound


class Split(nn.Module):
    """Two maps, and the parts of their result."""

    def __init__(self, finish):
        super().__init__()
        self.first, self.second, self.finish = nn.Linear(64, 256), nn.Linear(256, 128), finish

    def forward(self, x):
        return self.finish(self.second(self.first(x)).chunk(4, -1))


@pytest.mark.parametrize(
    ("finish", "outputs"),
    [
        (lambda parts: parts[0].relu() + parts[1].tanh() + parts[2] * parts[3], 128),
        (lambda parts: parts[1], 32),
    ],
    ids=["all parts", "one part"],
)
def test_maps_in_front_of_a_split_are_merged(finish, outputs):
    model, x = build(lambda: Split(finish)), torch.randn(512, 64)
    module = traced(model, [x])
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert site.status == "rewritten", site.reason
    assert site.params_after == 64 * outputs + outputs
    assert relative(run(module, model, x), model.double()(x.double())) <= site.bound


class Selected(nn.Module):
    """Two maps, and what is made of single features of their result."""

    def __init__(self, function, widths=(64, 256, 128)):
        super().__init__()
        inputs, middle, outputs = widths
        self.first, self.second = nn.Linear(inputs, middle), nn.Linear(middle, outputs)
        self.function = function

    def forward(self, x):
        return self.function(self.second(self.first(x)))


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y[..., 3],
        lambda y: y[:, :, -125],
        lambda y: y.select(-1, 3),
        lambda y: torch.select(y, 2, 3),
        lambda y: y[..., :8].select(2, 3),
        lambda y: y.transpose(0, 2)[3].t(),
        lambda y: y[:, :, 3].relu() + y.shape[0],
    ],
    ids=["ellipsis", "from the end", "select", "function", "of a slice", "of a view", "something behind it"],
)
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_one_feature_takes_one_row_of_the_maps(function, dynamic):
    model, x = build(lambda: Selected(function)), torch.randn(32, 16, 64)
    module, before = traced(model, [x], dynamic), traced(model, [x], dynamic)
    names = {node.name for node in module.graph.nodes}
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert site.status == "rewritten", site.reason
    assert site.params_after == 64 + 1
    assert counts(module)["linear"] == counts(module)["select"] == 1
    assert {*site.nodes, site.output} <= names
    values = dict(
        zip([n.name for n in module.graph.nodes if n.op == "placeholder"], model.parameters(), strict=False)
    )
    assert Verifier(values).failures(before, module, [site]) == {}
    x = torch.randn(3, 16, 64) if dynamic else x
    assert relative(run(module, model, x), model.double()(x.double())) <= site.bound


def test_gradients_run_through_one_feature():
    model = build(lambda: Selected(lambda y: y[..., 3])).requires_grad_(False)
    module = traced(model, [torch.randn(32, 64)])
    LINEAR_CHAINS.run(module, Context())
    x = torch.randn(32, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(module(*model.parameters(), x).sin().sum(), x)
    exact = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(model.double()(exact).sin().sum(), exact)
    assert relative(gradient, expected) < 1e-5


@pytest.mark.parametrize(
    ("function", "widths"),
    [
        (lambda y: y[:, 0].relu(), (16, 16, 512)),
        (lambda y: y[..., 3].sin() + y.sum(-1), (16, 16, 512)),
        (lambda y: y.select(-1, 3).add_(1.0) + y.cos().sum(-1), (16, 16, 512)),
    ],
    ids=["along another axis", "the whole is wanted too", "written to"],
)
def test_selects_that_spare_nothing_are_left_as_they_are(function, widths):
    model, x = build(lambda: Selected(function, widths)), torch.randn(4, 16, 16)
    model.first = nn.Identity()
    module = traced(model, [x])
    operators = counts(module)
    LINEAR_CHAINS.run(module, Context())
    assert counts(module) == operators
    torch.testing.assert_close(run(module, model, x), model(x))


def test_dlinear_becomes_one_matrix():
    model = build(DLinear)
    module = traced(model, [torch.randn(4, 48, 7)])
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert site.params_after == 48 * 24 + 24
    assert "became 48 -> 24" in site.reason


def test_a_constant_in_front_of_zero_padding_is_refused():
    model = build(sequence(lambda: nn.Conv2d(4, 4, 1), lambda: nn.Conv2d(4, 32, 3, padding=1)))
    module = traced(model, [torch.randn(1, 4, 9, 9)])
    code = module.code
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert (site.target, site.status) == ("conv_chain", "refused")
    assert site.reason == (
        "the constant that 'conv2d' adds is zero in the padding of 'conv2d_1', so that a merged map would be "
        "wrong at the border"
    )
    assert module.code == code


@pytest.mark.parametrize(
    ("bias", "padding"), [(False, 1), (True, 0)], ids=["padding without a bias", "a bias without padding"]
)
def test_1x1_into_3x3_is_merged_where_it_is_exact(bias, padding):
    model = build(
        sequence(lambda: nn.Conv2d(4, 64, 1, bias=bias), lambda: nn.Conv2d(64, 16, 3, padding=padding))
    )
    x = torch.randn(1, 4, 9, 9)
    module = traced(model, [x])
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert site.status == "rewritten", site.reason
    assert counts(module)["conv2d"] == 1
    value = run(module, model, x)
    assert relative(value, model.double()(x.double())) <= site.bound


def test_an_expanding_pointwise_convolution_is_not_merged_where_that_costs_more():
    """MobileNetV2's bottleneck: narrow between two wide ones, so that the product would be larger than both."""
    model = build(sequence(lambda: nn.Conv2d(96, 16, 1), lambda: nn.Conv2d(16, 96, 1)))
    module = traced(model, [torch.randn(1, 96, 28, 28)])
    (site,) = LINEAR_CHAINS.run(module, Context())
    assert site.status == "refused"
    assert "merging 96 -> 16 -> 96 would be no faster: predicted" in site.reason
    assert "3,072 against 3,072 weights" in site.reason


class Unlike(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(16, 16), nn.Linear(16, 16), function

    def forward(self, x):
        return self.function(self, x)


LOOK_ALIKES = {
    "padded with ones": lambda m, x: m.second(F.pad(m.first(x), (0, 0, 1, 1), value=1.0)),
    "maximum over time": lambda m, x: m.second(m.first(x).amax(1)),
    "features mixed up by a view": lambda m, x: m.second(m.first(x).transpose(1, 2).reshape(2, 16, 16)),
    "features split into heads": lambda m, x: m.second(m.first(x).view(2, 16, 4, 4).sum(3).repeat(1, 1, 4)),
    "mean over the features": lambda m, x: m.second(m.first(x) - m.first(x).mean(-1, keepdim=True)),
    "product of two branches": lambda m, x: m.second(m.first(x) * m.first(x + 1)),
    "a sum that broadcasts": lambda m, x: m.second(m.first(x) + m.first(x[:, :1])),
    "cumulative product": lambda m, x: m.second(m.first(x).cumprod(1)),
    "batch statistics": lambda m, x: m.second(F.batch_norm(m.first(x), None, None, training=True)),
}


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_look_alikes_keep_their_maps(name):
    model, x = build(lambda: Unlike(LOOK_ALIKES[name])), torch.randn(2, 16, 16)
    module = traced(model, [x])
    before = counts(module)["linear"]
    LINEAR_CHAINS.run(module, Context())
    assert counts(module)["linear"] == before
    with torch.no_grad():
        torch.testing.assert_close(run(module, model, x), model(x), rtol=1e-5, atol=1e-5)


def test_training_keeps_every_weight():
    model = build(MERGED["lora"][0])
    module = traced(model, [torch.randn(4, 5, 64)])
    (site,) = LINEAR_CHAINS.run(module, Context(grad=True))
    assert site.status == "refused"
    assert site.reason.startswith(
        "gradients are wanted of base.weight, base.bias, lora_a.weight, lora_b.weight: merging would train"
    )


def test_adapters_may_be_kept():
    model, x = build(MERGED["lora"][0]), torch.randn(4, 5, 64)
    module = traced(model, [x])
    sites = LINEAR_CHAINS.run(module, Context(keep=("lora_*",)))
    assert counts(module)["linear"] == 3
    assert "the weight 'lora_a.weight' is to be kept as it is" in {site.reason for site in sites}
