"""Capture leaves the model, the call and the process as they were."""

from __future__ import annotations

from typing import Any

import torch
from replay import mlp, replay
from torch import nn

from stonefx.capture import from_module


class Stateful(nn.Module):
    """Batch norm, dropout, a buffer written in place and an embedding that renormalises its weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = nn.BatchNorm1d(4)
        self.table = nn.Embedding(3, 4, max_norm=0.1)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        x.mul_(2)
        rows = self.table(torch.zeros(1, dtype=torch.long))
        return nn.functional.dropout(self.norm(x), 0.5, self.training) * self.steps + rows


def test_the_model_the_call_and_the_process_are_left_as_they_were() -> None:
    model = Stateful()
    model.norm.train(False)
    x = torch.randn(3, 4).requires_grad_() * 1
    state = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    versions = [tensor._version for tensor, _ in state.values()]
    values, random_state, marks = x.detach().clone(), torch.get_rng_state(), dict(vars(x))
    with torch.no_grad():
        capture = from_module(model, (x,))
        assert not torch.is_grad_enabled()
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert tensor is state[name][0] and torch.equal(tensor, state[name][1])
        assert vars(tensor) == {}
    assert [tensor._version for tensor, _ in state.values()] == versions
    assert torch.equal(x, values) and vars(x) == marks
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training and not model.norm.training and capture.training


def test_no_cache_of_the_users_functions_grows() -> None:
    model = mlp()
    graphs: list[Any] = []

    def backend(gm: Any, inputs: Any) -> Any:
        graphs.append(gm)
        return gm.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=backend)
    compiled(torch.ones(2, 4))
    for size in (2, 3, 4):
        from_module(model, (torch.ones(size, 4),))
    compiled(torch.ones(2, 4))
    assert len(graphs) == 1
    compiled(torch.ones(3, 4))
    compiled(torch.ones(4, 4))
    assert len(graphs) == 2


def test_capture_works_under_inference_mode_a_stance_and_suppressed_errors() -> None:
    model = mlp()
    with (
        torch.inference_mode(),
        torch.compiler.set_stance("force_eager"),
        torch._dynamo.config.patch(suppress_errors=True),
    ):
        capture = from_module(model, (torch.ones(2, 4),))
    x = torch.ones(3, 4)
    assert torch.equal(replay(capture, model, x), model(x))
