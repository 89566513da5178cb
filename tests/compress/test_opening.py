"""Attention and stacked recurrent layers as layers for each of their maps: equal in every way of calling them."""

import copy
import io
import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from stonefx.compress import compress, plain
from stonefx.compress.opening import Attention, RecurrentStack

DOUBLE = {"dtype": torch.float64}


def loaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(("first", "batched"), list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize(
    "options",
    [{}, {"bias": False, "kdim": 6, "vdim": 10}, {"add_bias_kv": True, "add_zero_attn": True}],
    ids=str,
)
def test_attention(options, first, batched):
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=first, **options, **DOUBLE).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter)

    def given(length, width):
        shape = (length, width) if not batched else (3, length, width) if first else (length, 3, width)
        return torch.randn(shape, **DOUBLE)

    opened = Attention(copy.deepcopy(layer))
    masks = [
        None,
        torch.ones(4, 5).triu(2).bool(),
        torch.randn(4, 5, **DOUBLE),
        torch.randn(6 if batched else 2, 4, 5, **DOUBLE),
    ]
    paddings = [None, torch.zeros(3, 5) > 0, torch.randn(3, 5, **DOUBLE)]
    for mask, padding, need, average in itertools.product(masks, paddings, (False, True), (False, True)):
        x = given(4, 8), given(5, options.get("kdim", 8)), given(5, options.get("vdim", 8))
        way = {"attn_mask": mask, "need_weights": need, "average_attn_weights": average}
        way["key_padding_mask"] = padding if batched or padding is None else padding[0]
        with torch.no_grad():
            torch.testing.assert_close(opened(*x, **way), layer(*x, **way))
    alone = Attention(copy.deepcopy(layer))
    alone(*x, **way)
    torch.testing.assert_close(loaded(alone.plain())(*x, **way), layer(*x, **way))
    with pytest.raises(TypeError, match="called in several ways"):
        opened.plain()


@pytest.mark.parametrize(("first", "both"), list(itertools.product((False, True), repeat=2)))
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_stacked_recurrent_layers(kind, first, both):
    torch.manual_seed(0)
    projected = {"proj_size": 3} if kind is nn.LSTM and both else {}
    layer = kind(6, 4, 3, batch_first=first, bidirectional=both, **projected, **DOUBLE).eval()
    opened = RecurrentStack(copy.deepcopy(layer))
    x = torch.randn(2, 5, 6, **DOUBLE)
    state = torch.randn(6 if both else 3, 2 if first else 5, 3 if projected else 4, **DOUBLE)
    if kind is nn.LSTM:
        state = state, torch.randn(*state.shape[:2], 4, **DOUBLE)
    torch.testing.assert_close(opened(x), layer(x))
    torch.testing.assert_close(loaded(opened.plain())(x), layer(x))
    torch.testing.assert_close(opened(x, state), layer(x, state))
    packed = pack_padded_sequence(x if first else x.transpose(0, 1), torch.tensor([3, 5]), first, False)
    (y, end), (expected, expected_end) = opened(packed), layer(packed)
    torch.testing.assert_close((y.data, end), (expected.data, expected_end))


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.recurrent = nn.LSTM(32, 32, 2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, 8)

    def forward(self, x):
        return self.head(self.recurrent(self.attention(x, x, x, need_weights=False)[0])[0])


def both():
    torch.manual_seed(0)
    return Both().eval(), [torch.randn(4, 6, 32) for _ in range(12)]


def test_their_maps_become_smaller_and_are_saved():
    model, data = both()
    options = {"forms": ("pair", "pifa"), "cost": "bytes", "progress": False}
    small, stats = compress(model, data, max_ratio=0.45, **options)
    rows = {row.path: row for row in stats.layers}
    assert rows["attention"].form == "split" and stats.reached
    changed = {path for path, row in rows.items() if row.form in ("pair", "pifa")}
    assert {path.partition(".")[0] for path in changed} >= {"attention"}
    # What was chosen by its losses has them measured too.
    assert all(rows[path].measured is not None and rows[path].predicted is not None for path in changed)
    with torch.no_grad():
        torch.testing.assert_close(loaded(plain(small))(data[0]), small(data[0]))


def test_where_nothing_in_them_changes_they_are_what_they_were():
    model, data = both()
    small, stats = compress(model, data, layers="head", max_ratio=1.0, cost="bytes", progress=False)
    assert type(small.attention) is nn.MultiheadAttention and type(small.recurrent) is nn.LSTM
    small, stats = compress(model, data, max_ratio=1.0, forms=(), cost="bytes", progress=False)
    assert type(small.attention) is nn.MultiheadAttention and type(small.recurrent) is nn.LSTM
    rows = {row.path: row for row in stats.layers}
    assert rows["attention"].reason and rows["recurrent"].reason and rows["attention.out_proj"].reason
    with torch.no_grad():
        torch.testing.assert_close(small(data[0]), model(data[0]))


def test_a_pattern_of_the_layer_stands_for_all_in_it():
    model, data = both()
    _, stats = compress(
        model, data, layers="attention", max_ratio=0.6, forms=("pair",), cost="bytes", progress=False
    )
    changed = {row.path for row in stats.layers if row.form == "pair"}
    assert changed and all(path.startswith("attention.") for path in changed)
