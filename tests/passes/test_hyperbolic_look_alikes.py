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
