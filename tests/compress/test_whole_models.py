"""Whole models of every family: no error, a form or a reason for each layer, and the same results at full rank."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from battery import spectrum_of
from torch import Tensor, nn

from stonefx.compress import compress, layers
from stonefx.compress.metric import main_result
from stonefx.compress.saving import plain
from stonefx.compress.settings import FORMS


class Residual(nn.Module):
    def __init__(self, given: int, made: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(given, made, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(made)
        self.second = nn.Conv2d(made, made, 3, 1, "same")
        self.around = nn.Conv2d(given, made, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.norm(self.first(x)))) + self.around(x))


def resnet() -> tuple[nn.Module, list[Any]]:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"),
        Residual(8, 8, 1),
        Residual(8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    return model, [torch.randn(4, 3, 9, 9) for _ in range(4)]


def decoder() -> tuple[nn.Module, list[Any]]:
    model = nn.Sequential(
        nn.ConvTranspose2d(8, 12, 3, 2, 1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(12, 6, 4, 2, 1, groups=2),
    )
    return model, [torch.randn(4, 8, 4, 4) for _ in range(4)]


class Tagger(nn.Module):
    def __init__(self, kind: type[nn.RNNBase] = nn.LSTM) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 12, padding_idx=0)
        self.recurrent = kind(12, 10, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 7)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        self.recurrent.flatten_parameters()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.table(tokens), attention_mask.sum(1), batch_first=True, enforce_sorted=False
        )
        y, _ = nn.utils.rnn.pad_packed_sequence(self.recurrent(packed)[0], batch_first=True)
        return self.head(y)


def tagger(kind: type[nn.RNNBase] = nn.LSTM) -> tuple[nn.Module, list[Any]]:
    mask = torch.ones(4, 6, dtype=torch.long)
    mask[1, 4:] = 0
    mask[2, 5:] = 0
    return Tagger(kind), [(torch.randint(1, 30, (4, 6)), mask) for _ in range(4)]


class LastState(nn.Module):
    """Only the state after the last step is used."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.GRU(10, 8)
        self.cell = nn.LSTMCell(8, 8)
        self.head = nn.Linear(8, 6)

    def forward(self, x: Tensor) -> Tensor:
        _, state = self.recurrent(x.transpose(0, 1))
        hidden, cell = self.cell(state[0])
        hidden, _ = self.cell(hidden, (hidden, cell))
        return self.head(hidden)


def last_state() -> tuple[nn.Module, list[Any]]:
    return LastState(), [torch.randn(4, 5, 10) for _ in range(4)]


def transformer() -> tuple[nn.Module, list[Any]]:
    model = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)
    return model, [(torch.randn(4, 5, 16), torch.randn(4, 3, 16)) for _ in range(4)]


class Encoder(nn.Module):
    """The fast path of nn.TransformerEncoder reads weights of its layers, nested tensors included."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder(x, src_key_padding_mask=attention_mask == 0)


def encoder() -> tuple[nn.Module, list[Any]]:
    mask = torch.ones(4, 5, dtype=torch.long)
    mask[1, 3:] = 0
    return Encoder(), [{"x": torch.randn(4, 5, 16), "attention_mask": mask} for _ in range(4)]


class OutputTied(nn.Module):
    """A table that is looked up and multiplied with, which only its weight tells."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(30, 16)
        self.inner = nn.Linear(16, 16)

    def forward(self, tokens: Tensor) -> Tensor:
        return nn.functional.linear(torch.tanh(self.inner(self.table(tokens))), self.table.weight)


def output_tied() -> tuple[nn.Module, list[Any]]:
    return OutputTied(), [torch.randint(30, (4, 5)) for _ in range(4)]


PLAIN = {
    "resnet": resnet,
    "decoder": decoder,
    "lstm": tagger,
    "gru": lambda: tagger(nn.GRU),
    "last state": last_state,
    "transformer": transformer,
    "encoder": encoder,
    "output tied": output_tied,
}


