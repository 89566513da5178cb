"""The floor on data that chose nothing: plans in a fixed order."""

import copy

import pytest
import torch
from torch import nn

import stonefx
from stonefx.compress.confirming import Judge
from stonefx.compress.data import Splits, read
from stonefx.compress.metric import Metric
from stonefx.compress.search import Search
from stonefx.compress.settings import Settings


@pytest.mark.parametrize(
    ("limit", "expected"), [(0, "smallest"), (500, "safer"), (800, "safest"), (10**9, "lossless")]
)
def test_a_smaller_plan_is_tested_where_the_safer_ones_hold(limit, expected):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24)).eval()

    def metric(model, batches):
        large = sum(p.numel() for p in model.parameters()) >= limit
        return torch.full((sum(b.samples for b in batches),), 1.0 if large or dense else 0.0)

    dense = True
    parts = [read(list(torch.randn(80, 24).split(20)), model) for _ in range(3)]
    settings = Settings(metric=metric, cost="bytes", forms=("pair",), progress=False)
    search = Search(model, copy.deepcopy(model), settings, Splits(*parts))
    search.prepare()
    judge = Metric(metric, model)
    judge.original_score(parts[2])
    dense = False
    smallest, safer, safest = (search.planner.planned(budget) for budget in (0.2, 0.6, 0.9))
    plans = {"smallest": smallest, "safer": safer, "safest": safest, "lossless": search.candidates.dense()}
    plan = Judge(search.task, search.candidates, judge).confirm(smallest, [safest, safer])
    assert search.task.stats.reached is (expected != "lossless")
    assert plan.chosen == plans[expected].chosen


@pytest.mark.parametrize(("count", "reached"), [(40, False), (80, True)])
def test_a_selection_split_that_is_too_small_still_chooses(count, reached):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24)).eval()
    whole = sum(p.numel() for p in model.parameters())

    def metric(model, batches):
        # Half of the numbers are enough.
        right = sum(p.numel() for p in model.parameters()) >= whole / 2
        return torch.full((sum(b.samples for b in batches),), float(right))

    _, stats = stonefx.compress(
        model,
        list(torch.randn(40, 24).split(10)),
        selection_data=list(torch.randn(20, 24).split(10)),
        confirmation_data=list(torch.randn(count, 24).split(10)),
        metric=metric,
        cost="bytes",
        forms=("pair",),
        progress=False,
    )
    # 20 agreements show no 95 %, and 40 neither; 80 do.
    assert any(point.lower >= 0.95 for point in stats.curve)
    assert stats.reached is reached
    assert (0.5 <= stats.model_ratio < 0.7) is reached
    assert any("needs 59 samples" in note for note in stats.notes) is not reached


def test_the_original_is_measured_once_a_split():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24)).eval()
    before = sum(p.numel() for p in model.parameters())
    asked = []

    def metric(model, batches):
        if sum(p.numel() for p in model.parameters()) == before:
            asked.append(id(batches))
        return torch.ones(sum(b.samples for b in batches))

    parts = [read(list(torch.randn(40, 24).split(10)), model) for _ in range(3)]
    settings = Settings(metric=metric, cost="bytes", forms=("pair",), progress=False)
    Search(model, copy.deepcopy(model), settings, Splits(*parts)).run()
    assert sorted(asked) == sorted(map(id, parts[1:]))
