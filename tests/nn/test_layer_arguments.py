"""Points and sizes that do not fit: what the messages say."""

import re

import numpy
import pytest
import torch
from nn_layers import LAYERS, points

from stonefx import nn as snn

NAMES = {
    "butterfly": "HyperButterflyLayer",
    "klein": "KleinLayer",
    "poincare": "PoincareLinear",
    "mlr": "PoincareMLR",
    "lorentz": "LorentzLinear",
    "lorentz, rescaled": "LorentzLinear",
}
FLOAT32 = "convert the points with x.to(torch.float32)"
COORDINATES = "the last dimension holds the 8 coordinates of a point"
WRONG = {
    "width": (torch.zeros(2, 5), "[2, 5] of dtype float32 on cpu", COORDINATES),
    "0-dim": (torch.zeros(()), "[] of dtype float32 on cpu", COORDINATES),
    "int": (torch.zeros(2, 8, dtype=torch.int64), "[2, 8] of dtype int64 on cpu", FLOAT32),
    "bool": (torch.zeros(2, 8, dtype=torch.bool), "[2, 8] of dtype bool on cpu", FLOAT32),
    "complex": (torch.zeros(2, 8, dtype=torch.complex64), "[2, 8] of dtype complex64 on cpu", FLOAT32),
    "float64": (
        torch.zeros(2, 8, dtype=torch.float64),
        "[2, 8] of dtype float64 on cpu",
        f"{FLOAT32} or the layer with layer.to(torch.float64)",
    ),
    "device": (
        torch.zeros(2, 8, device="meta"),
        "[2, 8] of dtype float32 on meta",
        "move the points with x.to('cpu')",
    ),
}


def expect(name, got, remedy):
    return re.escape(
        f"{NAMES[name]}: expected points [*batch, 8] of dtype float32 on cpu, got {got}; {remedy}"
    )


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("name", LAYERS)
def test_points_that_do_not_fit(name, case):
    x, got, remedy = WRONG[case]
    with pytest.raises(RuntimeError, match=expect(name, got, remedy)):
        LAYERS[name]()(x)


@pytest.mark.parametrize("name", LAYERS)
def test_points_that_are_no_tensor(name):
    with pytest.raises(
        TypeError, match=rf"{NAMES[name]}: expected a tensor of points \[\*batch, 8\], got list; use"
    ):
        LAYERS[name]()([0.0] * 8)


@pytest.mark.parametrize("case", ["int", "bool", "complex", "width"])
def test_points_that_do_not_fit_under_autocast(case):
    x, got, remedy = WRONG[case]
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(RuntimeError, match=expect("poincare", got, remedy)),
    ):
        LAYERS["poincare"]()(x)


def test_points_that_do_not_fit_a_compiled_layer():
    torch._dynamo.reset()
    x, got, remedy = WRONG["width"]
    with pytest.raises(RuntimeError, match=expect("poincare", got, remedy)):
        torch.compile(LAYERS["poincare"](), backend="eager")(x)


@pytest.mark.parametrize("name", LAYERS)
def test_one_export_for_every_batch(name):
    made, batch = LAYERS[name](), torch.export.Dim("batch", min=2)
    exported = torch.export.export(made, (points(name, 0.5),), dynamic_shapes=({0: batch},)).module()
    x = points(name, 0.5, rows=7)
    torch.testing.assert_close(exported(x), made(x))


@pytest.mark.parametrize("name", LAYERS)
def test_batches_of_any_shape(name):
    made, x = LAYERS[name](), points(name, 0.5)
    torch.testing.assert_close(made(x[0]), made(x)[0])
    torch.testing.assert_close(torch.vmap(made)(x), made(x))
    assert made(x[:0]).shape == (0, *made(x).shape[1:])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: snn.HyperButterflyLayer(8.0, 3),
            "HyperButterflyLayer: dim must be an integer, got 8.0 (float)",
        ),
        (
            lambda: snn.HyperButterflyLayer(8, 2.0),
            "HyperButterflyLayer: num_layers must be an integer, got 2.0 (float)",
        ),
        (lambda: snn.PoincareLinear("8", 4), "PoincareLinear: in_features must be an integer, got '8' (str)"),
        (lambda: snn.KleinLayer(8, 4.5), "KleinLayer: out_features must be an integer, got 4.5 (float)"),
        (
            lambda: snn.PoincareMLR(8, None),
            "PoincareMLR: num_classes must be an integer, got None (NoneType)",
        ),
        (
            lambda: snn.LorentzLinear(True, 4),
            "LorentzLinear: in_features must be an integer, got True (bool)",
        ),
    ],
)
def test_sizes_that_are_no_integers(make, text):
    with pytest.raises(TypeError, match=re.escape(text + "; convert it with int()")):
        make()


def test_sizes_that_are_negative():
    with pytest.raises(ValueError, match="PoincareMLR: num_classes must be 0 or more, got -1"):
        snn.PoincareMLR(4, -1)


def test_sizes_of_numpy():
    assert snn.PoincareLinear(numpy.int64(8), numpy.int64(4))(torch.zeros(2, 8)).shape == (2, 4)


def test_a_scale_that_is_no_number():
    with pytest.raises(TypeError, match=re.escape("LorentzLinear: scale must be a number, got '1' (str)")):
        snn.LorentzLinear(4, 4, form="rescale", scale="1")
