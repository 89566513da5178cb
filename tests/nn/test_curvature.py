"""Curvatures at the ends of what a dtype holds: layers stay finite, and constructors refuse what lies beyond."""

import math
import re
import warnings

import numpy
import pytest
import torch
from nn_layers import LAYERS, points

from stonefx import nn as snn
from stonefx.nn.curvature import held_exp, interval

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_finite_at_both_ends(name, learned, dtype):
    for c in interval(dtype):
        torch.manual_seed(0)
        made = LAYERS[name](c, dtype=dtype, learn_curvature=learned)
        for radius in (0.0, 1e-6, 0.5, 0.9):
            x = points(name, radius, c, dtype).requires_grad_()
            y = made(x)
            assert y.isfinite().all()
            gradients = torch.autograd.grad(y.sum(), [x, *made.parameters()])
            assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_learned_curvature_is_held(name, dtype):
    made = LAYERS[name](dtype=dtype, learn_curvature=True)
    x = points(name, 1e-3, 1.0, dtype).requires_grad_()
    for value, end in ((-200.0, 0), (-1e4, 0), (200.0, 1), (-math.inf, 0), (math.inf, 1)):
        made.log_curvature.data.fill_(value if dtype != torch.float64 else 5 * value)
        assert made.curvature.item() == pytest.approx(interval(dtype)[end], rel=1e-5)
        y = made(x)
        y.double().square().mean().backward()
        assert y.isfinite().all() and x.grad.isfinite().all()
        assert made.log_curvature.grad == 0


def test_a_held_curvature_comes_back_by_weight_decay():
    made = snn.PoincareLinear(8, 4, learn_curvature=True)
    made.log_curvature.data.fill_(-60.0)
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1, weight_decay=1.0)
    for _ in range(10):
        optimizer.zero_grad()
        made(points("poincare", 0.5)).sum().backward()
        optimizer.step()
    assert made.log_curvature > -33 and made.curvature > interval(torch.float32)[0]


def test_the_gradient_of_a_learned_curvature_in_float16():
    """`c = 1e-4`: the gradient of `c` is beyond float16, that of `log c` is not."""
    gradients = []
    for dtype in (torch.float16, torch.float64):
        made = snn.PoincareLinear(4, 4, c=1e-4, learn_curvature=True, bias=False, dtype=dtype)
        with torch.no_grad():
            made.weight.copy_(torch.eye(4) * 1.5)
        made(torch.full((3, 4), 30.0, dtype=dtype)).sum().backward()
        gradients.append(made.log_curvature.grad.item())
    assert gradients[0] == pytest.approx(gradients[1], rel=2e-2)


@pytest.mark.parametrize(("c", "held"), [(1e-8, 2**-14), (1e9, 65504.0), (0.25, 0.25), (1e-3, None)])
@pytest.mark.parametrize("name", LAYERS)
def test_conversion_to_half_holds_a_fixed_curvature(name, c, held):
    made = LAYERS[name](c).half()
    assert made.curvature.item() == (held or torch.tensor(c).half().item())
    assert made(points(name, 1e-3, 1.0, torch.float16)).isfinite().all()
    state = LAYERS[name](c).state_dict()
    again = LAYERS[name](dtype=torch.half)
    again.load_state_dict(state)
    assert again.curvature == made.curvature


def test_conversions_that_keep_the_dtype_keep_the_buffer():
    made = snn.PoincareLinear(4, 4)
    before = made.fixed_curvature
    assert made.float().cpu().fixed_curvature is before
    assert made.double().fixed_curvature.dtype == torch.float64


def test_held_exp_is_exp_inside():
    log = torch.linspace(-40, 40, 9, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(held_exp(log), log.exp())
    assert torch.autograd.gradcheck(held_exp, log.detach().mul(0.1).requires_grad_())


def test_dtypes_without_layers():
    with pytest.raises(KeyError):
        interval(torch.int32)
    with pytest.raises(
        TypeError, match=r"PoincareLinear: dtype must be float32, float64, .* got int32; leave"
    ):
        snn.PoincareLinear(4, 4, dtype=torch.int32)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("c", [0.0, -1.0, math.nan, math.inf])
def test_curvature_must_be_positive(name, c):
    with pytest.raises(ValueError, match=f"the curvature must be positive and finite, got {c}; the space"):
        LAYERS[name](c)


@pytest.mark.parametrize("learned", [False, True], ids=["fixed", "learned"])
@pytest.mark.parametrize(
    ("c", "dtype", "text"),
    [
        (1e9, torch.half, "from 6.1e-05 to 6.55e+04 in float16, got 1000000000.0"),
        (1e-8, torch.half, "from 6.1e-05 to 6.55e+04 in float16, got 1e-08"),
        (1e-30, torch.float32, "from 3.55e-15 to 2.81e+14 in float32, got 1e-30"),
        (1e200, torch.float64, "from 8.64e-78 to 1.16e+77 in float64, got 1e+200"),
    ],
)
def test_curvatures_beyond_the_dtype(c, dtype, text, learned):
    message = f"PoincareLinear: the curvature must be {text}; make the layer in a wider dtype, or multiply"
    with pytest.raises(ValueError, match=re.escape(message)):
        snn.PoincareLinear(4, 4, c=c, dtype=dtype, learn_curvature=learned)


@pytest.mark.parametrize("name", LAYERS)
def test_a_curvature_that_requires_a_gradient(name):
    with pytest.raises(ValueError, match=r"requires a gradient, .* give a number and learn_curvature=True"):
        LAYERS[name](torch.tensor(1.0, requires_grad=True))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    ("c", "text"),
    [
        ("1", "'1' (str)"),
        (None, "None (NoneType)"),
        (True, "True (bool)"),
        (torch.ones(2), "a tensor [2] of dtype float32"),
        (torch.ones((), device="meta"), "a tensor [] of dtype float32"),
    ],
)
def test_curvatures_that_are_no_numbers(name, c, text):
    with pytest.raises(
        TypeError, match=re.escape(f"the curvature must be a number, got {text}; give a float")
    ):
        LAYERS[name](c)


@pytest.mark.parametrize("c", [1, numpy.float32(1), torch.tensor(1.0), torch.ones(1)], ids=repr)
def test_numbers_that_are_taken(c):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert snn.PoincareLinear(4, 4, c=c).curvature == torch.tensor(1.0)


def test_a_learned_curvature_is_loaded_from_states_without_its_dimension():
    layer = snn.PoincareLinear(3, 2, c=0.5, learn_curvature=True)
    state = layer.state_dict()
    assert state["log_curvature"].shape == (1,) and layer.curvature.shape == ()
    earlier = {**state, "log_curvature": torch.tensor(0.25).log()}
    outer = torch.nn.Sequential(layer)
    outer.load_state_dict({f"0.{name}": value for name, value in earlier.items()})
    assert layer.curvature.item() == pytest.approx(0.25)
    assert earlier["log_curvature"].shape == ()
