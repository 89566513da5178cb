"""Recurrent layers are one operator of the graph; what lies before and behind them is rewritten."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils import _pytree as pytree

import stonefx


class Tagger(nn.Module):
    """Two maps, a recurrent layer, two maps."""

    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.before = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8))
        self.layer = kind(8, 16, **options)
        width = (options.get("proj_size") or 16) * (2 if options.get("bidirectional") else 1)
        self.behind = nn.Sequential(nn.Linear(width, 64), nn.Linear(64, 4))

    def forward(self, x: torch.Tensor, states: Any = None) -> Any:
        y, states = self.layer(self.before(x), states)
        return self.behind(y), states


KINDS = [
    (nn.LSTM, {"batch_first": True}),
    (nn.LSTM, {"proj_size": 6, "bidirectional": True, "num_layers": 2}),
    (nn.GRU, {"bidirectional": True, "batch_first": True}),
    (nn.RNN, {"nonlinearity": "relu", "bias": False}),
    (nn.RNN, {"batch_first": True, "num_layers": 2, "dropout": 0.5}),
]


def close(came: Any, wanted: Any) -> None:
    for one, other in zip(pytree.tree_leaves(came), pytree.tree_leaves(wanted), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_chains_around_a_recurrent_layer_are_merged(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    model, x = Tagger(kind, **options).eval(), torch.randn(3, 5, 8)
    fast = stonefx.optimize(model, x)
    assert len(fast.report.rewritten("linear_chain")) == 2
    twin = copy.deepcopy(fast)
    for leading in (3, 1, 7):
        probe = torch.randn(leading, 5, 8)
        close(fast(probe), model(probe))
        close(twin(probe), model(probe))


@pytest.mark.parametrize(("kind", "options"), KINDS[:3])
def test_states_may_be_given(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    model, x = Tagger(kind, **options).eval(), torch.randn(3, 5, 8)
    _, states = model(x)
    fast = stonefx.optimize(model, (x, states))
    assert len(fast.report.rewritten("linear_chain")) == 2
    close(fast(x, states), model(x, states))


def test_a_compiler_gets_what_lies_around_it_and_the_steps_may_vary() -> None:
    model, x = Tagger(nn.GRU).eval(), torch.randn(3, 5, 8)
    fast = stonefx.optimize(model, x, inner="aot_eager")
    assert len(fast.report.rewritten("linear_chain")) == 2
    for steps in (3, 7):
        probe = torch.randn(steps, 5, 8)
        with torch.no_grad():
            close(fast(probe), model(probe))
        close(fast(probe), model(probe))


def test_it_trains() -> None:
    model, x = Tagger(nn.LSTM, batch_first=True), torch.randn(3, 5, 8)
    fast = stonefx.optimize(model, x, keep=("before", "behind"))
    for subject in (model, fast):
        subject(x)[0].square().sum().backward()
    for (name, wanted), came in zip(model.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(came.grad, wanted.grad, msg=name)


def test_a_packed_sequence_in_the_forward_runs_and_the_rest_is_rewritten() -> None:
    class Packed(Tagger):
        def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
            packed = pack_padded_sequence(self.before(x), lengths, batch_first=True, enforce_sorted=False)
            return self.behind(pad_packed_sequence(self.layer(packed)[0], batch_first=True)[0])

    model, x, lengths = Packed(nn.LSTM).eval(), torch.randn(3, 5, 8), torch.tensor([5, 2, 3])
    fast = stonefx.optimize(model, (x, lengths))
    assert len(fast.report.rewritten("linear_chain")) == 2
    for rows in (lengths, torch.tensor([1, 4, 2])):
        close(fast(x, rows), model(x, rows))


def test_a_packed_sequence_as_an_argument_runs() -> None:
    model = nn.ModuleDict(
        {"layer": nn.GRU(8, 16), "head": nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 4))}
    )
    model.forward = lambda packed: model["head"](model["layer"](packed)[0].data)  # type: ignore[method-assign]
    packed = pack_padded_sequence(torch.randn(5, 3, 8), torch.tensor([5, 4, 2]))
    close(stonefx.optimize(model.eval(), (packed,))(packed), model(packed))


def test_the_steps_of_others_are_traced_as_ever() -> None:
    kernels = dict(torch.ops.aten.lstm.input.py_kernels)
    stonefx.optimize(Tagger(nn.LSTM).eval(), torch.randn(3, 5, 8))
    assert torch.ops.aten.lstm.input.py_kernels == kernels
