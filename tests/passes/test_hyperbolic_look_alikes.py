"""What only looks like a map is left alone, and the reason names the first difference."""

import re

import pytest
import torch
from graphs import trace

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 0.3
Y = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)) * 0.3
C, K = torch.tensor(0.7), torch.tensor(0.4)


def norm(x):
    return x.norm(dim=-1, keepdim=True)


def dots(x, y):
    return (x * x).sum(-1, True), (y * y).sum(-1, True), (x * y).sum(-1, True)


def over_all_dims(x):
    n = torch.linalg.vector_norm(x)
    return torch.tanh(n) * x / n


def norm_with_p_1(x):
    n = x.norm(p=1, dim=-1, keepdim=True)
    return torch.tanh(n) * x / n


def squared_norm(x):
    return torch.tanh(norm(x)) * x / norm(x).square()


def clamped_from_both_sides_of_another_sign(x):
    return torch.tanh(norm(x).clamp(-3, 15) - 1.0) * x / norm(x)


def no_division(x):
    return torch.tanh(norm(x)) * x


def tanh_squared(x):
    return torch.tanh(norm(x)).square() * x / norm(x)


def norm_clamped_from_above(x):
    n = norm(x).clamp(1e-5, 10.0)
    return torch.tanh(n) * x / n


def offset_after_scaling(x, c):
    u = c.sqrt() * norm(x) + 1e-5
    return torch.tanh(u) * x / u


def clamp_of_unknown_sign(x, s):
    u = (s * norm(x)).clamp_min(1e-5)
    return torch.tanh(u) * x / u


def logs_of_different_arguments(x):
    u = norm(x)
    return 0.5 * (torch.log(1 + u) - torch.log(1 - 2 * u)) * x / u


def mobius_without_two(x, y):
    x2, y2, xy = dots(x, y)
    return ((1 + xy + y2) * x + (1 - x2) * y) / (1 + xy + x2 * y2)


def mobius_two_curvatures(x, y, c, k):
    x2, y2, xy = dots(x, y)
    return ((1 + 2 * c * xy + c * y2) * x + (1 - k * x2) * y) / (1 + 2 * c * xy + c * c * x2 * y2)


def mobius_wrong_denominator(x, y):
    x2, y2, xy = dots(x, y)
    return ((1 + xy + 0.5 * y2) * x + (1 - 0.5 * x2) * y) / (1 + xy + 0.5 * x2 * y2)


def mobius_numerator(x, y):
    x2, y2, xy = dots(x, y)
    return (1 + 2 * xy + y2) * x + (1 - x2) * y


def mobius_clamped_from_above(x, y):
    x2, y2, xy = dots(x, y)
    return ((1 + 2 * xy + y2) * x + (1 - x2) * y) / (1 + 2 * xy + x2 * y2).clamp(1e-5, 3.0)


LOOK_ALIKES = [
    (over_all_dims, (X,), "expmap0", r"norm over dims \[-2, -1\]"),
    (norm_with_p_1, (X,), "expmap0", "norm with p = 1, not the 2-norm"),
    (squared_norm, (X,), "expmap0", "in the denominator: the norm is raised to the power 2"),
    (no_division, (X,), "expmap0", "in the denominator: there is no norm"),
    (clamped_from_both_sides_of_another_sign, (X,), "expmap0", "in the argument of tanh"),
    (tanh_squared, (X,), "expmap0", "tanh is raised to the power 2"),
    (norm_clamped_from_above, (X,), "expmap0", "the norm is clamped from above at 10"),
    (offset_after_scaling, (X, C), "expmap0", "1e-05 is added after the norm is scaled"),
    (clamp_of_unknown_sign, (X, C), "expmap0", "arg1_1, whose sign is not known"),
    (logs_of_different_arguments, (X,), "logmap0", r"not those of artanh\(u\)"),
    (mobius_without_two, (X, Y), "mobius_add", "<x, y> has the factor 1, expected 2"),
    (mobius_two_curvatures, (X, Y, C, K), "mobius_add", "<x, y> has the factor 2 arg2_1, expected 2 arg3_1"),
    (mobius_wrong_denominator, (X, Y), "mobius_add", r"the denominator is .*0\.5 .*, expected .*0\.25"),
    (mobius_numerator, (X, Y), "mobius_add", "not divided by"),
    (mobius_clamped_from_above, (X, Y), "mobius_add", "a guard of another kind"),
]


