"""The suite low-rank: what each cell says of the model's picks."""

import pytest
import torch

from stonefx.benchmarks.case import Settings
from stonefx.benchmarks.harness import measure
from stonefx.benchmarks.suites import low_rank
from stonefx.benchmarks.suites.low_rank import low_rank_cases, low_rank_table
from stonefx.passes.cost.machine import Machine

QUICK = Settings(rounds=3, min_rounds=3, seconds=0.01, sample_seconds=1e-5, warmup=1)


@pytest.mark.parametrize(("pair_launches", "picked"), [(1, "pair"), (10**9, "dense")])
def test_a_cell_says_what_was_picked_and_what_was_fastest(pair_launches, picked):
    machine = Machine(pair_launches=pair_launches)
    results = [
        measure(planned.make(), QUICK)
        for planned in low_rank_cases("cpu", cells=[(16, 128, 4)], machine=machine)
    ]
    assert [result.name for result in results] == [
        f"{dtype} rows 16 width 128 rank 4" for dtype in ("float32", "bfloat16")
    ]
    for result in results:
        pick = result.facts["picks"][picked]
        assert pick["over_fastest"] >= 1 and set(pick["predicted"]) == {"dense", "pair"}
        arms = {arm.name: arm for arm in result.arms}
        assert arms[result.facts["fastest"]].seconds == min(arm.seconds for arm in result.arms)
        assert all(arm.error < 0.05 for arm in arms.values())
    near = sum(result.facts["picks"][picked]["over_fastest"] <= 1.05 for result in results)
    assert f"in {near / 2:.0%} of 2 cells" in low_rank_table(results)


def test_cells_that_take_too_long_are_left_out():
    sizes = [(65536, 16384, 16), (65536, 4096, 16), (16, 1024, 16)]
    names = [planned.name for planned in low_rank_cases("cuda", cells=sizes)]
    assert names == [
        *(f"{dtype} rows 65536 width 4096 rank 16" for dtype in ("bfloat16", "float16")),
        *(f"{dtype} rows 16 width 1024 rank 16" for dtype in ("float32", "bfloat16")),
    ]


def test_the_cells_of_a_card_fit_into_its_minutes_and_the_dearest_come_last():
    names = [planned.name for planned in low_rank_cases("cuda")]
    assert 120 <= len(names) == len(set(names)) <= 180
    rows = [int(name.split()[2]) for name in names]
    assert rows.index(65536) == len(rows) - rows.count(65536)


def test_a_truth_of_many_operations_is_float32(monkeypatch):
    monkeypatch.setattr(low_rank, "MOST_EXACT_FLOPS", 0)
    (case, *_) = [planned.make() for planned in low_rank_cases("cpu", cells=[(16, 128, 4)])]
    assert case.truth[0].dtype == torch.float32
    assert all(arm.error < 1e-5 for arm in measure(case, QUICK).arms)
