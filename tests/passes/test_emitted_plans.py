"""What is emitted for a plan computes the region, whichever plan it is: prices drawn by chance choose among them."""

import random
from dataclasses import dataclass

import pytest
import torch
from graphs import run, trace
from torch.nn import functional as F

import stonefx.ops  # noqa: F401  (registers stone::low_rank_linear)
from stonefx.passes.cost.machine import Machine
from stonefx.passes.graph.effects import effects
from stonefx.passes.graph.emit import Emitter
from stonefx.passes.linear.algebra.paths import path_between
from stonefx.passes.linear.build.nodes import Realizer
from stonefx.passes.linear.plan.planner import Planner
from stonefx.passes.linear.plan.price import Costs
from stonefx.passes.linear.read.reader import Reader
from stonefx.passes.linear.read.regions import roots, users
from stonefx.passes.linear.read.trees import Builder
from stonefx.passes.site import Context

WIDTH = 6
NAMES = "abcdefgh"


@dataclass(frozen=True)
class Drawn(Costs):
    """Prices that have nothing to do with what is done, the same at every question."""

    seed: int = 0

    def _price(self, *what):
        return random.Random(f"{self.seed} {what}").random()

    def elementwise(self, rows, width, reads=1):
        return self._price("elementwise", rows, width, reads)

    def view(self):
        return self._price("view")

    def move(self, level, width):
        return self._price("move", level.value.node.name, width)

    def linear(self, rows, inputs, outputs):
        return self._price("linear", rows, inputs, outputs)

    def pair(self, rows, inputs, rank, outputs):
        return self._price("pair", rows, inputs, rank, outputs)


def weights(bias):
    """Eight maps in a row of widths 6, 5, 3, 6, 5, 3, 6, ..., so that those behind any one fit."""
    generator = torch.Generator().manual_seed(0)
    held = {}
    for name in NAMES:
        for part, (inner, outer) in enumerate([(WIDTH, 5), (5, 3), (3, WIDTH)]):
            held[f"{name}{part}"] = torch.randn(outer, inner, generator=generator, dtype=torch.float64)
            if bias:
                held[f"{name}{part}_bias"] = torch.randn(outer, generator=generator, dtype=torch.float64)
    return held


def maps(held, value, name):
    """Three maps, thin in the middle, with a shift of its own after each."""
    for part in range(3):
        value = F.linear(value, getattr(held, f"{name}{part}"), getattr(held, f"{name}{part}_bias", None))
    return value


def behind(between):
    """Maps, something in between, and maps."""
    return lambda w, x, m: maps(w, between(w, maps(w, x, "a"), m), "h")


REGIONS = {
    "a chain": behind(lambda w, x, m: maps(w, x, "b")),
    "a matrix from the other side": behind(lambda w, x, m: m @ x),
    "two of them": behind(lambda w, x, m: m @ maps(w, m @ x, "b")),
    "one after another": behind(lambda w, x, m: m @ (m @ x)),
    "a scale by position": behind(lambda w, x, m: x * m[:, :1]),
    "a mean": behind(lambda w, x, m: x.mean(0, keepdim=True)),
    "a roll": behind(lambda w, x, m: x.roll(1, 0)),
    "a sum of maps": behind(lambda w, x, m: maps(w, x, "b") + maps(w, m, "c")),
    "a difference with a factor": behind(lambda w, x, m: maps(w, x, "b") - 2 * maps(w, m, "c")),
    "a sum behind a matrix": behind(lambda w, x, m: m @ (maps(w, x, "b") + maps(w, m, "c"))),
    "a matrix behind a sum": behind(lambda w, x, m: m @ maps(w, x, "b") + maps(w, m, "c")),
    "a residual": behind(lambda w, x, m: x + maps(w, x, "b")),
    "a residual of another carry": behind(lambda w, x, m: x + m @ maps(w, x, "b")),
    "a concatenation": behind(lambda w, x, m: torch.cat([x[:, :2], maps(w, m, "b")[:, 2:]], 1)),
    "a concatenation behind a matrix": behind(
        lambda w, x, m: m @ torch.cat([x[:, :2], maps(w, m, "b")[:, 2:]], 1)
    ),
    "columns": lambda w, x, m: maps(w, (maps(w, x.mT, "a").mT @ m).mT, "h"),
}


def planned(function, held, inputs):
    """A graph that returns a function's value and what is emitted for each plan of it, and the plans."""
    module = trace(function, *inputs, weights=held)
    graph = module.graph
    builder = Builder(Reader(graph, effects(graph), Context()), users(graph))
    tree = max(roots(graph, builder.reader, builder), key=lambda each: len(each.nodes()))
    output = tree.value.node
    plans = [Planner(tree, Drawn(Machine(), 8, seed=seed)).plan() for seed in range(16)]
    emitted = [Realizer(Emitter(output)).emit_choice(plan, tree)[0] for plan in plans]
    (end,) = graph.find_nodes(op="output")
    end.args = ((end.args[0], *emitted),)
    module.recompile()
    return module, plans


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", REGIONS)
def test_every_plan_computes_the_region(name, bias):
    held = weights(bias)
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64) for _ in range(2)]
    module, plans = planned(REGIONS[name], held, inputs)
    exact, *results = run(module, list(held.values()), *inputs)
    for plan, came in zip(plans, results, strict=True):
        assert came.shape == exact.shape
        assert ((came - exact).abs().max() / exact.abs().max()).item() <= 1e-11, plan.flat()
    spelled = {str([(each.kind, each.level.width, each.top.width) for each in p.flat()]) for p in plans}
    assert len(spelled) >= 4


@pytest.mark.parametrize("name", ["two of them", "a sum of maps"])
def test_the_drawn_prices_cut_pairs_above_what_takes_constants_apart(name):
    inputs = [torch.zeros(WIDTH, WIDTH, dtype=torch.float64)] * 2
    _, plans = planned(REGIONS[name], weights(True), inputs)
    pairs = [each for plan in plans for each in plan.maps() if each.cut is not None]
    passed = [level for each in pairs for level, _ in path_between(each.level, each.cut)]
    assert any(level.is_sum or (level.move is not None and not level.move.preserves) for level in passed)
