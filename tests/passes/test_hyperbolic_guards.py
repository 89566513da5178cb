"""A guard may stand at any named scalar of a map: inside, in the denominator, under, on or behind the root, or nowhere.

Every pair of guards, one in the argument of tanh or artanh and one in the denominator, is one operator with both.
"""

import copy
import itertools

import pytest
import torch
from graphs import trace
from torch.nn import functional as F

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context

SMALL = 1e-3
C = 1.3


def square(x):
    return (x * x).sum(-1, keepdim=True)


def norm(x):
    return x.norm(dim=-1, keepdim=True)


# Each gives `sqrt(c)` times a guarded norm.
GUARDED = {
    "none": lambda x, c: c**0.5 * norm(x),
    "clamp": lambda x, c: c**0.5 * norm(x).clamp_min(SMALL),
    "clamp of the square": lambda x, c: c**0.5 * square(x).clamp_min(SMALL**2).sqrt(),
    "clamp of the scaled square": lambda x, c: torch.sqrt((c * square(x)).clamp(min=SMALL**2)),
    "under the root": lambda x, c: c**0.5 * torch.sqrt(square(x) + SMALL**2),
    "behind the root": lambda x, c: c**0.5 * (square(x).sqrt() + SMALL),
    "maximum after scaling": lambda x, c: torch.maximum(
        c**0.5 * norm(x), torch.full((), SMALL, dtype=x.dtype)
    ),
    "maximum": lambda x, c: norm(x).maximum(torch.full((), SMALL, dtype=x.dtype)) * c**0.5,
    "clamp and offset": lambda x, c: c**0.5 * (norm(x).clamp_min(SMALL) + SMALL),
}
ARTANH = {
    "atanh": lambda u, limit: torch.atanh(u.clamp(max=limit)),
    "logs": lambda u, limit: 0.5 * (torch.log(1 + u.clamp_max(limit)) - torch.log(1 - u.clamp_max(limit))),
}
LIMIT = 0.9


def rows(dtype):
    """Rows on either side of every guard and limit."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    lengths = torch.tensor([1e-6, 5e-4, 2e-3, 0.1, 0.5, 0.75, 0.85, 1e-4], dtype=torch.float64)
    return (x / norm(x) * lengths[:, None]).to(dtype)


def check(function, target, dtype):
    """One operator, whose values and gradients are those of the spelling in float64, NaN where those are."""
    x = rows(dtype)
    before = trace(lambda _, x: function(x), x)
    after = copy.deepcopy(before)
    (site,) = HYPERBOLIC.run(after, Context(grad=True))
    assert (site.target, site.status, site.reason) == (target, "rewritten", "")
    results = []
    for graph, given in ((before, x.double()), (after, x)):
        leaf = given.clone().requires_grad_()
        value = graph(leaf)
        results.append((value.detach().double(), torch.autograd.grad(value.sum(), leaf)[0].double()))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-5
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=1e-3 * tolerance, equal_nan=True)
    return site


PAIRS = list(itertools.product(GUARDED, GUARDED))


@pytest.mark.parametrize(("inside", "below"), PAIRS)
def test_expmap0(inside, below):
    def function(x):
        return torch.tanh(GUARDED[inside](x, C)) * x / GUARDED[below](x, C)

    check(function, "expmap0", torch.float64)


@pytest.mark.parametrize(("inside", "below"), PAIRS)
def test_logmap0(inside, below):
    artanh = ARTANH["logs" if below == "clamp" else "atanh"]

    def function(x):
        return artanh(GUARDED[inside](x, C), LIMIT) / GUARDED[below](x, C) * x

    site = check(function, "logmap0", torch.float64)
    assert site.guards["atanh_limit"] == LIMIT


@pytest.mark.parametrize("below", [name for name in GUARDED if name != "none"])
def test_in_float32(below):
    check(lambda x: torch.tanh(norm(x)) * x / GUARDED[below](x, 1.0), "expmap0", torch.float32)


@pytest.mark.parametrize("eps", [1e-15, 1e-12, 1e-5, 1e-2])
def test_normalize_times_tanh(eps):
    site = check(lambda x: F.normalize(x, dim=-1, eps=eps) * torch.tanh(norm(x)), "expmap0", torch.float64)
    assert site.guards == {"min_norm": eps, "separate": True}


FACTORS = [0.5, 2.0, 1.5 / 1.4, 1e-3, -0.5]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    "guard", ["none", "clamp", "under the root", "behind the root", "maximum after scaling"]
)
@pytest.mark.parametrize("target", ["expmap0", "logmap0"])
def test_multiples_are_matched_exactly(target, guard, factor):
    """`tanh(a n) / (b n) x` is the map of curvature `b^2` at `a / b x`."""

    def function(x):
        u = GUARDED[guard](x, C)
        return (torch.tanh if target == "expmap0" else torch.atanh)(factor * u) * x / u

    check(function, target, torch.float64)


def test_a_limit_is_what_its_dtype_holds():
    """1 - 1e-7 is 1 - 2^-23 in float32, where artanh is 1 % less."""
    y = rows(torch.float32) / 0.85
    y[6] *= 3

    def function(y):
        n = norm(y).clamp_min(1e-15)
        return torch.atanh(n.clamp(-1 + 1e-7, 1 - 1e-7)) * y / n

    graph = trace(lambda _, y: function(y), y)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert site.guards["atanh_limit"] == 1 - 2.0**-23
    torch.testing.assert_close(graph(y), function(y), rtol=1e-6, atol=0)


ISLANDS = {
    "clamped in double": lambda n: torch.atanh(n.double().clamp(-1 + 1e-15, 1 - 1e-15)).float(),
    "logs in double": lambda n: (0.5 * torch.log((1 + n.double()) / (1 - n.double()))).to(n.dtype),
    "root in double": lambda n: torch.atanh((n.double() ** 2).sqrt()).to(torch.float32),
}


@pytest.mark.parametrize("island", ISLANDS)
def test_islands_in_float64_whose_ends_have_one_dtype(island):
    y = rows(torch.float32)

    def function(y):
        n = norm(y).clamp_min(1e-15)
        return y / n * ISLANDS[island](n)

    graph = trace(lambda _, y: function(y), y)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert (site.target, site.status, site.reason) == ("logmap0", "rewritten", "")
    torch.testing.assert_close(graph(y), function(y), rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("dim", [0, 1, -2])
def test_rows_along_another_dimension(dim):
    x = torch.randn(4, 5, 3, 6, generator=torch.Generator().manual_seed(0))

    def function(x):
        n = x.norm(dim=dim, keepdim=True).clamp_min(1e-15)
        return torch.tanh(n) * x / n

    graph = trace(lambda _, x: function(x), x)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert (site.target, site.status, site.reason) == ("expmap0", "rewritten", "")
    torch.testing.assert_close(graph(x), function(x))
    assert graph(x).stride() == function(x).stride()
