"""The cost model, and the plans it leads to."""

import itertools
import random

import pytest
import torch

from stonefx.passes.linear.cost import Machine, linear_flops
from stonefx.passes.linear.plan import Part, Plan, decide, fastest, merged, unmerged

CPU = Machine()
SEED_CHAIN = [128, 256, 128, 64, 32]


@pytest.mark.parametrize("rows", [1, 7, 64, 4096])
@pytest.mark.parametrize("grown", ["rows", "inputs", "outputs", "itemsize"])
def test_more_work_is_never_predicted_to_be_faster(rows, grown):
    base = {"rows": rows, "inputs": 48, "outputs": 96, "itemsize": 4}
    for factor in (2, 16, 1024):
        more = base | {grown: base[grown] * factor}
        assert CPU.linear_seconds(**more) >= CPU.linear_seconds(**base)


def test_a_call_costs_its_launch_even_without_work():
    assert CPU.linear_seconds(0, 0, 8, 4) == CPU.launch
    assert CPU.pair_seconds(0, 0, 0, 8, 4) == CPU.launch
    assert Machine(pair_launches=2).pair_seconds(0, 0, 0, 8, 4) == 2 * CPU.launch


def test_small_batches_are_bound_by_traffic_and_large_ones_by_arithmetic():
    one_row = CPU.work_seconds(1, 1024, 1024, 4)
    assert one_row == pytest.approx(4 * (1024 * 1024 + 2 * 1024) / CPU.bandwidth)
    many_rows = CPU.work_seconds(4096, 1024, 1024, 4)
    assert many_rows == pytest.approx(linear_flops(4096, 1024, 1024) / CPU.flop_rate)


def test_a_gpu_is_another_machine():
    gpu = Machine.of(torch.device("cuda"))
    assert gpu.flop_rate > CPU.flop_rate
    assert gpu.bandwidth > CPU.bandwidth
    assert Machine.of(torch.device("cpu")) == CPU


@pytest.mark.parametrize("name", ["flop_rate", "bandwidth", "launch", "pair_launches"])
def test_a_machine_needs_positive_facts(name):
    with pytest.raises(ValueError, match=f"expected {name} > 0, got 0"):
        Machine(**{name: 0})


@pytest.mark.parametrize("rows", [1, 8, 32, 8192])
@pytest.mark.parametrize("rows_vary", [False, True])
def test_the_seed_chain_becomes_one_map(rows, rows_vary):
    decision = decide(SEED_CHAIN, rows, 4, CPU, rows_vary=rows_vary)
    assert decision.plan == merged(SEED_CHAIN)
    assert decision.reason == ""
    assert decision.plan.parameters(SEED_CHAIN) == 32 * 128
    assert decision.plan.flops(SEED_CHAIN, rows) == 2 * rows * 32 * 128
    assert decision.seconds_after < decision.seconds_before


@pytest.mark.parametrize("rows", [1, 64, 8192])
def test_a_thin_middle_stays_a_low_rank_pair(rows):
    decision = decide([512, 8, 512], rows, 4, CPU, rows_vary=True)
    assert decision.plan == Plan((Part(0, 2, cut=1),))
    assert decision.plan.low_rank


@pytest.mark.parametrize("rows", [1, 64, 8192])
def test_a_wide_middle_is_merged_away(rows):
    assert decide([512, 4096, 512], rows, 4, CPU, rows_vary=True).plan == merged([512, 4096, 512])


def test_a_thin_middle_in_a_long_chain_cuts_it_there():
    plan = decide([512, 1024, 8, 1024, 512], 4096, 4, CPU).plan
    assert plan == Plan((Part(0, 4, cut=2),))


def test_where_a_pair_costs_two_calls_a_thin_pair_stays_as_it_is():
    decision = decide([512, 8, 512], 4096, 4, Machine(pair_launches=2))
    assert not decision.plan.merges
    assert "merging 512 -> 8 -> 512 would be no faster" in decision.reason
    assert "8,192 against 8,192 weights" in decision.reason


def test_where_rows_vary_a_merge_must_not_lose_at_any_number_of_rows():
    machine = Machine(pair_launches=2)
    widths = [64, 16, 64]  # merging saves a call, which one row notices and 8192 rows do not
    assert decide(widths, 1, 4, machine).plan == merged(widths)
    decision = decide(widths, 1, 4, machine, rows_vary=True)
    assert not decision.plan.merges
    assert "would be slower" in decision.reason
    assert "at 8192 rows" in decision.reason


def every_plan(count):
    """All ways to cut a chain of `count` maps."""

    def parts(start):
        if start == count:
            yield ()
            return
        for stop in range(start + 1, count + 1):
            for cut, rest in itertools.product((None, *range(start + 1, stop)), list(parts(stop))):
                yield (Part(start, stop, cut), *rest)

    return [Plan(found) for found in parts(0)]


@pytest.mark.parametrize("seed", range(20))
def test_dynamic_programming_finds_what_exhaustive_search_finds(seed):
    chance = random.Random(seed)
    widths = [chance.choice([3, 8, 64, 200, 1024]) for _ in range(6)]
    rows = chance.choice([1, 30, 5000])
    best = min(plan.seconds(widths, rows, 4, CPU) for plan in every_plan(5))
    assert fastest(widths, rows, 4, CPU).seconds(widths, rows, 4, CPU) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_no_decision_is_predicted_slower_than_the_chain_as_it_stands(seed):
    chance = random.Random(seed)
    widths = [chance.choice([1, 5, 32, 300, 2048]) for _ in range(chance.randint(3, 6))]
    rows = chance.choice([1, 30, 5000])
    plan = decide(widths, rows, 4, CPU, rows_vary=True).plan
    for held in (1, rows, 8192):
        assert plan.seconds(widths, held, 4, CPU) <= unmerged(widths).seconds(widths, held, 4, CPU) * (
            1 + 1e-9
        )
