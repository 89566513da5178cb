"""Seconds of layers in the search: a clock that counts multiplications stands for the machine's."""

import pytest
import torch
from torch import nn

import stonefx
from stonefx.compress import latency
from stonefx.compress.data import Batch
from stonefx.compress.options import Candidate, Option
from stonefx.machine import clock

OVERHEAD = 1000


class Counter:
    """Time passes when a linear layer is called: a fixed part and one for each weight."""

    def __init__(self):
        self.now = 0.0
        self.handle = nn.modules.module.register_module_forward_hook(self.called)

    def called(self, module, args, result):
        if isinstance(module, nn.Linear):
            self.now += 1e-9 * (OVERHEAD + module.in_features * module.out_features)
        elif isinstance(module, stonefx.nn.LowRankLinear):
            self.now += 1e-9 * (2 * OVERHEAD + module.rank * (module.in_features + module.out_features))

    def __call__(self):
        return self.now


@pytest.fixture
def counted(monkeypatch):
    counter = Counter()
    monkeypatch.setattr(clock, "clock_of", lambda device: counter)
    monkeypatch.setattr(latency, "_known", {})
    yield counter
    counter.handle.remove()


def pair(rank, inputs=64, outputs=64):
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))


def candidate(path="0", ranks=range(1, 32)):
    options = [Option("dense", None, 0.0, 4 * 64 * 65)]
    for rank in ranks:
        options.append(Option("pair", rank, 1 / rank, 4 * 128 * rank, None, lambda r=rank: {path: pair(r)}))
    return Candidate((path,), options)


def batches(*sizes, features=64):
    return [Batch((torch.randn(size, features),), {}, size) for size in sizes]


def low_rank(seed=0, middle=96):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, middle), nn.ReLU(), nn.Linear(middle, 64)).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            u, s, v = torch.linalg.svd(layer.weight, full_matrices=False)
            layer.weight.copy_(u * (s * torch.exp(-torch.arange(len(s)) / 3.0)) @ v)
    return model


def test_options_that_are_not_faster_are_left_out_with_their_figures(counted):
    timing = latency.Timing(nn.Sequential(nn.Linear(64, 64)), ["0"], batches(8))
    one = candidate()
    timing.fill([one])
    dense = OVERHEAD + 64 * 64
    limit = (1 - latency.MARGIN) * dense
    assert [o.size for o in one.options[1:]] == [r for r in range(1, 32) if 2 * OVERHEAD + 128 * r < limit]
    for option in one.options[1:]:
        assert option.seconds == pytest.approx(1e-9 * (2 * OVERHEAD + 128 * option.size), rel=1e-6)
    assert one.dense.seconds == pytest.approx(1e-9 * dense, rel=1e-6)
    assert "not faster than dense in some sizes" in one.refused["pair"] and "1.0" in one.refused["pair"]


def test_a_form_of_which_no_size_is_faster_is_refused_whole(counted):
    timing = latency.Timing(nn.Sequential(nn.Linear(64, 64)), ["0"], batches(8))
    one = candidate(ranks=range(28, 32))
    timing.fill([one])
    assert len(one.options) == 1
    assert one.reason() == f"not faster than dense: pair {(2000 + 128 * 28) / 5096:.2f} of its time at 28"


def test_without_refusing_all_options_keep_their_seconds(counted):
    timing = latency.Timing(nn.Sequential(nn.Linear(64, 64)), ["0"], batches(8))
    one = candidate()
    timing.fill([one], refuse=False)
    assert len(one.options) == 32 and all(o.seconds is not None for o in one.options)


def test_equal_layers_are_timed_once_and_few_ranks_of_each(counted):
    built = []
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    both = [candidate("0"), candidate("1")]
    for one in both:
        one.options = [
            Option(o.form, o.size, o.loss, o.bytes, None, lambda o=o: built.append(o.size) or o.build())
            for o in one.options
        ]
    latency.Timing(model, ["0", "1"], batches(8)).fill(both)
    assert len(built) == latency.SIZES
    latency.Timing(model, ["0", "1"], batches(8)).fill([candidate("0")])
    assert len(built) == latency.SIZES


def test_a_layer_called_twice_costs_twice(counted):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)

        def forward(self, x):
            return self.layer(self.layer(x))

    timing = latency.Timing(Twice(), ["layer"], batches(8))
    one = candidate("layer")
    timing.fill([one])
    assert one.dense.seconds == pytest.approx(2e-9 * (OVERHEAD + 4096), rel=1e-6)


def test_what_cannot_be_called_by_itself_stays_dense(counted):
    timing = latency.Timing(nn.Sequential(nn.Linear(64, 64)), ["0"], batches(8))
    one = Candidate(
        ("0",),
        [
            Option("dense", None, 0.0, 100),
            Option("pair", 3, 1.0, 50, None, lambda: {"0": nn.Bilinear(3, 3, 3)}),
        ],
    )
    timing.fill([one])
    assert len(one.options) == 1 and "could not be timed" in one.refused["pair"]
    assert any("could not be timed by itself" in note for note in timing.notes)


def test_a_reduced_layer_is_given_its_own_number_of_inputs(counted):
    model = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64))
    timing = latency.Timing(model, ["0", "2"], batches(8))
    parts = {"0": nn.Linear(64, 32), "2": nn.Linear(32, 64)}
    one = Candidate(
        ("0", "2"), [Option("dense", None, 0.0, 9), Option("width", 32, 1.0, 5, None, lambda: parts)]
    )
    timing.fill([one])
    assert one.options[1].seconds == pytest.approx(1e-9 * (2 * OVERHEAD + 2 * 64 * 32), rel=1e-6)


