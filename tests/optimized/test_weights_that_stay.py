"""A weight that can still change when a model was optimized, and what was folded from it must not stay behind."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import stonefx


class Tied(nn.Module):
    """Layers around one weight, which `use` reads a second time."""

    def __init__(self, use):
        super().__init__()
        self.table = nn.Embedding(12, 16)
        self.down, self.norm = nn.Linear(16, 4), nn.BatchNorm1d(16)
        self.up = nn.Linear(16, 16, bias=False)
        self.convolution, self.scale = nn.Conv1d(16, 16, 1, bias=False), nn.Parameter(torch.rand(16) + 0.5)
        self.use = use

    def forward(self, x):
        return self.use(self, x)


# What each model reads beside a fold is the first weight named.
SPLIT = {
    "chain": ("up.weight", lambda m, x: m.down(m.up(x)) + torch.tanh(m.up(x))[:, :4]),
    "last of a chain": ("down.weight", lambda m, x: m.down(m.up(x)) + torch.tanh(x @ m.down.weight.t())),
    "bias": ("down.bias", lambda m, x: m.down(m.up(x)) + torch.tanh(x.exp()[:, :4] * m.down.bias)),
    "table": (
        "table.weight",
        lambda m, x: (
            functional.linear(m.norm(m.up(x)), m.table.weight) + m.table(x.argmax(-1) % 12)[:, :12].exp()
        ),
    ),
    "norm": ("norm.weight", lambda m, x: m.norm(m.up(x)) + torch.tanh(x.exp() * m.norm.weight)),
    "fan out": (
        "up.weight",
        lambda m, x: torch.tanh(m.up(x)) + torch.tanh(m.down(x)).sum() + torch.tanh(m.up(x.exp())),
    ),
    "convolution": (
        "convolution.weight",
        lambda m, x: (
            m.convolution(m.up(x)[..., None])[..., 0].relu()
            + torch.tanh(m.convolution(x.exp()[..., None]))[..., 0]
        ),
    ),
    "attention": (
        "up.weight",
        lambda m, x: (torch.softmax(m.up(x) @ m.up(x.exp()).t(), -1) @ m.up(x)) + torch.tanh(m.up(x.abs())),
    ),
    "scale": ("scale", lambda m, x: m.down(m.up(x) * m.scale) + torch.tanh(x * m.scale)[:, :4]),
    "view": ("up.weight", lambda m, x: m.down(m.up(x)) + torch.tanh(x[:, :8] @ m.up.weight[:4, :8].t())),
    "norm of a weight": (
        "up.weight",
        lambda m, x: torch.tanh(x @ m.up.weight.t()) / m.up.weight.norm(dim=1) * m.scale.exp(),
    ),
    "returned": ("up.weight", lambda m, x: (m.down(m.up(x)), m.up.weight)),
}


# Here following would keep more than the folds are, and so the weight goes too.
MOVED = {"last of a chain", "norm", "scale"}
FOLLOWED = [name for name in SPLIT if name not in MOVED]


def optimized(model, x, **options):
    return stonefx.optimize(model, x, machine="default", **options)


def same(fast, original, x, tolerance=1e-5):
    for came, truth in zip(leaves(fast(x)), leaves(original(x)), strict=True):
        torch.testing.assert_close(came, truth, rtol=tolerance, atol=tolerance)


def leaves(result):
    return result if isinstance(result, tuple) else (result,)


def tied(name, dtype=torch.float32):
    torch.manual_seed(0)
    weight, use = SPLIT[name]
    return Tied(use).to(dtype).eval(), torch.randn(5, 16, dtype=dtype), weight


@pytest.mark.parametrize(
    ("name", "release"), [*((name, True) for name in FOLLOWED), *((name, False) for name in SPLIT)]
)
def test_a_weight_that_is_still_read_is_followed_everywhere(name, release):
    model, x, weight = tied(name)
    fast, original = optimized(model, x, release=release), copy.deepcopy(model)
    # At these sizes the two would be no faster.
    assert fast.report.rewritten() or name in ("fan out", "attention")
    with torch.no_grad():
        for _ in range(2):
            for each in (original, fast):
                each.get_parameter(weight).mul_(1.5)
            same(fast, original, x)
        for each in (original, fast):
            each.get_parameter(weight).data = torch.full_like(each.get_parameter(weight), 0.1)
        same(fast, original, x)


@pytest.mark.parametrize("name", sorted(MOVED))
def test_a_weight_that_would_keep_much_goes(name, tmp_path):
    """It can be changed no more under its name, and is one of the model's own under another."""
    model, x, weight = tied(name)
    fast = optimized(model, x)
    own = dict(fast.named_parameters())
    assert weight not in own and fast.report.weights[weight][-1] in own
    with pytest.raises(AttributeError, match=f"{weight!r} was folded into .*release=False"):
        fast.get_parameter(weight)
    same(fast, model, x)
    fast(x).sum().backward()
    assert own[fast.report.weights[weight][-1]].grad is not None
    for each in (copy.deepcopy(fast), stonefx.load(stonefx.save(fast, tmp_path / "model.stone"))):
        same(each, model, x)