def zoo(name: str) -> tuple[nn.Module, list[Any]]:
    pytest.importorskip("transformers")
    from stonefx.benchmarks.zoo import ARCHITECTURES, TINY

    model, inputs = ARCHITECTURES[name](TINY)
    return model, [{k: _varied(v) for k, v in inputs.items()} for _ in range(4)]


def _varied(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point():
        return torch.randn_like(value)
    return value[:, torch.randperm(value.shape[1])] if value.dim() > 1 and bool((value > 1).any()) else value


ZOO = "bert gpt2 llama t5 vit wav2vec2 whisper falcon mamba unet".split()
BUILDERS = {**PLAIN, **{name: lambda name=name: zoo(name) for name in ZOO}}


@pytest.mark.parametrize("name", BUILDERS)
def test_every_family(name: str) -> None:
    torch.manual_seed(0)
    model, data = BUILDERS[name]()
    model.eval()
    # Of the tagger's bytes the weights of states are a good part, and these stay.
    ratio = 0.8 if name in ("lstm", "gru") else 0.7
    forms = FORMS if name in PLAIN or name == "falcon" else ("pair", "pifa")
    small, stats = compress(model, data, max_ratio=ratio, cost="bytes", forms=forms, progress=False, seed=1)
    assert stats.compression_ratio <= ratio and stats.reached
    assert not any("no call of it" in row.reason for row in stats.layers)
    rows = {row.path: row for row in stats.layers}
    assert len(rows) == len(stats.layers)
    for row in stats.layers:
        assert row.reason or (row.form != "dense" and row.bytes_after < row.bytes_before), row
    listed = set(rows)
    for path, parameter in model.named_parameters():
        if parameter.dim() > 1 and "parametrizations" not in path:
            assert {path, path.rpartition(".")[0]} & listed, path
    # Every replacement by itself, of full rank, and all of them together: the model's results.
    expected = [result(model, batch) for batch in data]
    full = fully_factored(model)
    for batch, y in zip(data, expected, strict=True):
        torch.testing.assert_close(result(full, batch), y, rtol=2e-3, atol=2e-4)
    assert all(result(small, batch).isfinite().all() for batch in data)


def result(model: nn.Module, batch: Any) -> Tensor:
    with torch.no_grad():
        if isinstance(batch, dict):
            return main_result(model(**batch))
        return main_result(model(*batch) if isinstance(batch, tuple) else model(batch))


def fully_factored(model: nn.Module) -> nn.Module:
    """A copy with every layer that can be replaced as a pair of full rank, its views in turn."""
    full = copy.deepcopy(model)
    found = layers.find(full)
    for i, (path, views) in enumerate(found.views.items()):
        view = views[i % len(views)]
        form = view.forms()["pair"]
        layers.replace(full, path, form.build(*spectrum_of(view).factors(view.full_rank)), found.shared)
    return full


@pytest.mark.parametrize("name", ["resnet", "decoder", "output tied"])
def test_models_of_torch_alone_give_the_same(name: str) -> None:
    model, data = BUILDERS[name]()
    small, stats = compress(model.eval(), data, max_ratio=0.7, cost="bytes", forms=("pair",), progress=False)
    assert any(row.form != "dense" for row in stats.layers)
    if name == "output tied":
        return
    bare = plain(small)
    assert {type(m).__module__.partition(".")[0] for m in bare.modules()} <= {"torch", __name__}
    torch.testing.assert_close(result(bare, data[0]), result(small, data[0]))


def test_nested_tensors_are_back_when_a_layer_is() -> None:
    model, data = encoder()
    model.eval()
    expected = result(model, data[0])
    found = layers.find(model)
    path = "encoder.layers.1.linear1"
    kept, view = model.get_submodule(path), found.views[path][0]
    pifa = view.forms()["pifa"].build(*spectrum_of(view).factors(8))
    layers.replace(model, path, pifa, found.shared)
    assert not model.encoder.use_nested_tensor and result(model, data[0]).isfinite().all()
    layers.replace(model, path, kept, found.shared)
    assert model.encoder.use_nested_tensor
    torch.testing.assert_close(result(model, data[0]), expected)