def test_the_most_frequent_shapes_and_the_largest():
    given = batches(8, 8, 4, 16)
    assert [b.samples for b in latency.typical(given)] == [8, 16]
    assert [b.samples for b in latency.typical(batches(8, 8, 4))] == [8]


def test_max_seconds_is_held_by_the_whole_model(counted):
    model = low_rank()
    x = batches(*[16] * 12)
    dense = 1e-9 * (2 * OVERHEAD + 2 * 64 * 96)
    small, stats = stonefx.compress(model, x, max_seconds=0.7 * dense, forms=["pair"], progress=False)
    assert stats.reached and stats.call_seconds_after <= 0.7 * dense
    assert stats.call_seconds_before == pytest.approx(dense, rel=1e-6)
    counted.now = 0.0
    small(x[0].args[0])
    assert counted.now == pytest.approx(stats.call_seconds_after, rel=1e-6)


def test_seconds_that_cannot_be_had_are_not_reached(counted):
    _, stats = stonefx.compress(
        low_rank(), batches(*[16] * 12), max_seconds=1e-9, forms=["pair"], progress=False
    )
    assert stats.reached is False


@pytest.mark.parametrize("cost", ["both", "seconds", "bytes"])
def test_no_layer_is_slower_unless_bytes_alone_count(counted, cost):
    model = nn.Sequential(low_rank(), nn.Linear(64, 24)).eval()
    _, stats = stonefx.compress(
        model, batches(*[16] * 12), min_accuracy=0.5, cost=cost, forms=["pair"], progress=False
    )
    for row in stats.layers:
        if cost == "bytes":
            assert row.seconds_after is None and row.form == "pair"
        else:
            assert row.seconds_after <= row.seconds_before
    # 64 x 24 takes 2.5 microseconds, and no two layers less than 2.
    assert cost == "bytes" or stats.layers[0].form == "pair"


def test_what_is_slower_when_it_is_timed_again_goes_back(counted, monkeypatch):
    slow = latency.Ratio(1.2, 0.0, 1e-6)
    monkeypatch.setattr(latency.Timing, "compare", lambda self, paths, modules: [slow])
    model = low_rank()
    small, stats = stonefx.compress(
        model, batches(*[16] * 12), min_accuracy=0.5, forms=["pair"], progress=False
    )
    assert [row.form for row in stats.layers] == ["dense", "dense"]
    assert all("slower when it was timed again: pair 1.20 of dense" in row.reason for row in stats.layers)
    assert stats.compression_ratio == 1.0 and type(small[0]) is nn.Linear


def test_ranks_by_energy_are_timed_too(counted):
    # 64 x 24 takes 2.5 microseconds, and two layers of rank 8 take 2.7.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 24)).eval()
    u, _, v = torch.linalg.svd(model[0].weight.detach(), full_matrices=False)
    model[0].weight.data = u * torch.where(torch.arange(24) < 8, 1.0, 1e-3) @ v
    for cost, form in (("both", "dense"), ("bytes", "pair")):
        _, stats = stonefx.compress(
            model,
            batches(*[16] * 12),
            energy=0.99,
            min_accuracy=0.9,
            cost=cost,
            forms=["pair"],
            progress=False,
        )
        assert [row.form for row in stats.layers] == [form]
    _, stats = stonefx.compress(model, energy=0.99, forms=["pair"], progress=False)
    assert any("nothing was timed" in note for note in stats.notes)


class Generates(nn.Module):
    def __init__(self, generates=True):
        super().__init__()
        self.generates = generates
        self.convolution = nn.Conv1d(64, 64, 3, padding=1)
        self.layer = nn.Linear(64, 64)

    def can_generate(self):
        return self.generates

    def forward(self, x):
        return self.layer(self.convolution(x.mT).mT)


@pytest.mark.parametrize("generates", (True, False))
def test_a_model_that_generates_is_timed_at_one_position_too(counted, generates):
    batch = Batch((torch.randn(3, 5, 64),), {}, 3)
    timing = latency.Timing(Generates(generates), ["layer", "convolution"], [batch])
    shapes = [{path: list(call.args[0].shape) for path, (call, _) in calls.items()} for calls in timing.calls]
    whole = {"layer": [3, 5, 64], "convolution": [3, 64, 5]}
    assert shapes == [whole, {**whole, "layer": [1, 1, 64]}][: 1 + generates]
    options = candidate("layer")
    timing.fill([options])
    assert any(option.form == "pair" and option.seconds for option in options.options)
    # A layer of this size is read from the caches.
    assert timing._between(1) is None


def test_weights_of_a_large_model_come_from_memory_at_one_position(counted, monkeypatch):
    monkeypatch.setattr(latency, "CACHES", 1 << 12)
    batch = Batch((torch.randn(3, 5, 64),), {}, 3)
    timing = latency.Timing(Generates(), ["layer"], [batch])
    ratio, step = timing.compare(["layer"], {"layer": pair(8)})
    assert ratio.median < 1 and step.median < 1
    assert timing._others.min() > 0
    assert timing._between(0) is None


def test_what_runs_between_calls_is_not_timed(counted):
    def between():
        counted.now += 5.0

    layer, x = nn.Linear(64, 64), torch.ones(2, 64)
    rounds = clock.interleaved(
        [lambda: layer(x)] * 2, torch.device("cpu"), seconds=1.0, rounds=3, between=between
    )
    assert rounds
    assert all(0 < second < 1 for times in rounds for second in times)


def test_a_clock_in_turn():
    calls = []
    times = clock.interleaved(
        [lambda: calls.append("a"), lambda: calls.append("b")], torch.device("cpu"), seconds=0.0, least=2
    )
    assert len(times) == 2 and all(len(row) == 2 and min(row) > 0 for row in times)
    assert {"a", "b"} == set(calls)
