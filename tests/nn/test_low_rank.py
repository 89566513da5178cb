"""Linear layers of low rank: the map of their factors, plain copies, saving, printing, training, and both doors."""

import copy
import io
import pickle
import re
import subprocess
import sys

import pytest
import torch

import stonefx
from stonefx import nn as snn

LAYERS = {"pifa": snn.PifaLinear, "pair": snn.LowRankLinear}
# out, in, rank: tall, wide, full, one, and none
SIZES = [(9, 5, 3), (5, 9, 3), (40, 30, 17), (4, 4, 4), (6, 3, 1), (3, 6, 3), (4, 3, 0)]


def factors(out, width, rank, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    made = [
        torch.randn(s, generator=generator, dtype=torch.float64) for s in ((out, rank), (rank, width), (out,))
    ]
    return [t.to(dtype) for t in made]


def dense(left, right, bias):
    linear = torch.nn.Linear(right.shape[1], len(left), dtype=left.dtype)
    with torch.no_grad():
        linear.weight.copy_(left @ right)
        linear.bias.copy_(bias)
    return linear


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_of_factors_are_the_product(name, sizes, dtype):
    left, right, bias = factors(*sizes, dtype=dtype)
    layer = LAYERS[name].from_factors(left, right, bias)
    assert (layer.out_features, layer.in_features, layer.rank) == sizes
    x = torch.randn(7, sizes[1], dtype=dtype, generator=torch.Generator().manual_seed(9))
    expected = dense(left.double(), right.double(), bias.double())(x.double())
    without = LAYERS[name].from_factors(left, right)
    assert without.bias is None
    for y in (layer(x), layer.plain()(x), without(x) + bias, without.plain()(x) + bias):
        assert y.shape == expected.shape and y.dtype == dtype
        assert (y.double() - expected).abs().max() <= 256 * torch.finfo(dtype).eps * expected.abs().max()


@pytest.mark.parametrize("name", LAYERS)
def test_new_layers_give_the_variance_of_a_linear(name):
    torch.manual_seed(0)
    x = torch.randn(400, 300)
    y, linear = LAYERS[name](300, 200, 50)(x), torch.nn.Linear(300, 200)(x)
    assert 0.7 < (y.var() / linear.var()).item() < 1.4


def conditioned(kind, out, rank):
    left, right, _ = factors(out, 50, rank, seed=3)
    if kind == "graded":
        left = left * torch.logspace(0, -12, rank, dtype=torch.float64)
    elif kind == "unbalanced":
        scale = torch.logspace(-9, 9, rank, dtype=torch.float64)
        left, right = left * scale, right / scale[:, None]
    elif kind == "kahan":
        # elimination alone lets coefficients grow as powers of 2
        left[:rank] = torch.eye(rank, dtype=torch.float64) - torch.ones(rank, rank).double().tril(-1)
        left[rank:] = 0.9 * left[rank:] / left[rank:].abs().max()
    elif kind == "repeated":
        left[out // 2 :] = left[: out - out // 2]
    return left, right


@pytest.mark.parametrize("kind", ["random", "graded", "unbalanced", "kahan", "repeated"])
def test_coefficients_are_at_most_two(kind):
    for out, rank in ((60, 20), (200, 45)):
        left, right = conditioned(kind, out, rank)
        layer = snn.PifaLinear.from_factors(left, right)
        assert layer.rank == rank
        assert layer.interpolation.abs().max() <= 2 * (1 + 1e-9)
        product, x = left @ right, torch.eye(50, dtype=torch.float64)
        assert (layer(x).t() - product).abs().max() <= 1e-11 * product.abs().max()
        again = snn.PifaLinear.from_factors(left, right)
        assert all(
            torch.equal(a, b)
            for a, b in zip(layer.state_dict().values(), again.state_dict().values(), strict=True)
        )


def test_pivots_and_others_keep_their_order():
    layer = snn.PifaLinear.from_factors(*factors(40, 30, 17))
    for part in (layer.index[layer.index < 17], layer.index[layer.index >= 17]):
        assert (part.diff() > 0).all()


def test_columns_that_depend_on_others_cost_nothing():
    left, right, bias = factors(20, 15, 6)
    layer = snn.PifaLinear.from_factors(
        torch.cat([left, left @ torch.ones(6, 3).double()], 1), torch.cat([right] * 2)[:9], bias
    )
    assert layer.rank == 6
    zero = snn.PifaLinear.from_factors(torch.zeros(5, 2), torch.ones(2, 4), torch.ones(5))
    assert zero.rank == 0 and torch.equal(zero(torch.randn(3, 4)), torch.ones(3, 5))


def test_factors_are_balanced():
    left, right, _ = factors(20, 15, 6)
    scale = torch.logspace(-6, 6, 6, dtype=torch.float64)
    layer = snn.LowRankLinear.from_factors(left * scale, right / scale[:, None])
    torch.testing.assert_close(layer.a.norm(dim=1), layer.b.norm(dim=0))
    zero = snn.LowRankLinear.from_factors(torch.zeros(5, 2), torch.ones(2, 4))
    assert torch.equal(zero(torch.ones(4)), torch.zeros(5))


def test_pifa_holds_fewer_numbers_than_the_pair_and_the_dense_layer():
    for rank in range(1, 9):
        pifa, pair = (
            sum(p.numel() for p in made(12, 8, rank, bias=False).parameters()) for made in LAYERS.values()
        )
        assert pifa == rank * (12 + 8 - rank) <= min(pair, 12 * 8)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_printed_copied_saved_and_moved(name):
    layer = LAYERS[name].from_factors(*factors(9, 5, 3, dtype=torch.float32))
    assert repr(layer) == f"{type(layer).__name__}(in_features=5, out_features=9, rank=3, bias=True)"
    x = torch.randn(4, 5)
    other = LAYERS[name](5, 9, 3)
    other.load_state_dict(layer.state_dict())
    for made in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), other):
        assert torch.equal(made(x), layer(x))
    meta = LAYERS[name](5, 9, 3, device="meta")
    assert meta(x.to("meta")).shape == (4, 9)
    assert meta.to_empty(device="cpu").reset_parameters() is None and meta(x).isfinite().all()
    half = copy.deepcopy(layer).to(torch.bfloat16)
    torch.testing.assert_close(half(x.bfloat16()).float(), layer(x), rtol=0.05, atol=0.1)


