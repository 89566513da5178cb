"""Nothing that a rewritten graph returns depends on an entry that the original did not read."""

import copy
import math
import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import stonefx


class Applied(nn.Module):
    """A module that is one function over named parts."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


def two(inputs, outputs=3, hidden=32):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Linear(hidden, outputs))


def images(function, **parts):
    return Applied(function, **parts), torch.randn(2, 8, 5, 5)


def rows(function, **parts):
    return Applied(function, **parts), torch.randn(6, 8)


CASES = {
    "slice": lambda: rows(lambda s, x: s.l(x[:, :4]), l=two(4)),
    "slice from the end": lambda: rows(lambda s, x: s.l(x[:, -3:]), l=two(3)),
    "every second": lambda: rows(lambda s, x: s.l(x[:, 1::2]), l=two(4)),
    "narrow": lambda: rows(lambda s, x: s.l(x.narrow(1, 2, 3)), l=two(3)),
    "slice of a slice": lambda: rows(lambda s, x: s.l(x[:, 2:][:, ::2]), l=two(3)),
    "one half of a chunk": lambda: rows(lambda s, x: s.l(x.chunk(2, -1)[1]), l=two(4)),
    "towers into cat": lambda: rows(
        lambda s, x: torch.cat([s.a(x[:, :4]), s.b(x[:, 4:])], -1), a=two(4), b=two(4)
    ),
    "towers into stack": lambda: rows(
        lambda s, x: torch.stack([s.a(x[:, :4]), s.b(x[:, 4:])]), a=two(4), b=two(4)
    ),
    "towers into a tuple": lambda: rows(lambda s, x: (s.a(x[:, :4]), s.b(x[:, 4:])), a=two(4), b=two(4)),
    "towers of split": lambda: rows(
        lambda s, x: [layer(part) for layer, part in zip((s.a, s.b), x.split([3, 5], -1), strict=True)],
        a=two(3), b=two(5),
    ),
    "block sum": lambda: rows(lambda s, x: s.a(x[:, :4]) + s.b(x[:, 2:6]), a=two(4), b=two(4)),
    "cat, then cut": lambda: rows(
        lambda s, x: s.c(torch.cat([s.a(x[:, :4]), s.b(x[:, 4:])], -1)[:, :3]), a=two(4), b=two(4), c=two(3)
    ),
    "residual on a part": lambda: rows(
        lambda s, x: torch.cat([x[:, :4] + s.a(x[:, :4]), x[:, 4:]], -1), a=two(4, 4)
    ),
    "residual of a part": lambda: rows(lambda s, x: x + s.a(x[:, :4]), a=two(4, 8)),
    "residual of a part, then a map": lambda: rows(
        lambda s, x: s.b(x + s.a(x[:, :4])), a=two(4, 8), b=two(8)
    ),
    "scaled, cut, mapped": lambda: rows(
        lambda s, x: s.l((x * s.scale + s.shift)[:, 2:6]),
        l=two(4), scale=nn.Parameter(torch.rand(8)), shift=nn.Parameter(torch.rand(8)),
    ),
    "a value twice beside maps": lambda: rows(
        lambda s, x: s.n(x) + s.l(s.m(x)) + s.n(x), l=two(8, 8), m=nn.Linear(8, 8), n=nn.Tanh()
    ),
    "flipped twice": lambda: rows(
        lambda s, x: s.l(x)[:, :2] + (x * s.f).flip(-1).flip(-1)[:, :2],
        l=two(8), f=nn.Parameter(torch.rand(8)),
    ),
    "flip, cut, mapped": lambda: rows(lambda s, x: s.l(x.flip(-1)[:, :3]), l=two(3)),
    "flip alone": lambda: rows(lambda s, x: s.l(x) + x.flip(-1)[:, :3], l=two(8)),
    "roll, cut, mapped": lambda: rows(lambda s, x: s.l(x.roll(2, -1)[:, :4]), l=two(4)),
    "roll over the edge": lambda: rows(lambda s, x: s.l(x.roll(2, -1)[:, 1:5]), l=two(4)),
    "pad behind maps": lambda: rows(lambda s, x: F.pad(s.l(x), (1, 2)), l=two(8)),
    "pad behind maps, added": lambda: rows(lambda s, x: F.pad(s.l(x[:, :4]), (1, 4)) + x, l=two(4)),
    "pad, then maps": lambda: rows(lambda s, x: s.l(F.pad(x, (2, 1))), l=two(11)),
    "crop": lambda: rows(lambda s, x: s.l(F.pad(x, (-2, -1))), l=two(5)),
    "repeat of a part": lambda: rows(lambda s, x: s.l(x[:, :3].repeat(1, 2)), l=two(6)),
    "pooled features": lambda: (
        Applied(lambda s, x: s.l(F.avg_pool1d(x, 3)), l=two(2)), torch.randn(2, 5, 8)
    ),
    "channel slice into 1x1": lambda: images(
        lambda s, x: s.b(s.a(x[:, :4])), a=nn.Conv2d(4, 32, 1), b=nn.Conv2d(32, 3, 1)
    ),
    "channel slice into 3x3": lambda: images(
        lambda s, x: s.b(s.a(x[:, 2:6])), a=nn.Conv2d(4, 32, 3), b=nn.Conv2d(32, 3, 1)
    ),
    "channels scaled, then depthwise": lambda: images(
        lambda s, x: s.a(x * s.scale.view(-1, 1, 1)),
        a=nn.Conv2d(8, 8, 3, groups=8), scale=nn.Parameter(torch.rand(8)),
    ),
    "channels joined, then depthwise": lambda: images(
        lambda s, x: s.c(torch.cat([s.a(x[:, :4]), s.b(x[:, 4:])], 1)),
        a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, 1), c=nn.Conv2d(8, 8, 3, groups=8),
    ),
    "channels joined as they are, then groups": lambda: images(
        lambda s, x: s.c(torch.cat([x * s.f, s.b(x[:, 4:])], 1)),
        b=nn.Conv2d(4, 8, 1), c=nn.Conv2d(16, 8, 3, groups=4), f=nn.Parameter(torch.rand(8, 1, 1)),
    ),
    "batch norm, then groups": lambda: images(
        lambda s, x: s.a(s.n(x)), a=nn.Conv2d(8, 12, 3, groups=4), n=nn.BatchNorm2d(8)
    ),
    "groups, then batch norm": lambda: images(
        lambda s, x: s.n(s.a(x)), a=nn.Conv2d(8, 12, 3, groups=4), n=nn.BatchNorm2d(12)
    ),
    "groups transposed, scaled before": lambda: images(
        lambda s, x: s.a(s.n(x)), a=nn.ConvTranspose2d(8, 12, 3, groups=4), n=nn.BatchNorm2d(8)
    ),
    "a part of the channels of groups": lambda: images(
        lambda s, x: s.b(s.a(x)[:, :3]), a=nn.Conv2d(8, 12, 3, groups=4), b=nn.Conv2d(3, 4, 1)
    ),
    "shuffled groups": lambda: images(
        lambda s, x: s.b(s.a(x).unflatten(1, (2, 6)).transpose(1, 2).flatten(1, 2)),
        a=nn.Conv2d(8, 12, 1, groups=2), b=nn.Conv2d(12, 12, 1, groups=2),
    ),
}  # fmt: skip
# Of these a map is still made where the rule allows it.
MERGED = {
    "slice", "slice from the end", "every second", "narrow", "slice of a slice", "one half of a chunk",
    "towers into cat", "towers into stack", "towers into a tuple", "towers of split", "block sum",
    "residual on a part", "residual of a part", "residual of a part, then a map", "scaled, cut, mapped",
    "flip, cut, mapped", "flip alone", "roll, cut, mapped", "pad behind maps", "pad behind maps, added",
    "pad, then maps", "crop", "channel slice into 1x1", "channel slice into 3x3",
    "channels scaled, then depthwise", "batch norm, then groups", "groups, then batch norm",
    "cat, then cut", "a part of the channels of groups",
}  # fmt: skip


def flat(result):
    return torch.cat([part.flatten() for part in ([result] if isinstance(result, torch.Tensor) else result)])


def assert_same_dependence(model, fast, example, exact):
    """Each entry of one row, made NaN and then infinite, reaches the same results; the others stay right."""
    features = example[0, :, 0, 0].numel() if example.dim() == 4 else example.shape[-1]
    for planted in (math.nan, math.inf):
        for place in range(features):
            x = example.clone()
            if x.dim() == 4:
                x[:, place] = planted
            else:
                x[..., place] = planted
            with torch.no_grad():
                want, got, right = flat(model(x)), flat(fast(x)), flat(exact(x.double()))
            assert torch.equal(got.isfinite(), want.isfinite()), f"{planted} in feature {place}"
            finite = want.isfinite()
            error = (got[finite].double() - right[finite]).abs().max() if finite.any() else torch.zeros(())
            assert error <= 1e-5 * right[finite].abs().amax().clamp_min(1) if finite.any() else True


@pytest.mark.parametrize("door", ["optimize", "compile"])
@pytest.mark.parametrize("name", CASES)
def test_unread_features_stay_unread(name, door):
    torch.manual_seed(0)
    model, example = CASES[name]()
    model.eval()
    exact = copy.deepcopy(model).double()
    if door == "optimize":
        fast = stonefx.optimize(model, example)
        sites = fast.report.sites
    else:
        torch._dynamo.reset()
        fast = torch.compile(model, backend="stone", options={"inner": "eager"})
        with torch.no_grad():
            fast(example)
        sites = stonefx.last_report().sites
    assert not [site.reason for site in sites if "verification" in site.reason]
    if name in MERGED:
        assert any(site.status == "rewritten" for site in sites), [site.reason for site in sites]
    assert_same_dependence(model, fast, example, exact)


def random_model(seed):
    """A module of maps between selections, permutations, borders, sums and concatenations of features."""
    pick = random.Random(seed)
    layers = nn.ModuleList()

    def layer(inputs, outputs):
        layers.append(nn.Linear(inputs, outputs, bias=pick.random() < 0.6))
        return len(layers) - 1

    def block(width):
        kind = pick.choice("map map cut flip roll pad cat residual scale sum stay".split())
        if kind == "map":
            place = layer(width, pick.choice([2, 5, 8, 16]))
            return (lambda s, x: s.layers[place](x)), layers[place].out_features
        if kind == "cut" and width > 2:
            start, step = pick.randrange(width // 2), pick.choice([1, 1, 2])
            return (lambda s, x: x[:, start::step]), len(range(start, width, step))
        if kind == "flip":
            return (lambda s, x: x.flip(-1)), width
        if kind == "roll":
            shift = pick.randrange(1, width + 1)
            return (lambda s, x: x.roll(shift, -1)), width
        if kind == "pad":
            pads = (pick.randrange(3), pick.randrange(3))
            return (lambda s, x: F.pad(x, pads)), width + sum(pads)
        if kind == "cat" and width > 2:
            cut = pick.randrange(1, width)
            one, two = layer(cut, pick.choice([2, 4])), layer(width - cut, pick.choice([2, 4]))
            made = layers[one].out_features + layers[two].out_features
            return (lambda s, x: torch.cat([s.layers[one](x[:, :cut]), s.layers[two](x[:, cut:])], -1)), made
        if kind == "residual" and width > 2:
            cut = pick.randrange(1, width)
            place = layer(cut, width)
            return (lambda s, x: x + s.layers[place](x[:, :cut])), width
        if kind == "scale":
            layers.append(nn.ParameterList([torch.rand(width) + 0.5]))
            place = len(layers) - 1
            return (lambda s, x: x * s.layers[place][0]), width
        if kind == "sum" and width > 2:
            one, two = layer(width, 6), layer(width - 1, 6)
            return (lambda s, x: s.layers[one](x) - s.layers[two](x[:, 1:])), 6
        return (lambda s, x: x), width

    steps, width = [], 8
    for _ in range(pick.randrange(3, 8)):
        step, width = block(width)
        steps.append(step)

    def run(s, x):
        for step in steps:
            x = step(s, x)
        return x

    return Applied(run, layers=layers).eval()


def assert_random_model(seed):
    torch.manual_seed(seed)
    model, example = random_model(seed), torch.randn(4, 8)
    fast, exact = stonefx.optimize(model, example), copy.deepcopy(model).double()
    with torch.no_grad():
        for place in range(8):
            x = example.clone()
            x[:, place] = math.nan
            assert torch.equal(fast(x).isnan(), model(x).isnan()), f"NaN in feature {place} of seed {seed}"
        right = exact(example.double())
        error = (fast(example).double() - right).abs().max() if right.numel() else 0.0
        assert error <= 1e-5 * right.abs().max().clamp_min(1)


@pytest.mark.parametrize("seed", range(40))
def test_random_models_read_the_same(seed):
    assert_random_model(seed)


@pytest.mark.slow
@pytest.mark.parametrize("block", range(10))
def test_many_random_models_read_the_same(block):
    for seed in range(1000 + 100 * block, 1100 + 100 * block):
        assert_random_model(seed)
