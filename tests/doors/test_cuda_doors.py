"""Both doors, compression, saving and the geometry's layers on a card; skipped where there is none."""

import copy

import pytest
import torch
from torch import nn

import stonefx
from stonefx import nn as stone

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICE = "cuda"


class Ball(nn.Module):
    def __init__(self):
        super().__init__()
        self.point = nn.Parameter(torch.full((16,), 0.05))

    def forward(self, v):
        n = v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
        x = torch.tanh(n) * v / n
        inner, x2, y2 = (
            (x * self.point).sum(-1, keepdim=True),
            x.pow(2).sum(-1, keepdim=True),
            self.point.pow(2).sum(),
        )
        return ((1 + 2 * inner + y2) * x + (1 - x2) * self.point) / (1 + 2 * inner + x2 * y2).clamp_min(1e-15)


def made():
    torch.manual_seed(0)
    return {
        "chain": (nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 32), nn.Linear(32, 8)), (5, 16)),
        "convolutions": (
            nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1), nn.ReLU()),
            (2, 3, 9, 9),
        ),
        "attention": (nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), (2, 5, 16)),
        "ball": (Ball(), (6, 16)),
        "layer of the ball": (stone.PoincareLinear(16, 8), (6, 16)),
    }


CASES = tuple(made())


def case(name):
    model, shape = made()[name]
    return model.eval().to(DEVICE), 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(
        DEVICE
    )


def close(got, exact, eps):
    assert got.device.type == torch.device(DEVICE).type
    assert (got.double() - exact).abs().max() <= 256 * eps * exact.abs().max()


@pytest.mark.parametrize("inner", ["eager", "inductor"])
@pytest.mark.parametrize("door", ["optimize", "compile"])
@pytest.mark.parametrize("name", CASES)
def test_doors_equal_float64(name, door, inner):
    torch._dynamo.reset()
    model, x = case(name)
    exact = copy.deepcopy(model).double()(x.double())
    with torch.no_grad():
        if door == "optimize":
            fast = stonefx.optimize(model, (x,), inner=inner)
        else:
            fast = torch.compile(model, backend="stone", options={"inner": inner})
        close(fast(x), exact, torch.finfo(torch.float32).eps)


@pytest.mark.parametrize("name", CASES)
def test_training_equals_float64(name):
    torch._dynamo.reset()
    model, x = case(name)
    wide = copy.deepcopy(model).double()
    exact = torch.autograd.grad(wide(x.double()).square().sum(), list(wide.parameters()))
    compiled = torch.compile(model, backend="stone", options={"inner": "aot_eager"})
    got = torch.autograd.grad(compiled(x).square().sum(), list(model.parameters()))
    largest = max(each.abs().max() for each in exact)
    for own, true in zip(got, exact, strict=True):
        assert (own.double() - true).abs().max() <= 1024 * torch.finfo(torch.float32).eps * largest


@pytest.mark.parametrize("name", CASES)
def test_a_cuda_graph_holds_what_was_optimized(name):
    model, x = case(name)
    with torch.no_grad():
        fast = stonefx.optimize(model, (x,))
        expected = fast(x)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            fast(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = fast(x)
        captured.fill_(torch.nan)
        graph.replay()
        torch.testing.assert_close(captured, expected)


def test_weights_that_change_are_seen():
    model, x = case("chain")
    compiled = torch.compile(model, backend="stone", options={"inner": "eager"})
    with torch.no_grad():
        compiled(x)
        model[0].weight.mul_(2)
        close(compiled(x), copy.deepcopy(model).double()(x.double()), torch.finfo(torch.float32).eps)


def test_saved_on_a_card_and_loaded_there(tmp_path):
    model, x = case("chain")
    with torch.no_grad():
        fast = stonefx.optimize(model, (x,))
        stonefx.save(fast, tmp_path / "chain.stone")
        loaded = stonefx.load(tmp_path / "chain.stone").to(DEVICE)
        torch.testing.assert_close(loaded(x), fast(x))


def test_compression_on_a_card():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)).eval().to(DEVICE)
    data = [torch.randn(64, 32, device=DEVICE) for _ in range(8)]
    small, _ = stonefx.compress(model, data, min_accuracy=0.9)
    assert small(data[0]).device.type == torch.device(DEVICE).type
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
