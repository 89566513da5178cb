"""Exact merging of what is one linear map."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from stonefx.compress import compress, lossless
from stonefx.compress.data import Batch


def settled(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """In eval, with statistics of batch norms that are those of no layer at rest."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _ in range(3):
            model.train()(x + torch.randn_like(x))
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
                module.weight.uniform_(0.5, 2)
                module.bias.uniform_(-1, 1)
    return model.eval()


def merged(model: nn.Module, x: torch.Tensor, chosen=None) -> tuple[nn.Module, lossless.Lossless]:
    """The merged copy, after a comparison in float64."""
    small = copy.deepcopy(model)
    done = lossless.merge(small, Batch((x,), samples=len(x)), chosen)
    with torch.no_grad():
        y, reference = small.double()(x.double()), copy.deepcopy(model).double()(x.double())
    # Merged weights were rounded to float32 once.
    torch.testing.assert_close(y, reference, rtol=1e-5, atol=1e-5 * reference.abs().max().item())
    return small, done


def test_exact_merging_holds_a_floor_of_one():
    chain = nn.Sequential(nn.Linear(16, 32), nn.Linear(32, 8)).eval()
    _, stats = compress(chain, torch.randn(60, 16), min_accuracy=1.0, cost="bytes", progress=False)
    assert stats.reached and not stats.ranks
    assert stats.lossless_ratio < 0.2 and stats.accuracy_preserved == pytest.approx(1.0, abs=1e-6)


def test_the_chain_of_the_original_documents():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 256), nn.Linear(256, 128), nn.Linear(128, 64), nn.Linear(64, 32))
    for data in (None, torch.randn(60, 128)):
        small, stats = compress(model, data, min_accuracy=1.0, forms=(), progress=False)
        assert stats.lossless_ratio == 4128 / 76256
        assert sum(p.numel() for p in small.parameters()) == 4128
        x = torch.randn(5, 128)
        torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
        forms = {row.path: row.form for row in stats.layers}
        assert forms == {"0": "merged", "1": "merged", "2": "merged", "3": "dense"}
        assert stats.compression_ratio == pytest.approx(4128 / 76256)


LINEAR = {
    "dropout": ([nn.Linear(6, 20), nn.Dropout(), nn.Linear(20, 5)], 1),
    "identity": ([nn.Linear(6, 20), nn.Identity(), nn.Linear(20, 5, bias=False)], 1),
    "no bias": ([nn.Linear(6, 20, bias=False), nn.Linear(20, 5, bias=False)], 1),
    "a bottleneck is stored as two": ([nn.Linear(6, 1), nn.Linear(1, 5)], 2),
    "cut where least is stored": ([nn.Linear(6, 9), nn.Linear(9, 1), nn.Linear(1, 9), nn.Linear(9, 6)], 2),
    "an activation ends it": ([nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 5)], 2),
    "batch norm": ([nn.Linear(6, 20), nn.BatchNorm1d(20), nn.Linear(20, 5), nn.BatchNorm1d(5)], 1),
    "batch norm without weights": ([nn.Linear(6, 4), nn.BatchNorm1d(4, affine=False), nn.ReLU()], 1),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_layers_in_a_row(name):
    layers, left = LINEAR[name]
    torch.manual_seed(0)
    x = torch.randn(7, 6)
    model = settled(nn.Sequential(*layers), x)
    small, done = merged(model, x)
    assert sum(isinstance(m, nn.Linear) for m in small) == left
    assert not any(isinstance(m, nn.BatchNorm1d) for m in small)
    assert not done.notes
    before, after = (sum(p.numel() for p in m.parameters()) for m in (model, small))
    assert done.ratio == after / before
    assert after <= before + 4


