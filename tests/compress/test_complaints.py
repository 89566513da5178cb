"""What users of other tools for this complain about, where no other test of this folder is about it already.

`docs/compression.md` lists all complaints with their tests.
"""

import pytest
import torch
from torch import nn

import stonefx

QUICK = {"cost": "bytes", "forms": ["pair", "pifa"], "progress": False}


def network(features=32, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, 48), nn.ReLU(), nn.Linear(48, 16)).eval()


def batches(features=32, count=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, features, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(
    "options",
    [
        {"min_accuracy": 0.5},
        {"min_accuracy": 0.999},
        {"max_ratio": 0.5},
        {"max_ratio": 1.0},
        {"min_accuracy": 0.9, "energy": 0.99},
        {"min_accuracy": 0.9, "energy": 0.5},
        {"min_accuracy": 0.5, "forms": ["pair", "pifa", "width", "int8"]},
    ],
    ids=str,
)
def test_no_layer_is_larger(options):
    model = network()
    small, stats = stonefx.compress(model, batches(), **QUICK | options)
    assert all(row.bytes_after <= row.bytes_before for row in stats.layers)
    assert stats.compression_ratio <= 1 and stats.model_ratio <= 1
    rows = {row.path: row for row in stats.layers}
    for path, row in rows.items():
        layer = small.get_submodule(path)
        stored = 0
        for value in layer.state_dict().values():
            names = value.__tensor_flatten__()[0] if "Int8" in type(value).__name__ else None
            parts = [value] if names is None else [getattr(value, name) for name in names]
            stored += sum(t.numel() * t.element_size() for t in parts)
        assert stored == row.bytes_after


def dead(x):
    x = x.clone()
    x[:, ::2] = 0
    return x


@pytest.mark.parametrize(
    "change",
    [dead, lambda x: x[:, :1].expand_as(x).clone(), torch.zeros_like, lambda x: 1e4 * x, lambda x: 1e-6 * x],
    ids=["dead inputs", "equal inputs", "zeros", "huge", "tiny"],
)
def test_statistics_that_are_singular_do_not_fail(change):
    data = [change(x) for x in batches()]
    small, stats = stonefx.compress(network(), data, min_accuracy=0.9, **QUICK)
    assert small(data[0]).isfinite().all() and stats.reached
    assert not any("not finite" in row.reason for row in stats.layers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_half_precision_do_not_overflow(dtype):
    model = network().to(dtype)
    # Squares of 600 are beyond what float16 holds.
    data = [(600 * x).to(dtype) for x in batches()]
    small, stats = stonefx.compress(model, data, min_accuracy=0.9, **QUICK)
    assert stats.reached and stats.compression_ratio < 1
    assert small(data[0]).dtype is dtype and small(data[0]).isfinite().all()


def test_weights_that_are_not_numbers_are_named_and_the_others_go_on():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.good, self.bad = network(), nn.Linear(32, 16)
            self.bad.weight.data[0, 0] = float("nan")

        def forward(self, x):
            return self.good(x) + 0 * self.bad(torch.zeros_like(x)).nan_to_num()

    _, stats = stonefx.compress(Two().eval(), batches(), min_accuracy=0.5, **QUICK)
    rows = {row.path: row for row in stats.layers}
    assert rows["bad"].form == "dense" and "its weights are not finite" in rows["bad"].reason
    assert rows["good.0"].form != "dense"


def test_every_layer_with_a_matrix_has_a_row_and_each_that_stays_a_reason():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(32, 32), nn.Linear(32, 32)
            self.norm = nn.LayerNorm(32)
            self.head = nn.Linear(32, 3)
            self.twin = nn.Linear(32, 3)
            self.twin.weight = self.head.weight

        def forward(self, x):
            return self.head(self.norm(self.used(x))) + self.twin(x)

    _, stats = stonefx.compress(Mixed().eval(), batches(), max_ratio=0.5, **QUICK)
    rows = {row.path: row for row in stats.layers}
    assert {"used", "unused", "head", "twin"} <= rows.keys()
    assert all(row.reason for row in rows.values() if row.form == "dense")
    assert "no call of it was seen" in rows["unused"].reason and "tied" in rows["twin"].reason


def test_layers_that_saw_little_data_are_named():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.often, self.seldom = nn.Linear(32, 16), nn.Linear(32, 16)

        def forward(self, x):
            return self.often(x) + nn.functional.pad(self.seldom(x[:1]), (0, 0, 0, len(x) - 1))

    _, stats = stonefx.compress(Routed().eval(), batches(), min_accuracy=0.5, **QUICK)
    (note,) = [note for note in stats.notes if "fewer rows" in note]
    assert "seldom" in note and "often (" not in note


@pytest.mark.parametrize("evaluations", [2, 5, 12])
def test_the_metric_is_evaluated_a_bounded_number_of_times(evaluations):
    calls = []

    def metric(model, data):
        calls.append(sum(batch.samples for batch in data))
        y = torch.cat([model(*batch.args) for batch in data])
        return -(y - 1).square().mean(1) + 10

    _, stats = stonefx.compress(
        network(), batches(), metric=metric, min_accuracy=0.99, evaluations=evaluations, **QUICK
    )
    # Those of the plans, the original on two parts, and the confirmation.
    assert len(stats.curve) <= evaluations and len(calls) <= evaluations + 3


def test_a_metric_is_given_a_model_that_can_be_called_and_knows_no_node_names():
    seen = []

    def metric(model):
        seen.append(type(model))
        return 1.0 if model(torch.ones(2, 32)).shape == (2, 16) else 0.0

    _, stats = stonefx.compress(network(), batches(), metric=metric, **QUICK)
    assert set(seen) == {nn.Sequential}
    assert any("pass a metric(model, batches)" in note for note in stats.notes)


def test_the_parts_of_the_data_are_stated_and_share_no_sample():
    data = batches()
    parts = []

    def metric(model, given):
        part = {batch.args[0][i].sum().item() for batch in given for i in range(batch.samples)}
        if part not in parts:
            parts.append(part)
        return 1.0

    _, stats = stonefx.compress(network(), data, metric=metric, **QUICK)
    assert len(parts) == 2 and not parts[0] & parts[1]
    assert sum(stats.samples.values()) == 12 * 16 and set(stats.samples) == {"calibrate", "select", "confirm"}
    assert {len(part) for part in parts} == {stats.samples["select"], stats.samples["confirm"]}


def test_a_model_on_two_devices_is_refused():
    model = network()
    model[2].to("meta")
    with pytest.raises(ValueError, match=r"model: expected all weights on one device, got cpu, meta"):
        stonefx.compress(model, batches(), **QUICK)


def test_a_floor_that_cannot_be_confirmed_gives_the_layers_as_they_were():
    few = [x[:2] for x in batches(count=3)]

    _, stats = stonefx.compress(network(), few, metric="top1", min_accuracy=0.95, **QUICK)
    assert stats.reached is False and stats.compression_ratio == 1.0
    assert any("needs 59 samples" in note for note in stats.notes)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda model, data: -2.0, "expected a positive number for the original model"),
        (lambda model, data: 0.0, "expected a positive number for the original model"),
        (lambda model, data: float("nan"), "expected a finite number for the original model, got nan"),
        (lambda model, data: None, "expected a function that returns a number, .* got None of type NoneType"),
        (
            lambda model, data: 20.0 if type(model[0]) is nn.Linear else 400.0,
            "expected one that is higher where the model is better, got one that is 20 times as high",
        ),
    ],
    ids=["negative", "zero", "nan", "none", "larger is worse"],
)
def test_metrics_of_which_no_share_is_a_floor(metric, message):
    with pytest.raises((TypeError, ValueError), match=f"metric: {message}"):
        stonefx.compress(network(), batches(), metric=metric, min_accuracy=0.9, **QUICK)


