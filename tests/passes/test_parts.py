"""Parts of the graph with one entry and one exit: merged where that is cheaper, else computed as the graph has them."""

import itertools
import random

import pytest
import torch
from graphs import counts, run, trace
from region_models import ResidualBlock
from torch import nn

import stonefx
from stonefx.passes.cost.machine import Machine
from stonefx.passes.graph.effects import effects
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.linear.plan.decide import decide
from stonefx.passes.linear.plan.price import Costs
from stonefx.passes.linear.read.reader import Reader
from stonefx.passes.linear.read.regions import roots, users
from stonefx.passes.linear.read.trees import Builder
from stonefx.passes.site import Context

CPU = Machine()


def regions(model, *inputs):
    graph = trace(model.eval(), *inputs).graph
    builder = Builder(Reader(graph, effects(graph), Context()), users(graph))
    return list(roots(graph, builder.reader, builder)), builder


class Blocks(nn.Module):
    """Layers in a row; an entry `None` of `widths` stands for a residual block of a linear map."""

    def __init__(self, widths):
        super().__init__()
        self.layers, self.residual = nn.ModuleList(), []
        known = [width for width in widths if width is not None]
        now = known[0]
        for width in widths[1:]:
            self.layers.append(nn.Linear(now, width or now))
            self.residual.append(width is None)
            now = width or now

    def forward(self, x):
        for layer, residual in zip(self.layers, self.residual, strict=True):
            x = x + layer(x) if residual else layer(x)
        return x


def every_plan(layers, rows, start=0):
    """Predicted seconds of all ways to compute a row of layers, `(inputs, outputs, residual)`, from `start` on."""
    if start == len(layers):
        yield 0.0
        return
    costs = Costs(CPU, 4)
    for stop in range(start + 1, len(layers) + 1):
        inputs, outputs = layers[start][0], layers[stop - 1][1]
        parts = [costs.linear(rows, inputs, outputs)]
        parts += [costs.pair(rows, inputs, layers[cut][0], outputs) for cut in range(start + 1, stop)]
        if stop == start + 1 and layers[start][2]:
            parts = [costs.linear(rows, inputs, outputs) + costs.elementwise(rows, outputs, 2), *parts]
        for part, rest in itertools.product(parts, list(every_plan(layers, rows, stop))):
            yield part + rest


@pytest.mark.parametrize("seed", range(25))
def test_the_plan_of_layers_and_residual_blocks_is_what_exhaustive_search_finds(seed):
    chance = random.Random(seed)
    # A block that reads an input of the graph is a sum of two ways from it; a map in front makes it a part.
    widths = [chance.choice([3, 8, 64, 300]), chance.choice([3, 8, 64, 300])]
    widths += [chance.choice([None, None, 3, 8, 64, 300]) for _ in range(4)]
    rows = chance.choice([1, 30, 5000])
    (tree, *others), builder = regions(Blocks(widths), torch.zeros(rows, widths[0]))
    assert not others
    now, layers = widths[0], []
    for width in widths[1:]:
        layers.append((now, width or now, width is None))
        now = width or now
    found = decide(tree, builder, Costs(CPU, 4))
    assert found.plan.seconds == pytest.approx(min(every_plan(layers, rows)), rel=1e-9)


def test_what_lies_in_a_part_is_merged_though_the_part_stays():
    """A dense map of a wide value would cost more than both narrow blocks."""

    class Narrow(nn.Module):
        def __init__(self):
            super().__init__()
            self.way = nn.Sequential(nn.Linear(768, 512), nn.Linear(512, 4), nn.Linear(4, 768))

        def forward(self, x):
            return x + self.way(x)

    torch.manual_seed(0)
    model = nn.Sequential(Narrow(), Narrow(), Narrow()).eval()
    x = torch.randn(64, 768)
    fast = stonefx.optimize(model, x, machine="default")
    assert sum(value.numel() for value in fast.parameters()) == 3 * (2 * 4 * 768 + 768)
    exact = model.double()(x.double())
    (site,) = fast.report.rewritten()
    assert (fast(x).double() - exact).abs().max() <= site.bound * exact.abs().max()


class Returned(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(16, 16) for _ in range(3))

    def forward(self, x):
        hidden = self.first(x)
        inner = self.second(hidden)
        return hidden + self.third(inner), inner


class ReadBehind(Returned):
    def forward(self, x):
        hidden = self.first(x)
        inner = self.second(hidden)
        return torch.relu(inner) * (hidden + self.third(inner))


@pytest.mark.parametrize("make", [Returned, ReadBehind])
def test_a_value_that_is_seen_outside_is_no_inside_of_a_part(make):
    trees, _ = regions(make(), torch.zeros(4, 16))
    assert all(level.part is None for tree in trees for level in tree.walk_parts())


def test_a_convolution_with_a_border_is_no_part():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            hidden = self.stem(x)
            return hidden + self.conv(hidden)

    trees, _ = regions(Block(), torch.zeros(1, 3, 6, 6))
    assert all(level.part is None for tree in trees for level in tree.walk_parts())


@pytest.mark.parametrize("door", ["optimize", "compile"])
@pytest.mark.parametrize("planted", [float("nan"), float("inf")])
def test_a_part_that_scales_features_keeps_them_apart(door, planted):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 5)
            self.scale = nn.Parameter(torch.rand(8) + 1)

        def forward(self, x):
            hidden = self.stem(x)
            hidden = hidden + hidden * self.scale
            return self.head(hidden)

    torch.manual_seed(1)
    model, x = Scaled().eval(), torch.randn(4, 6)
    x[1, 3] = planted
    with torch.no_grad():
        fast = (
            stonefx.optimize(model, torch.randn(4, 6))
            if door == "optimize"
            else torch.compile(model, backend="stone", options={"inner": "eager"})
        )
        assert torch.equal(fast(x).isfinite(), model(x).isfinite())


def test_four_hundred_layers_in_a_row_raise_no_recursion_error():
    model = nn.Sequential(*[nn.Linear(6, 6) if place % 3 else ResidualBlock(6, 6) for place in range(400)])
    module = trace(model.eval(), torch.zeros(3, 6))
    (site,) = [each for each in LINEAR_CHAINS.run(module, Context()) if each.status == "rewritten"]
    assert counts(module)["linear"] == 1 and len(site.reason) < 400
    assert run(module, model, torch.zeros(3, 6)).shape == (3, 6)
