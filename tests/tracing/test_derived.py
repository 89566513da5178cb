"""Custom functions whose backward is the derivative of their forward are told from others."""

import pytest
import torch
from torch import nn

import stonefx


def function(forward, backward):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            return backward(x, gradient)

    return Function


def artanh(x):
    x = x.clamp(-1 + 1e-5, 1 - 1e-5)
    return (torch.log(1 + x) - torch.log(1 - x)) * 0.5


def in_double(x):
    return artanh(x.double()).to(x.dtype)


LIMIT = 1 - 1e-5
DERIVED = {
    "artanh": function(artanh, lambda x, g: g / (1 - x.clamp(-LIMIT, LIMIT) ** 2)),
    "artanh in double": function(in_double, lambda x, g: g / (1 - x.clamp(-LIMIT, LIMIT) ** 2)),
    "arsinh": function(
        lambda x: (x + torch.sqrt(1 + x.pow(2))).clamp_min(1e-15).log(), lambda x, g: g / (1 + x**2) ** 0.5
    ),
    "arcosh": function(
        lambda x: torch.log(x.clamp_min(1 + 1e-7) + torch.sqrt(x.clamp_min(1 + 1e-7) ** 2 - 1)),
        lambda x, g: g / (x.clamp_min(1 + 1e-7) ** 2 - 1).sqrt(),
    ),
    "clamp past which a gradient passes": function(lambda x: x.clamp(-1, 1), lambda x, g: g),
}
OTHER = {
    "straight through": function(torch.round, lambda x, g: g),
    "twice the gradient": function(torch.sinh, lambda x, g: 2 * g * torch.cosh(x)),
    "turned round": function(torch.exp, lambda x, g: -g * torch.exp(x)),
    "finite where the derivative is not": function(
        torch.sqrt, lambda x, g: torch.where(x > 0, g / (2 * x.sqrt()), torch.zeros_like(x))
    ),
    "another at some places": function(
        torch.tanh, lambda x, g: torch.where(x > 1, g, g * (1 - x.tanh() ** 2))
    ),
}


class Model(nn.Module):
    def __init__(self, chosen, shift=0.0):
        super().__init__()
        self.linear, self.chosen, self.shift = nn.Linear(6, 6), chosen, shift

    def forward(self, x):
        return self.chosen.apply(self.linear(x) / 4 + self.shift)


def gradients(model, x):
    x = x.clone().requires_grad_()
    model(x).sum().backward()
    return x.grad


def compiled(model, numerics):
    torch.compiler.reset()
    return torch.compile(model, backend="stone", options={"inner": "eager", "numerics": numerics})


@pytest.mark.parametrize("name", DERIVED)
@pytest.mark.parametrize("numerics", ["strict", "fast"])
def test_fast_numerics_look_into_derivatives(name, numerics):
    torch.manual_seed(0)
    model, x = Model(DERIVED[name], shift=3.0 if name == "arcosh" else 0.0), torch.randn(5, 6)
    fast = compiled(model, numerics)
    torch.testing.assert_close(gradients(fast, x), gradients(model, x), rtol=1e-5, atol=1e-6)
    (note,) = [note for note in stonefx.last_report().notes if "custom function" in note]
    if numerics == "fast":
        assert note.startswith("looked into 1 of 1 custom function(s), the first at")
        assert "where that is clamped the gradient is now 0" in note
    else:
        assert note.startswith("1 custom function(s) run whole where gradients are wanted, the first at")
        assert 'numerics="fast"' in note
    assert "test_derived.py" in note


@pytest.mark.parametrize("name", OTHER)
def test_others_run_whole_whatever_the_numerics(name):
    torch.manual_seed(0)
    model, x = Model(OTHER[name]), torch.randn(5, 6)
    torch.testing.assert_close(gradients(compiled(model, "fast"), x), gradients(model, x), equal_nan=True)
    assert not any("looked into" in note for note in stonefx.last_report().notes)


def test_beyond_a_clamp_the_gradient_is_that_of_the_clamp():
    x = torch.tensor([0.5, 1.5], requires_grad=True)
    run = compiled(DERIVED["artanh"].apply, "fast")
    (found,) = torch.autograd.grad(run(x).sum(), x)
    torch.testing.assert_close(found, torch.tensor([1 / (1 - 0.25), 0.0]))


def test_optimize_looks_into_them_too():
    torch.manual_seed(0)
    model, x = Model(DERIVED["artanh"]), torch.randn(5, 6)
    fast = stonefx.optimize(model, x, numerics="fast")
    torch.testing.assert_close(gradients(fast, x), gradients(model, x), rtol=1e-5, atol=1e-6)
    assert any(note.startswith("looked into 1 of 1 custom function(s)") for note in fast.report.notes)
