"""`torch.func` over the operators: transforms in every order give what they give on the references."""

import pytest
import torch
from operator_cases import arguments, declared, has_gradient, module, overload
from torch.autograd import forward_ad

from stonefx import ops
from stonefx.geometry import poincare

COMPOSITES = ("poincare_linear", "lorentz_linear")
NAMES = (
    *COMPOSITES,
    "expmap0",
    "logmap0",
    "mobius_add",
    "low_rank_linear",
    "pifa_linear",
    "butterfly",
    "hyper_butterfly",
    "add_time",
)


def reference(name):
    if name in COMPOSITES:
        return module(name).reference
    return declared(name).reference


def operands(name):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 2, 2, generator=generator, dtype=torch.float64)
    c = torch.tensor(0.7, dtype=torch.float64)
    x = 0.3 * torch.randn(3, 4, generator=generator, dtype=torch.float64)
    matrix = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    if name in COMPOSITES:
        return x, matrix, 0.1 * matrix[:, 0], c
    special = {"butterfly": (x, weight), "hyper_butterfly": (x, weight, c), "add_time": (x, c)}
    return special[name] if name in special else arguments(name, batch=(3,), dim=4, c=c)


TRANSFORMS = {
    "grad": lambda f, args: torch.func.grad(f, has_gradient(args))(*args),
    "vmap of grad": lambda f, args: torch.vmap(torch.func.grad(f, 1), (0, *[None] * (len(args) - 1)))(*args),
    "grad of vmap": lambda f, args: torch.func.grad(
        lambda *a: torch.vmap(f, (0, *[None] * (len(args) - 1)))(*a).square().sum()
    )(*args),
    "jacrev of jacrev": lambda f, args: torch.func.jacrev(torch.func.jacrev(f), 1)(args[0][0], *args[1:]),
}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", NAMES)
def test_transforms(name, transform):
    args = operands(name)
    if name == "mobius_add":
        args = (args[0], args[1][0], args[2])

    def scalar(function):
        return lambda *a: function(*a).pow(3).sum()

    got = TRANSFORMS[transform](scalar(overload(name)), args)
    expected = TRANSFORMS[transform](scalar(reference(name)), args)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-11)


def test_forward_mode_goes_through_the_reference():
    x, c = operands("expmap0")
    tangent = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    got = torch.func.jvp(lambda v: overload("expmap0")(v, c), (x,), (tangent,))[1]
    # the map is radial, so that its derivative is symmetric
    expected = torch.func.vjp(lambda v: overload("expmap0")(v, c), x)[1](tangent)[0]
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode_without_transforms(name):
    args = operands(name)

    def derivative(function):
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(a, torch.ones_like(a)) if a.is_floating_point() else a for a in args
            ]
            return forward_ad.unpack_dual(function(*duals))

    for function in (overload(name), getattr(ops, name)):
        got, expected = derivative(function), derivative(reference(name))
        torch.testing.assert_close(got.primal, expected.primal)
        torch.testing.assert_close(got.tangent, expected.tangent)


def test_forward_mode_of_the_geometry():
    x, v = torch.tensor([0.3, -0.4], dtype=torch.float64), torch.tensor([0.5, 0.2], dtype=torch.float64)
    step = 1e-6
    for function in (poincare.expmap0, poincare.dist0, lambda p: poincare.mobius_add(p, p)):
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(function(forward_ad.make_dual(x, v))).tangent
        slope = (function(x + step * v) - function(x - step * v)) / (2 * step)
        torch.testing.assert_close(tangent, slope, rtol=1e-7, atol=1e-9)