def test_a_metric_that_is_the_same_for_all_is_noted_and_one_without_a_number_never_holds():
    _, stats = stonefx.compress(network(), batches(), metric=lambda model, data: 1.0, **QUICK)
    assert any("does it look at the model" in note for note in stats.notes)

    def fails(model, data):
        return 1.0 if type(model[0]) is nn.Linear and type(model[2]) is nn.Linear else float("nan")

    small, stats = stonefx.compress(network(), batches(), metric=fails, **QUICK)
    assert type(small[0]) is type(small[2]) is nn.Linear and stats.compression_ratio == 1.0


def test_a_model_and_data_of_inference_mode():
    with torch.inference_mode():
        model, data = network(), batches()
        small, stats = stonefx.compress(model, data, min_accuracy=0.5, **QUICK)
        assert stats.reached and stats.compression_ratio < 1
    assert not any(parameter.is_inference() for parameter in small.parameters())


def test_rows_of_folded_norms_count_what_they_took_up():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 16, 3, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1),
    ).eval()  # fmt: skip
    data = [torch.randn(4, 8, 8, 8) for _ in range(6)]
    _, stats = stonefx.compress(model, data, max_ratio=0.6, **QUICK)
    assert all(row.bytes_after <= row.bytes_before for row in stats.layers if row.form != "merged")
    assert stats.reached == (stats.compression_ratio <= 0.6)


class Reading(nn.Module):
    """Code that reads weights of its layers which nothing in their place has."""

    def __init__(self, read):
        super().__init__()
        self.recurrent = nn.LSTM(32, 16, 2, batch_first=True)
        self.free = nn.Linear(16, 16)
        self.read = read

    def forward(self, x):
        return self.free(self.recurrent(x)[0]) + getattr(self.recurrent, self.read).sum()


@pytest.mark.parametrize("read", ["weight_ih_l0", "weight_hh_l1"])
@pytest.mark.parametrize("asked", [{"max_ratio": 0.8}, {"energy": 0.5, "min_accuracy": 0.1}], ids=str)
def test_what_the_models_code_does_not_take_stays_and_the_others_go_on(read, asked):
    torch.manual_seed(0)
    data = [torch.randn(4, 5, 32) for _ in range(8)]
    small, stats = stonefx.compress(Reading(read).eval(), data, **asked, **QUICK)
    assert type(small.recurrent) is nn.LSTM
    rows = {row.path: row for row in stats.layers}
    assert "the model does not run with it: pair input AttributeError" in rows["recurrent"].reason
    assert rows["free"].form == "pair"