@pytest.mark.parametrize("name", FOLLOWED)
def test_it_trains_as_in_the_original(name):
    """The gradient of a weight is of all its uses, and a step of an optimizer shows in all of them."""
    model, x, weight = tied(name, torch.float64)
    fast, original = optimized(model, x), copy.deepcopy(model)
    for _ in range(2):
        for each in (original, fast):
            each.zero_grad()
            sum(leaf.square().sum() for leaf in leaves(each(x))).backward()
        ours, theirs = (each.get_parameter(weight) for each in (fast, original))
        torch.testing.assert_close(ours.grad, theirs.grad)
        with torch.no_grad():
            ours.sub_(0.01 * ours.grad)
            theirs.sub_(0.01 * theirs.grad)
            same(fast, original, x)


@pytest.mark.parametrize("name", ["chain", "table", "norm of a weight"])
def test_gradients_of_gradients(name):
    model, x, weight = tied(name, torch.float64)
    fast = optimized(model, x)
    found = []
    for each in (fast, model):
        parameter = each.get_parameter(weight)
        loss = sum(leaf.square().sum() for leaf in leaves(each(x)))
        (gradient,) = torch.autograd.grad(loss, parameter, create_graph=True)
        found += torch.autograd.grad(gradient.square().sum(), parameter)
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", ["chain", "table", "convolution", "view", "returned"])
def test_saved_copied_moved_compiled_and_transformed(name, tmp_path):
    model, x, weight = tied(name)
    fast, original = optimized(model, x), copy.deepcopy(model)
    path = tmp_path / "model.stone"
    stonefx.save(fast, path)
    loaded = stonefx.load(path)
    for each in (loaded, copy.deepcopy(fast)):
        with torch.no_grad():
            same(each, model, x)
            each.get_parameter(weight).mul_(1.5)
            original.get_parameter(weight).copy_(1.5 * model.get_parameter(weight))
            same(each, original, x)
    same(fast, model, x)
    with torch.no_grad():
        compiled = torch.compile(fast, backend="aot_eager")
        same(compiled, model, x)
    params = dict(fast.named_parameters())
    changed = {weight: 1.5 * params[weight]}
    came = torch.func.functional_call(fast, changed, (x,))
    for one, other in zip(leaves(came), leaves(original(x)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_a_weight_of_two_folds_is_released():
    """Both folds are all that is left of it."""
    torch.manual_seed(0)
    use = lambda m, x: torch.tanh(m.down(m.up(x))) + torch.sigmoid(m.down(m.up(x.exp())))  # noqa: E731
    model, x = Tied(use).eval(), torch.randn(5, 16)
    fast = optimized(model, x)
    assert len(fast.report.rewritten("linear_chain")) == 2
    with pytest.raises(AttributeError, match="folded"):
        fast.up.weight  # noqa: B018


def test_a_fold_that_follows_takes_others_with_it():
    """The first chain reads what the branch reads, and the second what the first reads."""

    class Chained(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(16, 16, bias=False) for _ in range(3))

        def forward(self, x):
            return self.b(self.a(x)).tanh() + self.c(self.b(x.exp())).tanh() + self.a(x.abs()).tanh()

    torch.manual_seed(0)
    model, x = Chained().eval(), torch.randn(5, 16)
    fast, original = optimized(model, x), copy.deepcopy(model)
    assert len(fast.report.rewritten("linear_chain")) == 2
    with torch.no_grad():
        for each in (fast, original):
            for layer in (each.a, each.b, each.c):
                layer.weight.mul_(1.5)
        same(fast, original, x)


class Broken(nn.Module):
    """A graph break between two parts that hold one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(16, 64, bias=False), nn.Linear(64, 16))
        self.second = nn.Sequential(nn.Linear(16, 64, bias=False), nn.ReLU())
        self.second[0].weight = self.first[0].weight

    def forward(self, x):
        x = self.first(x)
        if x.sum().item() > 1e9:
            x = x + 1
        return self.second(x)


def test_a_part_follows_what_another_part_holds():
    torch.manual_seed(0)
    model, x = Broken().eval(), torch.randn(4, 16)
    fast, original = optimized(model, x), copy.deepcopy(model)
    with torch.no_grad():
        for each in (original, fast):
            each.second[0].weight.mul_(1.5)
        same(fast, original, x)


def test_values_beyond_what_the_folds_hold_are_an_error_where_nothing_else_is_left():
    """Products of half-precision weights overflow, and the original forward is gone."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 64, bias=False), nn.Linear(64, 16, bias=False)
            self.c, self.d = nn.Linear(16, 64, bias=False), nn.Linear(64, 16, bias=False)

        def forward(self, x):
            return self.b(self.a(x)) + torch.tanh(self.a(x)).sum() + self.d(self.c(torch.tanh(x)))

    torch.manual_seed(0)
    model, x = Half().half().eval(), torch.randn(4, 16).half()
    fast = optimized(model, x)
    assert len(fast.report.rewritten("linear_chain")) == 2
    with torch.no_grad():
        fast.a.weight.mul_(3e3)
        fast.b.weight.mul_(3e3)
        with pytest.raises(RuntimeError, match=r"fold 'a\+b.weight' reaches .*release=False"):
            fast(x)


def test_weights_that_lie_in_the_same_memory_are_not_folded():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(16, 64, bias=False), nn.Linear(64, 16, bias=False))
            self.register_buffer(
                "flat", torch.cat([layer.weight.detach().flatten() for layer in self.layers])
            )
            for layer, values in zip(self.layers, self.flat.split(1024), strict=True):
                layer.weight = nn.Parameter(values.view_as(layer.weight))

        def forward(self, x):
            return self.layers(x)

    torch.manual_seed(0)
    model, x = Flat().eval(), torch.randn(4, 16)
    original = copy.deepcopy(model)
    fast = optimized(model, x, inplace=True)
    (site,) = fast.report.sites
    assert site.reason == "the weight 'layers.0.weight' is not folded: 'flat' lies in the same memory"
    with torch.no_grad():
        fast.flat.mul_(2)
        torch.testing.assert_close(fast(x), original(x) * 4)


class Around(nn.Module):
    """Two maps, and what stands beside them."""

    def __init__(self, forward):
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)
        self.way = forward

    def forward(self, x):
        return self.way(self, x)


