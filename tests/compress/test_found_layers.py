"""Which layers are found, and the reason why each other matrix is not."""

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from stonefx.compress import compress, layers


class Outer(nn.Module):
    """A model that holds one layer under test."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return y[0] if isinstance(y, tuple) else y


class Gain(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 2


class Named(nn.Linear):
    """A subclass that computes the same."""

    note = "kept"


class StandardisedConvolution(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Scaled(nn.Embedding):
    def forward(self, x):
        return super().forward(x) * 2


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_up = nn.Parameter(torch.randn(4, 8, 6))
        self.scale = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return torch.einsum("bi,eij->bj", x * self.scale, self.gate_up)


def patched() -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.forward = lambda x: x * 2
    return layer


def hooked(which: str) -> nn.Module:
    layer = nn.Linear(8, 8)
    getattr(layer, which)(lambda *args: None)
    return layer


def subclassed() -> nn.Module:
    class Tagged(torch.Tensor):
        pass

    layer = nn.Linear(8, 8)
    layer.weight = nn.Parameter(torch.randn(8, 8).as_subclass(Tagged))
    return layer


def plain_weight() -> nn.Module:
    layer = nn.Linear(8, 8)
    weight = layer.weight.detach()
    del layer.weight
    layer.weight = weight
    return layer


def quantised() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 8))
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})[0]


def integers() -> nn.Module:
    layer = nn.Linear(8, 8)
    layer.weight = nn.Parameter(torch.ones(8, 8, dtype=torch.int8), requires_grad=False)
    return layer


REFUSED = {
    "own forward": (lambda: Gain(8, 8), "layer", "Gain has a forward of its own"),
    "own convolution": (
        lambda: StandardisedConvolution(4, 4, 3),
        "layer",
        "StandardisedConvolution has a forward of",
    ),
    "own embedding": (lambda: Scaled(8, 8), "layer", "Scaled has a forward of its own"),
    "depthwise": (lambda: nn.Conv1d(8, 8, 3, groups=8), "layer", "rank one already"),
    "max_norm": (lambda: nn.Embedding(9, 8, max_norm=1.0), "layer", "max_norm=1"),
    "bag": (lambda: nn.EmbeddingBag(9, 8), "layer", "EmbeddingBag"),
    "bilinear": (lambda: nn.Bilinear(4, 5, 6), "layer.weight", "two inputs"),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2),
        "layer.in_proj_weight",
        "computes with all its matrices",
    ),
    "attention out": (
        lambda: nn.MultiheadAttention(8, 2),
        "layer.out_proj",
        "computes with all its matrices",
    ),
    "weight_norm": (
        lambda: parametrizations.weight_norm(nn.Linear(8, 8)),
        "layer",
        "remove_parametrizations",
    ),
    "spectral_norm": (
        lambda: parametrizations.spectral_norm(nn.Conv2d(8, 8, 3)),
        "layer",
        "remove_parametrizations",
    ),
    "older spectral_norm": (lambda: nn.utils.spectral_norm(nn.Linear(8, 8)), "layer", "by a hook"),
    "pruned": (lambda: prune.random_unstructured(nn.Linear(8, 8), "weight", 0.5), "layer", "by a hook"),
    "patched": (patched, "layer", "its forward was replaced on this very layer"),
    "forward hook": (lambda: hooked("register_forward_hook"), "layer", "it has forward hooks"),
    "pre-hook": (lambda: hooked("register_forward_pre_hook"), "layer", "it has forward pre-hooks"),
    "backward hook": (lambda: hooked("register_full_backward_hook"), "layer", "it has backward hooks"),
    "subclass": (subclassed, "layer", r"its weight is a .*Tagged"),
    "no parameter": (plain_weight, "layer", r"no parameter of its own but a torch\.Tensor"),
    "complex": (lambda: nn.Linear(8, 8, dtype=torch.complex64), "layer", r"type torch\.complex64"),
    "integers": (integers, "layer", r"type torch\.int8"),
    "quantised": (quantised, "layer", "quantised already"),
    "meta": (lambda: nn.Linear(8, 8, device="meta"), "layer", "meta device"),
    "one row": (lambda: nn.Linear(8, 1), "layer", "no rank makes it smaller: rank 1 stores 8 numbers"),
    "experts": (Experts, "layer.gate_up", "a batch of 4 matrices"),
    "norm of two axes": (
        lambda: nn.LayerNorm((4, 8)),
        "layer.weight",
        "weight of a LayerNorm, which is not a linear",
    ),
    "hidden": (lambda: nn.GRU(8, 8), "layer.weight_hh_l0", "multiplied with the state once a step"),
    "stacked": (lambda: nn.LSTM(8, 8, 2), "layer.weight_ih_l1", "stacked on another one"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_a_reason(case: str) -> None:
    build, path, reason = REFUSED[case]
    found = layers.find(Outer(build()))
    assert path not in found.views
    assert re.search(reason, found.refused[path]), found.refused


@pytest.mark.parametrize("case", REFUSED)
def test_every_matrix_is_listed(case: str) -> None:
    model = Outer(REFUSED[case][0]())
    found = layers.find(model)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "parametrizations" not in name:
            owner = name.rpartition(".")[0]
            assert {name, owner} & {*found.views, *found.refused}, name
    # Vectors are not.
    assert "layer.scale" not in found.refused
    assert all(found.refused.values())


def test_subclasses_that_compute_the_same_are_taken() -> None:
    assert list(layers.find(Outer(Named(8, 8))).views) == ["layer"]


def test_a_lazy_layer_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"layer has weights without a shape yet; call the model once"):
        layers.find(Outer(nn.LazyLinear(8)))
    model = Outer(nn.LazyLinear(8))
    model(torch.randn(2, 8))
    assert list(layers.find(model).views) == ["layer"]


def test_tied_weights_stay_tied_and_name_each_other() -> None:
    model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 20, bias=False))
    model[2].weight = model[0].weight
    found = layers.find(model)
    assert "tied to that of 2" in found.refused["0"] and "tied to that of 0" in found.refused["2"]
    assert list(found.views) == ["1"]
    data = [torch.randint(20, (4, 3)) for _ in range(5)]
    small, stats = compress(model, data, max_ratio=0.7, cost="bytes", progress=False)
    assert small[0].weight is small[2].weight
    assert {row.path for row in stats.layers} == {"0", "1", "2"}


def test_a_module_used_at_several_paths_is_replaced_at_all() -> None:
    shared = nn.Linear(16, 16)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(nn.Tanh(), shared)})

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x):
            return self.parts["b"](self.parts["a"](x))

    whole, forms = Twice(), ("pair", "pifa")
    data = [torch.randn(4, 16) for _ in range(5)]
    small, stats = compress(whole, data, max_ratio=0.6, forms=forms, cost="bytes", progress=False)
    assert small.parts["a"] is small.parts["b"][1]
    assert type(small.parts["a"]) is not nn.Linear and type(shared) is nn.Linear
    assert [row.path for row in stats.layers] == ["parts.a"]


def test_only_the_layers_chosen() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Bilinear(4, 4, 4), nn.Conv1d(8, 8, 3))
    found = layers.find(model, "2")
    assert list(found.views) == ["2"]
    assert found.refused == {"0": layers.UNWANTED, "1.weight": layers.UNWANTED}


def test_rows_of_parameters_tell_shape_and_bytes() -> None:
    _, stats = compress(
        Outer(Experts()), [torch.randn(4, 8) for _ in range(4)], max_ratio=0.7, progress=False
    )
    (row,) = stats.layers
    assert (row.path, row.shape, row.bytes_before) == ("layer.gate_up", "4x8x6", 4 * 4 * 8 * 6)