def sum_of_curvatures(above, below, squared):
    def function(x, y):
        x2, y2, xy = dots(x, y)
        return ((1 + 2 * 0.7 * xy + above * y2) * x + (1 - 0.7 * x2) * y) / (
            1 + 2 * below * xy + squared**2 * x2 * y2
        )

    return function


def arcosh_of_curvatures(first, second, between):
    def function(x, y):
        x2, y2, _ = dots(x, y)
        apart = (x - y).square().sum(-1, True)
        return torch.acosh(1 + 2 * between * apart / ((1 - first * x2) * (1 - second * y2)))

    return function


def hyperboloid_of_curvatures(first, second, between):
    def function(x, y):
        x2, y2, xy = dots(x, y)
        return torch.acosh(torch.sqrt(1 + first * x2) * torch.sqrt(1 + second * y2) - between * xy)

    return function


OF_CURVATURES = {
    "sum": sum_of_curvatures,
    "ball": arcosh_of_curvatures,
    "hyperboloid": hyperboloid_of_curvatures,
}


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("kind", OF_CURVATURES)
def test_two_curvatures_are_said_to_be_two(kind, place):
    """Another curvature in one place is `other_curvature`; a wrong constant there is `other_constant`."""
    for other, code in ((0.52, "other_curvature"), (1.4, "other_constant"), (0.7003, "other_constant")):
        given = [0.7, 0.7, 0.7]
        given[place] = other
        if kind == "ball" and place == 2:
            continue  # there it is one with the constant 2
        function = OF_CURVATURES[kind](*given)
        graph = trace(lambda _, x, y, f=function: f(x, y), X, Y)
        (site,) = HYPERBOLIC.run(graph, Context())
        assert (site.status, site.code) == ("near miss", code), (given, site.reason)


def test_curvatures_of_two_tensors_are_said_to_be_two():
    graph = trace(lambda _, *given: mobius_two_curvatures(*given), X, Y, C, K)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert (site.status, site.code) == ("near miss", "other_curvature")
    assert site.reason.cure == "Take one curvature for all of a formula."


@pytest.mark.parametrize(
    ("function", "inputs", "target", "reason"), LOOK_ALIKES, ids=[entry[0].__name__ for entry in LOOK_ALIKES]
)
def test_look_alikes_are_left_alone(function, inputs, target, reason):
    graph = trace(lambda _, *given: function(*given), *inputs)
    before = str(graph.graph)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert (site.target, site.status) == (target, "near miss")
    assert re.search(reason, site.reason), site.reason
    assert str(graph.graph) == before


ZEROS = {
    "new_zeros": lambda x: x.new_zeros(x.shape),
    "zeros_like": torch.zeros_like,
    "full_like": lambda x: torch.full_like(x, 0.0),
    "times zero": lambda x: x * 0.0,
    "less itself": lambda x: x - x,
    "clamped": lambda x: norm(x).clamp(0.0, 0.0),
    "inner": lambda x: (x * torch.zeros_like(x)).sum(-1, True),
}
OF_ZERO = [
    lambda z: z,
    torch.neg,
    torch.sqrt,
    torch.reciprocal,
    torch.rsqrt,
    lambda z: z**-2,
    torch.tanh,
    torch.atanh,
    lambda z: torch.atanh(z + 1.0),
    torch.log,
    lambda z: torch.log1p(z - 1.0),
    torch.abs,
    lambda z: z.clamp(-0.5, 0.5),
    lambda z: torch.maximum(z, z),
    lambda z: z.norm(dim=-1, keepdim=True),
    lambda z: z / z,
    lambda z: z.sum(-1, True),
]


@pytest.mark.parametrize("two", [False, True], ids=["one row", "two rows"])
@pytest.mark.parametrize("zero", ZEROS)
def test_zero_is_no_map_and_no_failure(zero, two):
    """Scattering begins with zeros, which may be made like a score: attention over edges scores with inner products."""

    def model(_, x, y):
        score = (x * y).sum(-1, True) if two else norm(x)
        scores, rows = ([of(ZEROS[zero](value)) for of in OF_ZERO] for value in (score, x))
        return [*scores, *rows, *(score + each for each in scores), *(each * x + y for each in rows)]

    assert not [site for site in HYPERBOLIC.run(trace(model, X, Y), Context()) if site.status == "rewritten"]


