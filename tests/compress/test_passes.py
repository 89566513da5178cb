"""Reading a model forward and back, whatever it does to its values."""

import pytest
import torch
from torch import nn

from stonefx.compress import compress


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 4)


class WritesInPlace(Plain):
    def forward(self, x):
        return self.second(torch.relu_(self.first(x)))


class WithoutGradients(Plain):
    def forward(self, x):
        with torch.no_grad():
            x = torch.tanh(self.first(x))
        return self.second(x)


class CalledTwice(Plain):
    def forward(self, x):
        h = torch.tanh(self.first(x)) + torch.sin(self.first(2 * x))
        return self.second(h)


class ByKeyword(Plain):
    def forward(self, x):
        return self.second(input=torch.tanh(self.first(input=x)))


class SharedInput(Plain):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(6, 12)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)) * self.other(x))


class SometimesShared(SharedInput):
    calls = 0

    def forward(self, x):
        type(self).calls += 1
        return self.second(torch.tanh(self.first(x)) * self.other(x if self.calls % 2 else x.clone()))


class Flattened(Plain):
    def forward(self, x):
        y = self.second(torch.tanh(self.first(x.reshape(-1, 6))))
        return y.reshape(*x.shape[:-1], 4)


class Tuples(Plain):
    def forward(self, x):
        return {"ids": torch.ones(len(x), dtype=torch.long), "values": self.second(torch.tanh(self.first(x)))}


KINDS = (
    WritesInPlace,
    WithoutGradients,
    CalledTwice,
    ByKeyword,
    SharedInput,
    SometimesShared,
    Flattened,
    Tuples,
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", (False, True))
def test_every_model_is_read_and_left_as_it_was(kind, training):
    torch.manual_seed(0)
    model = kind().train(training)
    model.first.bias.requires_grad_(False)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    data = [torch.randn(4, 3, 6) for _ in range(12)]
    small, stats = compress(model, data, max_ratio=0.7, cost="bytes", progress=False)
    assert stats.reached and stats.compression_ratio <= 0.7
    assert stats.accuracy_preserved > 0
    assert model.training is training
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name][0]) and p.requires_grad is before[name][1] and p.grad is None
    result = small(data[0])
    assert torch.isfinite(result["values"] if isinstance(result, dict) else result).all()


def test_a_layer_that_is_not_called_is_refused_with_the_reason():
    model = SharedInput()
    model.forward = lambda x: model.second(torch.tanh(model.first(x)))
    _, stats = compress(
        model, [torch.randn(4, 6) for _ in range(12)], max_ratio=0.8, cost="bytes", progress=False
    )
    (row,) = (row for row in stats.layers if row.path == "other")
    assert row.form == "dense" and "no call of it was seen" in row.reason