# Folds of these hold constants that are computed from no weight, which nothing but the fold reads.
WAYS = {
    "residual": lambda m, x: x + m.down(m.up(x)),
    "residual of half": lambda m, x: 0.5 * x - m.down(m.up(x)),
    "two residuals": lambda m, x: (x + m.down(m.up(x))) + m.down(m.up(x)),
    "selection": lambda m, x: m.down(m.up(x))[..., :8] + x[..., 8:],
    "join": lambda m, x: torch.cat([m.down(m.up(x)), x], dim=-1),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_constants_of_a_fold_are_no_other_readers_of_its_weights(way):
    torch.manual_seed(0)
    model, x = Around(way).eval(), torch.randn(64, 16)
    fast = stonefx.optimize(model, x, machine="default")
    assert "up.weight" not in dict(fast.named_parameters()), fast.report
    assert fast.report.rewritten(), fast.report
    torch.testing.assert_close(fast(x), model(x))


def test_folds_that_read_no_weight_are_there_where_all_weights_are_kept():
    class Ball(nn.Module):
        def forward(self, x):
            norm = x.norm(dim=-1, keepdim=True).clamp_min(1e-15)
            return torch.tanh(norm) * x / norm

    model, x = Ball(), torch.randn(50, 16) / 4
    for release in (True, False):
        fast = stonefx.optimize(model, x, release=release)
        assert [site.target for site in fast.report.rewritten()] == ["expmap0"]
        torch.testing.assert_close(fast(x), model(x))