def lifted(x, t):
    return torch.cat([t, x], -1)


def times(x):
    return torch.sqrt(1 + (x * x).sum(-1, True))


# What is compared by its square has lost its sign: `s` is a number that may be negative, with the curvature `s ** 2`.
SIGNS = {
    "a negative time": lambda x, y, s: lifted(x, -times(x)),
    "a time of unknown sign": lambda x, y, s: lifted(x, s * torch.sqrt(1 / s**2 + (x * x).sum(-1, True))),
    "the other sheet's product": lambda x, y, s: torch.cat([-lifted(x, times(x))[..., :1], x], -1),
    "to the ball from the other sheet": lambda x, y, s: x / (1 - times(x)),
    "to the ball by a number of unknown sign": lambda x, y, s: (
        x / (1 + s * torch.sqrt(1 / s**2 + (x * x).sum(-1, True)))
    ),
    "to Klein's ball from the other sheet": lambda x, y, s: x / -times(x),
    "from Klein's ball by a number of unknown sign": lambda x, y, s: (
        x / (1 + s * torch.sqrt(1 / s**2 - (x * x).sum(-1, True)))
    ),
    "from Klein's ball by the other root": lambda x, y, s: x / (1 - torch.sqrt(1 - (x * x).sum(-1, True))),
    "a turned rescaling": lambda x, y, s: (
        lambda w: lifted(-x * (((w * w - 1) / (x * x).sum(-1, True)).sqrt()), w)
    )(y[..., :1].sigmoid() * 2 + 1.1),
    "a turned map": lambda x, y, s: lifted(-torch.sinh(norm(x)) / norm(x) * x, torch.cosh(norm(x))),
    "a turned map of a negative time": lambda x, y, s: lifted(
        torch.sinh(norm(x)) / norm(x) * x, -torch.cosh(norm(x))
    ),
    "a length of unknown sign": lambda x, y, s: x * (0.1 / s / norm(x)).clamp(max=1.0),
    "a distance of unknown sign": lambda x, y, s: (
        2
        / s
        * torch.asinh(s * norm(x - y) / torch.sqrt((1 - s**2 * norm(x) ** 2) * (1 - s**2 * norm(y) ** 2)))
    ),
    "a negative distance": lambda x, y, s: (
        2
        * torch.atanh(-norm(x - y) / torch.sqrt(1 - 2 * (x * y).sum(-1, True) + norm(x) ** 2 * norm(y) ** 2))
    ),
    "a map scaled by a number of unknown sign": lambda x, y, s: torch.tanh(s * norm(x)) / (s * norm(x)) * x,
    "one whose norm is clamped": lambda x, y, s: (lambda u: torch.tanh(u) / u * x)(
        (s * norm(x)).clamp_min(1e-3)
    ),
    "a distance from 0 of unknown sign": lambda x, y, s: 2 / s * torch.atanh(s * norm(x)).squeeze(-1),
    "of half of its sign": lambda x, y, s: 2 / s.abs() * torch.atanh(s * norm(x)).squeeze(-1),
}


@pytest.mark.parametrize("sign", [0.9, -0.9])
@pytest.mark.parametrize("name", SIGNS)
def test_no_sign_is_lost(name, sign):
    """Whatever is recognised, values and gradients are those of the spelling, and of its negative twin."""
    x, y = X.double().requires_grad_(), Y.double().requires_grad_()
    s = torch.tensor(sign, dtype=torch.float64, requires_grad=True)
    graph = trace(lambda _, *given: SIGNS[name](*given), x.detach(), y.detach(), s.detach())
    HYPERBOLIC.run(graph, Context(grad=True))
    results = []
    for function in (SIGNS[name], graph):
        value = function(x, y, s)
        grads = torch.autograd.grad(
            (value * value.cos()).sum(), (x, y, s), materialize_grads=True, allow_unused=True
        )
        results.append([value, *grads])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
