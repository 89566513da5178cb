"""Which layers feed which."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from stonefx.compress import structure
from stonefx.compress.data import Batch


def read(model: nn.Module, *args, **kwargs) -> structure.Structure:
    samples = next(t.shape[0] for t in (*args, *kwargs.values()) if isinstance(t, torch.Tensor))
    return structure.read(model.eval(), Batch(args, kwargs, samples))


def test_plain_calls_are_found():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    found = read(model, torch.randn(2, 3, 4, 4))
    assert sorted(found.calls.values()) == ["0", "1", "4"]
    assert not found.notes


class Reader(nn.Module):
    """A forward that does with a layer what `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        if how == "tied":
            self.second.weight = self.first.weight
        if how == "hook":
            self.first.register_forward_hook(lambda module, args, y: 2 * y)
        if how == "parametrized":
            nn.utils.parametrizations.weight_norm(self.first)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        if self.how == "twice":
            y = self.first(y)
        if self.how == "weight":
            y = y + self.first.weight.sum()
        if self.how == "functional":
            return functional.linear(y, self.second.weight, self.second.bias)
        return self.second(torch.relu(y))


@pytest.mark.parametrize(
    ("how", "plain"),
    [
        ("plain", ["first", "second"]),
        ("twice", ["second"]),
        ("weight", ["second"]),
        ("tied", []),
        ("hook", ["second"]),
        ("parametrized", ["second"]),
        ("functional", ["first"]),
    ],
)
def test_only_what_nothing_else_reads_is_a_plain_call(how, plain):
    assert sorted(read(Reader(how), torch.randn(3, 6)).calls.values()) == plain


def test_a_module_under_two_paths_has_its_first():
    inner = nn.Linear(4, 4)
    model = nn.ModuleDict({"a": inner, "b": inner})
    model.forward = lambda x: model["b"](x)
    found = read(model, torch.randn(3, 4))
    assert set(found.calls.values()) <= {"a"}


class Breaks(nn.Module):
    """No single graph: the way it takes hangs on a value."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.twice = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        if float(x.sum()) > 1e6:
            return x
        return self.twice(self.twice(x))


def test_a_model_that_is_no_single_graph_is_read_in_parts():
    found = read(Breaks(), torch.randn(3, 4))
    assert sorted(found.calls.values()) == ["body.0", "body.2"]
    assert any("no single graph" in note for note in found.notes)


class Cache:
    def __init__(self, value: torch.Tensor) -> None:
        self.value = value


class Caching(nn.Module):
    """A result that a capture cannot look into, beside its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> dict:
        y = self.layer(x)
        return {"y": y, "cache": Cache(y)}


def test_results_that_hold_more_than_tensors():
    found = read(Caching(), torch.randn(3, 4))
    assert list(found.calls.values()) == ["layer"]
    assert not found.notes


def test_layers_among_patterns():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Linear(2, 2))
    assert structure.among(model, "0.*") == {"0.0", "0.1"}
    assert {"0.0", "0.1", "1"} <= structure.among(model, None)


def test_a_capture_that_fails_without_a_word_is_named_by_its_type(monkeypatch):
    def failing(*args, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(structure, "from_module", failing)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    read = structure.read(model, Batch((torch.ones(2, 4),), samples=2))
    assert any("NotImplementedError" in note for note in read.notes)
