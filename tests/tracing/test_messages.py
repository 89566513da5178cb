"""Messages that a forward gives: those given once are no part of a graph, the others come at every call."""

import functools
import logging
import warnings

import pytest
import torch
from torch import nn

import stonefx
from stonefx.capture import from_module

log = logging.getLogger(__name__)


class Speaking(nn.Module):
    def __init__(self, say):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
        self.say = say

    def forward(self, x):
        self.say(x)
        return self.layers(x)


@pytest.fixture
def once(monkeypatch):
    """As transformers has it."""
    cached = functools.lru_cache(None)(lambda self, message: self.warning(message))
    monkeypatch.setattr(logging.Logger, "warning_once", cached, raising=False)


@pytest.mark.parametrize(
    "say",
    [
        lambda x: warnings.warn("old", stacklevel=2),
        lambda x: warnings.warn("old", DeprecationWarning, stacklevel=3),
        lambda x: warnings.warn(f"{x.shape[0]} rows", stacklevel=2),
        lambda x: log.warning_once("old"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.usefixtures("once")
def test_what_is_said_once_leaves_a_model_whole(say):
    model, x = Speaking(say).eval(), torch.randn(3, 8)
    from_module(model, (x,), {})
    fast = stonefx.optimize(model, x)
    assert fast.report.rewritten("linear_chain") and not any(
        "was not captured" in note for note in fast.report.notes
    )
    torch.testing.assert_close(fast(x), model(x))


@pytest.mark.usefixtures("once")
def test_it_is_said_while_the_model_is_optimized(caplog):
    with pytest.warns(UserWarning, match="old"):
        stonefx.optimize(Speaking(lambda x: warnings.warn("old", stacklevel=2)).eval(), torch.randn(3, 8))
    stonefx.optimize(Speaking(lambda x: log.warning_once("older")).eval(), torch.randn(3, 8))
    assert [record.message for record in caplog.records if record.name == __name__] == ["older"]


def test_what_is_said_at_every_call_still_is(caplog):
    fast = stonefx.optimize(Speaking(lambda x: log.warning("%s rows", x.shape[0])).eval(), torch.randn(3, 8))
    assert any("was not captured" in note for note in fast.report.notes)
    caplog.clear()
    for rows in (2, 2, 5):
        fast(torch.randn(rows, 8))
    said = [record.getMessage() for record in caplog.records if record.name == __name__]
    assert said == ["2 rows", "2 rows", "5 rows"]
