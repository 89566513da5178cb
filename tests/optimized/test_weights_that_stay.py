"""A weight that can still change when a model was optimized, and what was folded from it must not stay behind."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import stonefx


class Normed(nn.Module):
    """A weight that is read as it is and through its norm."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 16))
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return torch.tanh(x @ self.weight.t()) / self.weight.norm(dim=1) * self.scale.exp()


@pytest.mark.parametrize("release", [True, False])
def test_training_an_optimized_model_keeps_its_values_together(release):
    torch.manual_seed(0)
    model, x = Normed().eval(), torch.randn(4, 16)
    fast = stonefx.optimize(model, x, release=release)
    split = [site for site in fast.report.sites if site.code == "split_weight"]
    assert [site.figures["weight"] for site in split] == (["weight"] if release else [])
    assert not release or "release=False" in split[0].reason.cure
    # What is computed from a weight that nothing else reads is folded all the same.
    assert any("exp" in site.reason for site in fast.report.rewritten("weight_expression"))
    with torch.no_grad():
        for each in (model, fast):
            dict(each.named_parameters())["weight"].mul_(1.5)
        torch.testing.assert_close(fast(x), model(x))


def test_a_compiled_model_computes_it_again():
    torch.manual_seed(0)
    model, x = Normed().eval(), torch.randn(4, 16)
    with torch.no_grad():
        fast = torch.compile(model, backend="stone", options={"inner": "eager"})
        torch.testing.assert_close(fast(x), model(x))
        model.weight.mul_(1.5)
        torch.testing.assert_close(fast(x), model(x))
    assert len(stonefx.last_report().rewritten("weight_expression")) == 2


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
    "returned": ("up.weight", lambda m, x: (m.down(m.up(x)), m.up.weight)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SPLIT)
def test_a_weight_that_is_still_read_is_followed_everywhere(name, dtype):
    torch.manual_seed(0)
    weight, use = SPLIT[name]
    model, x = Tied(use).to(dtype).eval(), torch.randn(5, 16, dtype=dtype)
    fast = stonefx.optimize(model, x, machine="default")
    original = copy.deepcopy(model)
    with torch.no_grad():
        for each in (original, fast):
            each.get_parameter(weight).mul_(1.5)
        for came, truth in zip(leaves(fast(x)), leaves(original(x)), strict=True):
            torch.testing.assert_close(came, truth)


def leaves(result):
    return result if isinstance(result, tuple) else (result,)


def test_a_weight_of_two_folds_is_released():
    """Both folds are all that is left of it."""
    torch.manual_seed(0)
    use = lambda m, x: torch.tanh(m.down(m.up(x))) + torch.sigmoid(m.down(m.up(x.exp())))  # noqa: E731
    model, x = Tied(use).eval(), torch.randn(5, 16)
    fast = stonefx.optimize(model, x, machine="default")
    assert len(fast.report.rewritten("linear_chain")) == 2
    with pytest.raises(AttributeError, match="folded"):
        fast.up.weight  # noqa: B018


def test_a_site_that_is_undone_takes_others_with_it():
    """The first chain reads what the branch reads; undone, it reads what the second chain reads."""

    class Chained(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(16, 16, bias=False) for _ in range(3))

        def forward(self, x):
            return self.b(self.a(x)).tanh() + self.c(self.b(x.exp())).tanh() + self.a(x.abs()).tanh()

    torch.manual_seed(0)
    model, x = Chained().eval(), torch.randn(5, 16)
    fast = stonefx.optimize(model, x, machine="default")
    assert not fast.report.rewritten("linear_chain")
    assert [site.code for site in fast.report.sites if site.target == "linear_chain"].count(
        "split_weight"
    ) == 2


def test_a_part_does_not_fold_what_another_part_holds():
    class Broken(nn.Module):
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

    torch.manual_seed(0)
    model, x = Broken().eval(), torch.randn(4, 16)
    fast, original = stonefx.optimize(model, x, machine="default"), copy.deepcopy(model)
    with torch.no_grad():
        for each in (original, fast):
            each.second[0].weight.mul_(1.5)
        torch.testing.assert_close(fast(x), original(x))


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
    fast = stonefx.optimize(model, x, machine="default", inplace=True)
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
    assert not [site for site in fast.report.sites if site.code == "split_weight"], fast.report
    assert fast.report.rewritten(), fast.report
    torch.testing.assert_close(fast(x), model(x))
