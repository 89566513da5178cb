"""Views of convolutions and transposed convolutions."""

import copy
import random

import pytest
import torch
from battery import check_all, check_products, dense, spectrum_of, stored, views_of
from torch import nn

from stonefx.compress import compress
from stonefx.compress.convolution import PLAIN, TRANSPOSED, read
from stonefx.compress.data import Batch
from stonefx.compress.losses import sampled
from stonefx.compress.spectrum import decompose


def drawn(seed: int, transposed: bool) -> tuple[nn.Module, torch.Tensor]:
    """A layer with random geometry, and an input that fits."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    axes = draw.choice((1, 1, 2, 2, 2, 3))
    groups = draw.choice((1, 1, 1, 2, 3))
    given, made = groups * draw.choice((2, 3, 4)), groups * draw.choice((2, 3, 5))
    kernel = tuple(draw.choice((1, 2, 3)) for _ in range(axes))
    stride = tuple(draw.choice((1, 1, 2, 3)) for _ in range(axes))
    dilation = tuple(draw.choice((1, 1, 2)) for _ in range(axes))
    size = tuple(draw.randint(5, 8) for _ in range(axes))
    options = {"groups": groups, "dilation": dilation, "bias": draw.random() < 0.7}
    if transposed:
        padding = tuple(draw.randint(0, d * (k - 1)) for d, k in zip(dilation, kernel, strict=True))
        output_padding = tuple(draw.randrange(max(s, d)) for s, d in zip(stride, dilation, strict=True))
        options |= {"padding": padding, "output_padding": output_padding}
    else:
        options["padding_mode"] = draw.choice(("zeros", "zeros", "reflect", "replicate", "circular"))
        options["padding"] = draw.choice(("number", "same", "valid"))
        if options["padding"] == "same":
            stride = 1
        elif options["padding"] == "number":
            options["padding"] = tuple(draw.randint(0, 2) for _ in range(axes))
    kind = (TRANSPOSED if transposed else PLAIN)[axes - 1]
    layer = kind(given, made, kernel, stride=stride, **options)
    return layer, torch.randn(draw.choice((1, 2)), given, *size, dtype=torch.float64)


@pytest.mark.parametrize("seed", range(60))
def test_convolutions(seed: int) -> None:
    layer, x = drawn(seed, transposed=False)
    check_all(layer, x)


@pytest.mark.parametrize("seed", range(40))
def test_transposed_convolutions(seed: int) -> None:
    layer, x = drawn(1000 + seed, transposed=True)
    check_all(layer, x)


@pytest.mark.parametrize("groups", [1, 2])
def test_an_output_size_by_name(groups: int) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, stride=(2, 3), padding=1, groups=groups).double()
    x = torch.randn(2, 4, 5, 4, dtype=torch.float64)
    for size in ([10, 11], [9, 12]):
        expected = layer(x, size)
        for view in views_of(layer):
            pair = view.forms()["pair"].build(*spectrum_of(view).factors(view.full_rank))
            torch.testing.assert_close(pair(x, size), expected)
            torch.testing.assert_close(pair(x, [2, 6, *size]), expected)
            check_products(view, (x, size))


def test_one_image_without_a_batch() -> None:
    check_all(nn.Conv2d(4, 5, 3, 2, 1), torch.randn(4, 7, 6, dtype=torch.float64))
    check_all(nn.ConvTranspose1d(4, 5, 3, 2, 1), torch.randn(4, 7, dtype=torch.float64))


def test_names_of_cuts() -> None:
    names = {
        nn.Conv1d(8, 8, 3): ["channel", "input"],
        nn.Conv2d(8, 8, 3): ["channel", "input", "spatial"],
        nn.Conv2d(8, 8, (1, 3)): ["channel", "input"],
        nn.Conv2d(8, 8, 1, 2): ["linear"],
        nn.Conv3d(8, 8, 3): ["channel", "input", "spatial"],
        nn.ConvTranspose2d(8, 8, 2, 2): ["channel", "input", "spatial"],
    }
    for layer, expected in names.items():
        assert [view.name for view in views_of(layer)] == expected
    assert views_of(nn.Conv3d(8, 8, 3))[2].first == (1, 2)


def test_a_strided_convolution_of_one_tap_reads_only_what_it_uses() -> None:
    (view,) = views_of(nn.Conv2d(3, 4, 1, 2))
    assert view.inputs((torch.randn(2, 3, 7, 7),)).shape == (2, 16, 1, 3)
    # With a stride longer than the kernel some positions are never read, by no view.
    for view in views_of(nn.Conv1d(3, 4, 2, 3)):
        x = torch.zeros(1, 3, 11)
        x[:, :, 2::3] = 1
        assert view.inputs((x,)).abs().sum() == 0


def test_views_whose_covariances_would_take_minutes_are_left_out() -> None:
    with torch.device("meta"):
        layer = nn.Conv2d(1024, 1024, 3)
    assert [view.name for view in read("0", layer)] == ["spatial"]
    with torch.device("meta"):
        layer = nn.Conv2d(8192, 8192, 1)
    assert [view.name for view in read("0", layer)] == ["linear"]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_change_costs_the_same_in_every_view(groups: int) -> None:
    """Sampled losses are about the change of the layer, not about how it is written as a matrix."""
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, 2, 1, groups=groups)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), layer, nn.Flatten(), nn.Linear(54, 5)).double()
    change = copy.deepcopy(layer)
    nn.init.normal_(change.weight)
    batches = [Batch((torch.randn(3, 3, 7, 7, dtype=torch.float64),), samples=3) for _ in range(3)]
    views, changed = read("2", layer), read("2", change)
    assert isinstance(views, list) and isinstance(changed, list)
    changes = {v.name: (v, c.matrix()) for v, c in zip(views, changed, strict=True)}
    _, losses = sampled(model, {}, changes, batches, kind="directions", output=lambda y: y)
    assert len(losses) == 3 and losses["channel"] > 0
    for loss in losses.values():
        assert loss == pytest.approx(losses["channel"], rel=1e-6)


def test_tucker_loses_about_what_its_cuts_lose() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 10, 3, padding=1).double()
    with torch.no_grad():
        # Close to a kernel of Tucker ranks 3 and 4.
        core, a, b = torch.randn(4, 3, 3, 3), torch.randn(10, 4), torch.randn(8, 3)
        layer.weight.copy_(torch.einsum("pqhw,op,iq->oihw", core, a, b) + 0.01 * torch.randn(10, 8, 3, 3))
    views = {view.name: view for view in views_of(layer)}
    (tucker,) = views["channel"].joints(list(views.values()))
    spectra = {name: decompose(view.matrix(), None) for name, view in views.items()}
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    for outer, inner, close in ((4, 3, True), (3, 3, False), (4, 2, False)):
        module = tucker.build(spectra["channel"].projection(outer), spectra["input"].factors(inner))
        assert stored(module) == tucker.numbers(outer, inner) == 8 * inner + 9 * outer * inner + 10 * outer
        lost = 0.5 * (dense(module.weight) - layer.weight).square().sum().item()
        expected = (spectra["channel"].tails[outer] + spectra["input"].tails[inner]).item()
        assert 0.5 * expected <= lost <= expected + 1e-9
        assert ((module(x) - layer(x)).norm() / layer(x).norm() < 0.05) == close


def test_the_search_takes_tucker_where_it_is_smallest() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(24, 24, 3, padding=1)
    with torch.no_grad():
        core, a, b = torch.randn(4, 4, 3, 3), torch.randn(24, 4), torch.randn(24, 4)
        layer.weight.copy_(torch.einsum("pqhw,op,iq->oihw", core, a, b))
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24 * 25, 3))
    data = [torch.randn(4, 24, 5, 5) for _ in range(6)]
    small, stats = compress(model, data, layers="0", max_ratio=0.08, cost="bytes", progress=False)
    (row,) = [r for r in stats.layers if r.path == "0"]
    assert (row.form, row.rank) == ("tucker 4", 4)
    assert row.bytes_after == 4 * (24 * 4 + 9 * 16 + 4 * 24 + 24)
    torch.testing.assert_close(small(data[0]), model(data[0]), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("settings", [{}, {"stride": 2}, {"padding": 1}, {"bias": False}])
@pytest.mark.parametrize(("given", "made"), [(8, 6), (5, 9)])
def test_one_tap_as_pivot_channels_is_the_pair_of_the_same_rank(axes, settings, given, made):
    torch.manual_seed(0)
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](given, made, 1, **settings).double()
    view = read("layer", layer)[0]
    x = torch.randn(2, given, *[4] * axes, dtype=torch.float64)
    for rank in range(1, view.full_rank):
        factors = decompose(view.matrix(), None).factors(rank)
        pair, pifa = (view.forms()[name].build(*factors) for name in ("pair", "pifa"))
        for module in (pifa, pifa.plain()):
            torch.testing.assert_close(module(x), pair(x))
        torch.testing.assert_close(pifa(x[0]), pair(x)[0])
        torch.testing.assert_close(pifa.weight + 0, pair.weight + 0)
        numbers = sum(p.numel() for name, p in pifa.named_parameters() if name != "bias")
        assert numbers == view.forms()["pifa"].numbers(rank) <= view.forms()["pair"].numbers(rank)


def test_other_convolutions_are_not_stored_as_pivot_channels():
    for layer in (nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 8, 1)):
        assert all("pifa" not in view.forms() for view in read("layer", layer))