@pytest.mark.parametrize("name", LAYERS)
def test_plain_layers_load_without_stonefx(name, tmp_path):
    layer = LAYERS[name].from_factors(*factors(9, 5, 3, dtype=torch.float32))
    plain, x = layer.plain(), torch.randn(4, 5)
    torch.testing.assert_close(plain(x), layer(x))
    torch.save((plain, x, plain(x).detach()), tmp_path / "plain.pt")
    program = (
        "import sys; sys.modules['stonefx'] = None\n"
        "import torch\n"
        f"plain, x, y = torch.load({str(tmp_path / 'plain.pt')!r}, weights_only=False)\n"
        "torch.testing.assert_close(plain(x), y)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        next(layer.parameters()).zero_()
    torch.testing.assert_close(
        plain(x), torch.load(io.BytesIO((tmp_path / "plain.pt").read_bytes()), weights_only=False)[2]
    )


@pytest.mark.parametrize("name", LAYERS)
def test_training_follows_the_plain_layer(name):
    layer = LAYERS[name].from_factors(*factors(9, 5, 3))
    plain, x = layer.plain(), torch.randn(20, 5, dtype=torch.float64)
    for made in (layer, plain):
        optimizer = torch.optim.Adam(made.parameters(), 1e-2)
        for _ in range(5):
            optimizer.zero_grad()
            made(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(layer(x), plain(x))


def test_what_does_not_fit():
    with pytest.raises(
        ValueError,
        match=r"PifaLinear: rank must be at most in_features and out_features, got rank 4 for 3 to 8",
    ):
        snn.PifaLinear(3, 8, 4)
    with pytest.raises(TypeError, match=r"LowRankLinear: rank must be an integer, got 2\.5"):
        snn.LowRankLinear(3, 8, 2.5)
    message = (
        "PifaLinear: expected factors [out, rank] and [rank, in] of a weight and bias [out], got [4, 2], [3, 5] and "
        "none"
    )
    with pytest.raises(RuntimeError, match=re.escape(message)):
        snn.PifaLinear.from_factors(torch.zeros(4, 2), torch.zeros(3, 5))
    with pytest.raises(RuntimeError, match="LowRankLinear: right must be finite, got 1 entries that are not"):
        snn.LowRankLinear.from_factors(torch.ones(4, 1), torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(
        RuntimeError, match=r"stone::pifa_linear: expected x \[\*batch, in\].*got \[2, 4\], \[2, 3\]"
    ):
        snn.PifaLinear(3, 8, 2)(torch.zeros(2, 4))


def model(name):
    torch.manual_seed(0)
    made = [
        LAYERS[name].from_factors(*factors(64, 48, 20, dtype=torch.float32)),
        torch.nn.ReLU(),
        torch.nn.Linear(64, 8),
    ]
    return torch.nn.Sequential(*made)


@pytest.mark.parametrize("grad", [False, True], ids=["inference", "training"])
def test_both_doors_keep_the_operator(grad):
    torch._dynamo.reset()
    original = model("pifa")
    x = torch.randn(32, 48)
    expected = original(x)
    with torch.set_grad_enabled(grad):
        optimized = stonefx.optimize(copy.deepcopy(original), x)
        compiled = torch.compile(copy.deepcopy(original), backend="stone")
        for made in (optimized, compiled):
            y = made(x)
            torch.testing.assert_close(y, expected)
            if grad:
                y.square().sum().backward()
    assert "stone.pifa_linear" in stonefx.last_report().after
    if grad:
        expected.square().sum().backward()
        for made in (optimized, compiled):
            for one, other in zip(made.parameters(), original.parameters(), strict=True):
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        compiled._orig_mod[0].pivot.mul_(2)
        original[0].pivot.mul_(2)
        torch.testing.assert_close(compiled(x), original(x))


def test_an_optimized_layer_follows_autocast():
    original, x = model("pifa"), torch.randn(32, 48)
    with torch.no_grad():
        optimized = stonefx.optimize(copy.deepcopy(original), x)
        with torch.autocast("cpu", torch.bfloat16):
            got, expected = optimized(x), original(x)
    assert got.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected)
