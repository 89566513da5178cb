"""int8 of dense layers and of pairs: what is stored, what it costs in accuracy, and where it is not offered."""

from itertools import pairwise

import pytest
import torch
from torch import nn

import stonefx
from stonefx.compress import int8
from stonefx.compress.linear import LinearView
from stonefx.compress.options import Candidate, Option
from stonefx.compress.stored import stored_bytes

pytest.importorskip("torchao")


def chain(*sizes, seed=0):
    torch.manual_seed(seed)
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def data(features, count=12, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(16, features, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(
    ("inputs", "outputs", "bias"), [(64, 48, True), (8, 8, False), (100, 30, True), (384, 1536, True)]
)
@pytest.mark.parametrize("kind", int8.KINDS)
def test_bytes_and_rounding(inputs, outputs, bias, kind):
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs, bias=bias)
    small = int8.quantised(layer, kind)
    assert stored_bytes(small, recurse=True) == int8.linear_bytes(layer)
    scales = layer.weight.detach().abs().amax(1, keepdim=True) / 127
    assert ((small.weight.dequantize() - layer.weight.detach()).abs() <= 0.51 * scales + 1e-7).all()
    assert not any(p.requires_grad for p in small.parameters()) and layer.weight.requires_grad


def test_a_quarter_of_the_bytes_of_an_encoder():
    layers = [nn.Linear(384, 384)] * 4 + [nn.Linear(384, 1536), nn.Linear(1536, 384)]
    ratio = sum(map(int8.linear_bytes, layers)) / sum(stored_bytes(layer) for layer in layers)
    assert 0.25 < ratio < 0.2555


@pytest.mark.parametrize("kind", int8.KINDS)
@pytest.mark.parametrize("rank", [None, 12])
def test_the_change_that_is_weighed_is_the_one_that_is_made(kind, rank):
    torch.manual_seed(0)
    layer = nn.Linear(64, 48)
    module = layer if rank is None else nn.Sequential(nn.Linear(64, rank, bias=False), nn.Linear(rank, 48))
    view, matrix = int8._change(LinearView("0", layer, 1, 48, 64), module, kind)
    x = torch.randn(20, 64)
    with torch.no_grad():
        difference = module(x) - int8.quantised(module, kind)(x)
        predicted = (view.inputs((x,)).double() @ matrix.mT).squeeze().float()
    # An input at a tie may be rounded the other way than by torchao, which changes its row.
    wrong = (predicted - difference).norm(dim=1) > 1e-3 * difference.norm(dim=1)
    assert wrong.float().mean() <= (0 if kind == int8.KINDS[0] else 0.25)


def test_losses_say_how_much_is_lost():
    model = chain(64, 96, 64)
    x = data(64)
    small, stats = stonefx.compress(
        model, x, max_ratio=0.28, forms=["pair", "int8"], cost="bytes", progress=False
    )
    assert {row.form for row in stats.layers} == {"dense+int8"}
    y, z = model(torch.cat(x)), small(torch.cat(x))
    lost = 1 - nn.functional.cosine_similarity(y, z, dim=1).mean().item()
    predicted = sum(row.predicted for row in stats.layers)
    # For a random direction v the loss is half E[(v . e)^2] = |e|^2 / 2, and so is what the cosine loses.
    assert predicted / 3 < lost < 3 * predicted


def test_bytes_of_the_report_are_those_of_the_model():
    small, stats = stonefx.compress(
        chain(64, 96, 64), data(64), max_ratio=0.15, forms=["pair", "int8"], cost="bytes", progress=False
    )
    assert any(row.form == "pair+int8" for row in stats.layers)
    assert stats.compression_ratio <= 0.15 and stats.reached
    assert sum(row.bytes_after for row in stats.layers) == stored_bytes(small, recurse=True)


def test_never_of_pifa_and_never_of_few_columns():
    single = Candidate(
        ("0",),
        [
            Option("dense", None, 0.0, 4 * 64 * 65),
            Option("pair", 4, 0.5, 2048, None, dict),
            Option("pair", 16, 0.1, 9000, None, dict),
            Option("pifa", 16, 0.1, 8000, None, dict),
        ],
    )
    int8.add([single], [], [LinearView("0", nn.Linear(64, 64), 1, 64, 64)], dynamic=True)
    added = [(o.form, o.size) for o in single.options[4:]]
    assert added == [
        ("dense+int8", None),
        ("dense+int8 dynamic", None),
        ("pair+int8", 16),
        ("pair+int8 dynamic", 16),
    ]


def test_of_blocks_all_of_whose_matrices_are_linear_layers():
    views = [
        LinearView("0", nn.Linear(64, 96), 1, 96, 64),
        LinearView("2", nn.Linear(96, 64), 1, 64, 96),
    ]

    def option(size, middle=nn.Linear):
        parts = {"0": nn.Linear(64, size), "2": middle(size, 64)}
        return Option("width", size, 1.0, 4 * (64 * size * 2 + size + 64), None, lambda: parts)

    dense = Option("dense", None, 0.0, 4 * (64 * 96 * 2 + 96 + 64))
    block = Candidate(("0", "2"), [dense, *map(option, (16, 48, 80))])
    int8.add([], [block], views, dynamic=False)
    for under in block.options[4:]:
        assert under.form == "width+int8"
        built = under.build()
        assert under.bytes == sum(stored_bytes(module, recurse=True) for module in built.values())
    assert len(block.options) == 7
    other = Candidate(("0", "2"), [dense, option(16, lambda a, b: nn.Conv1d(a, b, 1)), option(48)])
    int8.add([], [other], views, dynamic=False)
    assert len(other.options) == 3


def test_without_torchao_it_is_left_out_and_the_report_says_so(monkeypatch):
    def absent():
        raise ImportError("No module named 'torchao'")

    monkeypatch.setattr(int8, "_torchao", absent)
    _, stats = stonefx.compress(
        chain(64, 96, 64), data(64), max_ratio=0.2, forms=["pair", "int8"], cost="bytes", progress=False
    )
    assert not any("int8" in row.form for row in stats.layers)
    assert any('pip install "stonefx[int8]"' in note for note in stats.notes)
    _, quiet = stonefx.compress(
        chain(64, 96, 64), data(64), max_ratio=0.2, forms=["pair"], cost="bytes", progress=False
    )
    assert not any("int8" in note for note in quiet.notes)


def test_in_half_precision():
    model = chain(64, 96, 64).bfloat16()
    small, stats = stonefx.compress(
        model, [x.bfloat16() for x in data(64)], max_ratio=0.6, forms=["int8"], cost="bytes", progress=False
    )
    assert small(torch.ones(2, 64, dtype=torch.bfloat16)).dtype is torch.bfloat16
    assert stats.accuracy_preserved > 0.99 and stats.compression_ratio < 0.6
