"""Layers without memory: made on meta or moved there, printed, compiled, and brought back."""

import pytest
import torch
from nn_layers import LAYERS, points


@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("name", LAYERS)
def test_shapes_on_meta(name, learned):
    size = LAYERS[name]()(points(name, 0.5)).shape
    for made in (
        LAYERS[name](device="meta", learn_curvature=learned),
        LAYERS[name](learn_curvature=learned).to("meta"),
    ):
        x = torch.empty(5, 8, device="meta", requires_grad=True)
        y = made(x)
        assert y.is_meta and y.shape == size and y.dtype == torch.float32
        y.sum().backward()
        assert x.grad.shape == x.shape
        assert "=unknown" in repr(made)
        assert made.half()(x.half()).dtype == torch.half


@pytest.mark.parametrize("name", LAYERS)
def test_compiles_on_meta(name):
    torch._dynamo.reset()
    made = torch.compile(LAYERS[name](device="meta"), fullgraph=True, backend="eager")
    assert made(torch.empty(5, 8, device="meta")).is_meta


@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("name", LAYERS)
def test_reset_parameters_brings_a_layer_from_meta(name, learned):
    torch.manual_seed(0)
    expected = LAYERS[name](learn_curvature=learned)
    made = LAYERS[name](learn_curvature=learned, device="meta").to_empty(device="cpu")
    torch.manual_seed(0)
    made.reset_parameters()
    assert torch.equal(made(points(name, 0.5)), expected(points(name, 0.5)))


@pytest.mark.parametrize("name", LAYERS)
def test_a_state_brings_a_layer_from_meta(name):
    expected, made = LAYERS[name](), LAYERS[name](device="meta")
    made.load_state_dict(expected.state_dict(), assign=True)
    assert torch.equal(made(points(name, 0.5)), expected(points(name, 0.5)))
