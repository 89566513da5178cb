"""The plan of a region is the fastest there is, as far as the cost model can tell."""

import itertools
import random

import pytest
import torch
from graphs import trace
from torch.nn import functional as F

from stonefx.passes.cost.machine import Machine
from stonefx.passes.graph.effects import effects
from stonefx.passes.linear.plan.decide import decide
from stonefx.passes.linear.plan.planner import Planner
from stonefx.passes.linear.plan.price import Costs
from stonefx.passes.linear.read.reader import Reader
from stonefx.passes.linear.read.regions import roots, users
from stonefx.passes.linear.read.trees import Builder
from stonefx.passes.site import Context

CPU = Machine()
SEED_CHAIN = [128, 256, 128, 64, 32]


def the_tree(widths, rows, dynamic=False):
    weights = {f"w{i}": torch.zeros(out, inner) for i, (inner, out) in enumerate(itertools.pairwise(widths))}

    def function(held, x):
        for name in weights:
            x = F.linear(x, getattr(held, name))
        return x

    graph = trace(function, torch.zeros(rows, widths[0]), weights=weights, dynamic=dynamic).graph
    builder = Builder(Reader(graph, effects(graph), Context()), users(graph))
    (tree,) = roots(graph, builder.reader, builder)
    return tree, builder


def decision(widths, rows, machine=CPU, dynamic=False):
    tree, builder = the_tree(widths, rows, dynamic)
    return decide(tree, builder, Costs(machine, 4))


def cut_at(plan):
    """The widths of every map of a plan of a chain."""
    found = []
    for each in plan.maps():
        middle = [] if each.cut is None else [each.cut.width]
        found.append([each.level.width, *middle, each.top.width])
    return found


@pytest.mark.parametrize("rows", [1, 8, 32, 8192])
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_seed_chain_becomes_one_map(rows, dynamic):
    chosen = decision(SEED_CHAIN, max(rows, 2) if dynamic else rows, dynamic=dynamic)
    assert cut_at(chosen.plan) == [[128, 32]]
    assert chosen.plan.parameters == 32 * 128
    assert chosen.gains and chosen.seconds_after < chosen.seconds_before


@pytest.mark.parametrize("rows", [2, 64, 8192])
def test_a_thin_middle_stays_a_low_rank_pair(rows):
    assert cut_at(decision([512, 8, 512], rows, dynamic=True).plan) == [[512, 8, 512]]


@pytest.mark.parametrize("rows", [2, 64, 8192])
def test_a_wide_middle_is_merged_away(rows):
    assert cut_at(decision([512, 4096, 512], rows, dynamic=True).plan) == [[512, 512]]


def test_a_thin_middle_in_a_long_chain_cuts_it_there():
    assert cut_at(decision([512, 1024, 8, 1024, 512], 4096).plan) == [[512, 8, 512]]


def test_where_a_pair_costs_two_calls_a_thin_pair_stays_as_it_is():
    chosen = decision([512, 8, 512], 4096, Machine(pair_launches=2))
    assert not chosen.gains
    assert cut_at(chosen.plan) == [[512, 8], [8, 512]]


def test_where_rows_vary_a_merge_must_not_lose_at_any_number_of_rows():
    machine = Machine(pair_launches=2)
    widths = [64, 16, 64]  # merging saves a call, which one row notices and 1024 rows do not
    assert cut_at(decision(widths, 2, machine).plan) == [[64, 64]]
    assert not decision(widths, 2, machine, dynamic=True).gains


def every_plan(widths, rows, start=0):
    """The predicted time of all ways to cut a chain from the map `start` on."""
    count = len(widths) - 1
    if start == count:
        yield 0.0
        return
    for stop in range(start + 1, count + 1):
        ends = widths[start], widths[stop]
        parts = [CPU.linear_seconds(rows, *ends, 4)]
        parts += [CPU.pair_seconds(rows, ends[0], widths[cut], ends[1], 4) for cut in range(start + 1, stop)]
        for part, rest in itertools.product(parts, list(every_plan(widths, rows, stop))):
            yield part + rest


@pytest.mark.parametrize("seed", range(20))
def test_the_plan_of_a_chain_is_what_exhaustive_search_finds(seed):
    chance = random.Random(seed)
    widths = [chance.choice([3, 8, 64, 200, 1024]) for _ in range(6)]
    rows = chance.choice([1, 30, 5000])
    tree, _ = the_tree(widths, rows)
    found = Planner(tree, Costs(CPU, 4)).plan().seconds
    assert found == pytest.approx(min(every_plan(widths, rows)), rel=1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_no_decision_is_predicted_slower_than_the_chain_as_it_stands(seed):
    chance = random.Random(seed)
    widths = [chance.choice([1, 5, 32, 300, 2048]) for _ in range(chance.randint(3, 6))]
    chosen = decision(widths, chance.choice([2, 30, 5000]), dynamic=True)
    if chosen.gains:
        assert chosen.seconds_after < chosen.seconds_before
    else:
        assert chosen.seconds_after >= 0.98 * chosen.seconds_before or chosen.worse_at is not None