CONVOLUTIONS = {
    "batch norm": ([nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()], 1),
    "batch norm of a convolution in groups": ([nn.Conv2d(3, 9, 3, groups=3), nn.BatchNorm2d(9)], 1),
    "1x1 after": ([nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 4, 1)], 1),
    "1x1 before, padded, without a bias": (
        [nn.Conv2d(3, 16, 1, bias=False), nn.Conv2d(16, 4, 3, padding=1)],
        1,
    ),
    "1x1 before, padded, with a bias": ([nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 3, padding=1)], 2),
    "padded by reflection, 1x1 after": (
        [nn.Conv2d(3, 16, 3, padding=1, padding_mode="reflect"), nn.Conv2d(16, 4, 1)],
        1,
    ),
    "1x1 before, not padded": ([nn.Conv2d(3, 16, 1), nn.Conv2d(16, 4, 3, stride=2)], 1),
    "a norm gives a bias": (
        [nn.Conv2d(3, 16, 1, bias=False), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3, padding=1)],
        2,
    ),
    "three": ([nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3), nn.Dropout2d(), nn.Conv2d(16, 4, 1)], 1),
    "two wide ones": ([nn.Conv2d(3, 16, 3), nn.Conv2d(16, 4, 3)], 2),
    "statistics of the batch": ([nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)], 1),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_in_a_row(name):
    layers, left = CONVOLUTIONS[name]
    torch.manual_seed(0)
    x = torch.randn(3, 3, 8, 8)
    small, done = merged(settled(nn.Sequential(*layers), x), x)
    assert sum(isinstance(m, nn.Conv2d) for m in small) == left
    assert not done.notes
    norms = [m for m in small if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == (name == "statistics of the batch")


@pytest.mark.parametrize("layer", [nn.Conv1d(2, 4, 3), nn.Conv3d(2, 4, 2)])
def test_norms_of_other_dimensions(layer):
    spatial = layer.weight.dim() - 2
    norm = nn.BatchNorm1d(4) if spatial == 1 else nn.BatchNorm3d(4)
    x = torch.randn(3, 2, *[5] * spatial)
    small, _ = merged(settled(nn.Sequential(layer, norm), x), x)
    assert isinstance(small[1], nn.Identity)


def test_a_norm_over_positions_is_not_folded():
    x = torch.randn(4, 6, 5)
    small, _ = merged(settled(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(6)), x), x)
    assert isinstance(small[1], nn.BatchNorm1d)


class Reshaped(nn.Module):
    """Layers with a reshape between them, written one way or another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.a, self.b = way, nn.Linear(6, 24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.a(x)
        if self.way == "written":
            y = y.reshape(-1, 24)
        elif self.way == "free":
            y = y.flatten(0, 1)
        elif self.way == "mixed":
            y = y.transpose(1, 2).reshape(y.shape)
        elif self.way == "returned":
            return self.b(y), y
        return self.b(y)


@pytest.mark.parametrize(("way", "goes"), [("free", True), ("written", False), ("mixed", False)])
def test_reshapes_that_keep_features(way, goes):
    x = torch.randn(2, 3, 6)
    small, done = merged(Reshaped(way).eval(), x)
    assert any(isinstance(m, nn.Identity) for m in small.modules()) == goes
    assert not done.notes


def test_a_value_that_is_also_returned_stays():
    small = Reshaped("returned").eval()
    assert lossless.merge(small, Batch((torch.randn(2, 3, 6),), samples=2)).into == {}


def test_layers_that_were_not_chosen_stay():
    model = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 9), nn.Linear(9, 6)).eval()
    small, done = merged(model, torch.randn(2, 6), ["0", "1"])
    assert done.into == {"0": "1"}
    assert small[2].weight.shape == (6, 9)


class Looking(nn.Module):
    """A forward that looks at the size of a layer that would be gone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 24), nn.Linear(24, 5)
        self.c, self.d = nn.Linear(5, 24), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(self.c(torch.relu(self.b(self.a(x)) + self.a.in_features)))


def test_what_breaks_is_undone_with_a_note():
    x = torch.randn(4, 6)
    _, done = merged(Looking().eval(), x)
    assert done.into == {"c": "d"}
    assert len(done.notes) == 1
    assert "b was undone: AttributeError" in done.notes[0]


def test_without_data_and_without_a_known_input():
    done = lossless.merge(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 3, 1)), None)
    assert done.ratio == 1
    assert "no example call" in done.notes[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_and_trainability_are_kept(dtype):
    model = nn.Sequential(nn.Linear(6, 20), nn.Linear(20, 5)).to(dtype).requires_grad_(False)
    lossless.merge(model, Batch((torch.randn(3, 6, dtype=dtype),), samples=3))
    assert isinstance(model[0], nn.Identity)
    assert model[1].weight.dtype == dtype
    assert not model[1].weight.requires_grad


def test_a_model_in_training_is_left_in_training_and_compared_in_eval():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 4)
    ).train()
    before = copy.deepcopy(model.state_dict())
    small, stats = compress(model, torch.randn(30, 6), min_accuracy=0.99, progress=False)
    assert stats.reached
    assert all(m.training for m in model.modules())
    assert not any(m.training for m in small.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
