"""The cost model of a GPU against recorded facts of a card."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from graphs import trace
from torch._subclasses.fake_tensor import FakeTensorMode

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.machine.cached import _machine
from stonefx.machine.gpu import gpu_times
from stonefx.passes.cost.gpu_times import GpuTimes
from stonefx.passes.cost.machine import Machine
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.lower import LOWER
from stonefx.passes.site import Context

FACTS = json.loads((Path(__file__).parent / "assumed_h100.json").read_text())
RATES = {"flop_rate": 5.1e13, "bandwidth": 2.96e12, "launch": 1.5e-5, "pair_launches": 2}
CARD = Machine(**RATES, **{name: GpuTimes(**FACTS[name]) for name in ("single", "half")})
GRAPH = replace(CARD, single=replace(CARD.single, launch=0), half=replace(CARD.half, launch=0))


@pytest.mark.parametrize("seen", FACTS["graph_seconds"])
def test_the_faster_of_dense_and_pair_is_picked_in_a_graph(seen):
    rows, width, rank, itemsize = (seen[name] for name in ("rows", "width", "rank", "itemsize"))
    dense = GRAPH.linear_seconds(rows, width, width, itemsize)
    pair = GRAPH.pair_seconds(rows, width, rank, width, itemsize)
    assert (pair < dense) == (seen["pair"] < seen["dense"])
    assert dense == pytest.approx(seen["dense"], rel=0.35)


def test_a_call_costs_the_host_or_the_device():
    assert CARD.linear_seconds(1, 1024, 1024, 2) == pytest.approx(1.7e-5)
    assert CARD.pair_seconds(1, 1024, 64, 1024, 2) == pytest.approx(3.4e-5)
    large = CARD.linear_seconds(65536, 4096, 4096, 2)
    assert large == pytest.approx(2 * 65536 * 4096**2 / 7.86e14, rel=0.1)


@pytest.mark.parametrize("itemsize", [2, 4])
def test_more_rows_or_outputs_never_take_less(itemsize):
    rows = [5, 16, 64, 256, 1024, 4096, 65536]
    times = [GRAPH.linear_seconds(each, 4096, 4096, itemsize) for each in rows]
    assert times == sorted(times)
    wide = [GRAPH.linear_seconds(256, 4096, 1024 << each, itemsize) for each in range(5)]
    assert wide == sorted(wide)


def test_bad_facts_are_refused_by_name():
    with pytest.raises(ValueError, match="expected rate > 0, got 0"):
        replace(CARD.single, rate=0)
    with pytest.raises(ValueError, match="expected launch >= 0, got -1"):
        replace(CARD.single, launch=-1)


def test_facts_survive_the_file():
    assert _machine(json.loads(json.dumps(dataclasses.asdict(CARD)))) == CARD


def test_measuring_takes_rates_from_the_clocks(monkeypatch):
    monkeypatch.setattr("stonefx.machine.gpu._LARGE", (64, 64, 64))
    monkeypatch.setattr("stonefx.machine.gpu._COPIED", 1 << 12)
    times = iter([1.0, 3.0, 5.0, 2.0])
    found = gpu_times(torch.device("cpu"), torch.float32, 1 << 12, 8, lambda _: next(times), lambda _: 0.5)
    assert (found.launch, found.start, found.rate) == (0.5, 1.0, 2 * 64**3 / 2)
    assert found.dram == 2 * 4096 / 4 and found.cached == found.dram and found.cache_bytes == 2048


def on_cuda(module):
    """The same graph with values on a card, as far as facts of values go."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            with mode:
                node.meta["val"] = torch.empty(tuple(value.shape), dtype=value.dtype, device="cuda")
    return module


def norm(x):
    return x.norm(dim=-1, keepdim=True).clamp_min(1e-15)


def expmap0(x):
    return torch.tanh(norm(x)) * x / norm(x)


def logmap0(x):
    return torch.atanh(norm(x).clamp_max(0.99)) * x / norm(x)


@pytest.mark.parametrize("rows", [64, 65536])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("grad", [False, True])
def test_maps_are_left_to_inductor_on_cuda_and_replaced_in_eager(rows, count, grad):
    def chain(_, x):
        for step in range(count):
            x = 0.5 * (expmap0(x) if step % 2 == 0 else logmap0(x)) + 0.01
        return x

    x = torch.empty(rows, 64)
    context = Context(inner="inductor", grad=grad, machine=CARD)
    found = HYPERBOLIC.run(on_cuda(trace(chain, x)), context)
    assert len(found) == count and {site.code for site in found} == {"operator_no_faster"}
    # What inductor would keep in registers is written and read again at each end of an operator.
    ends = [site.seconds_after - (2 if grad else 1) * 1.5e-5 for site in found]
    trip = 2 * rows * 64 * 4 / 2.96e12
    assert all(end >= 0.99 * trip for end in ends) and all(site.seconds_before == 0 for site in found)
    eager = HYPERBOLIC.run(on_cuda(trace(chain, x)), replace(context, inner="eager"))
    assert {site.status for site in eager} == {"rewritten"}


@pytest.mark.parametrize(("grad", "count"), [(False, 2), (True, 0)])
def test_a_pair_on_cuda_runs_as_two_linear_maps_without_gradients(grad, count):
    def pair(w, x):
        return torch.ops.stone.low_rank_linear(x, w.a, w.b, None)

    weights = {"a": torch.ones(2, 8), "b": torch.ones(8, 2)}
    module = on_cuda(trace(pair, torch.ones(4, 8), weights=weights))
    LOWER.run(module, Context(grad=grad))
    targets = [node.target for node in module.graph.nodes]
    assert targets.count(torch.ops.aten.linear.default) == count
