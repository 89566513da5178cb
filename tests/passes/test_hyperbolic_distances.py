"""Distances, of rows and of all pairs, in their spellings: one operator, no temporary over pairs, equal gradients."""

import copy
import itertools
import math

import pytest
import torch
from graphs import counts, trace

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

LIMIT = 1 - 1e-5


def squares(x):
    return (x * x).sum(-1, keepdim=True)


def mobius_add(x, y, c):
    x2, y2, xy = squares(x), squares(y), (x * y).sum(-1, keepdim=True)
    num = (1 + 2 * c * xy + c * y2) * x + (1 - c * x2) * y
    return num / (1 + 2 * c * xy + c**2 * x2 * y2).clamp_min(1e-15)


def by_sum(x, y, c):
    return 2 / c**0.5 * torch.atanh((c**0.5 * mobius_add(-x, y, c).norm(dim=-1)).clamp_max(LIMIT))


def by_logs_of_a_clamped_norm(x, y, c):
    u = c**0.5 * mobius_add(-x, y, c).norm(dim=-1, keepdim=True).clamp_min(1e-15)
    return ((torch.log(1 + u) - torch.log(1 - u)) / c**0.5).squeeze(-1)


def by_arcosh(x, y, c):
    z = 1 + 2 * c * squares(x - y) / ((1 - c * squares(x)) * (1 - c * squares(y)))
    return (torch.acosh(z) / c**0.5).squeeze(-1)


def by_logarithm(x, y, c):
    x2, y2, xy = squares(x), squares(y), (x * y).sum(-1, keepdim=True)
    z = 1 + 2 * c * (x2 - 2 * xy + y2) / ((1 - c * x2) * (1 - c * y2))
    return (torch.log(z + torch.sqrt(z**2 - 1)) / c**0.5).squeeze(-1)


def by_asinh(x, y, c):
    z = c * squares(x - y) / ((1 - c * squares(x)) * (1 - c * squares(y)))
    return (2 * torch.asinh(z.sqrt()) / c**0.5).squeeze(-1)


def by_dot_products(x, y, c):
    """The norm of the Möbius sum from three dot products."""
    x2, y2, xy = squares(x), squares(y), (x * y).sum(-1, keepdim=True)
    num = (x2 - 2 * xy + y2) * c
    den = 1 - 2 * c * xy + c**2 * x2 * y2
    return (2 / c**0.5 * torch.atanh(torch.sqrt(num / den))).squeeze(-1)


def klein(x, y, c):
    xy = (x * y).sum(-1, keepdim=True)
    return (
        torch.acosh((1 - c * xy) / torch.sqrt((1 - c * squares(x)) * (1 - c * squares(y)))) / c**0.5
    ).squeeze(-1)


POINCARE = [by_sum, by_logs_of_a_clamped_norm, by_arcosh, by_logarithm, by_asinh, by_dot_products]
SPELLINGS = [(function, "poincare") for function in POINCARE] + [(klein, "klein")]
CURVATURES = {"float": 1.7, "tensor": torch.tensor(0.6, dtype=torch.float64)}


def points(*shape, seed=0):
    """Points well inside the ball of every curvature."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    lengths = 0.05 + 0.55 * torch.rand(*shape[:-1], 1, generator=generator, dtype=torch.float64)
    return x / x.norm(dim=-1, keepdim=True) * lengths


PLACES = {
    "rows": lambda f, x, y, c: f(x, y[: len(x)], c),
    "pairs": lambda f, x, y, c: f(x.unsqueeze(1), y.unsqueeze(0), c),
    "second broadcast alone": lambda f, x, y, c: f(x[:, None], y, c),
    "the other way round": lambda f, x, y, c: f(x.unsqueeze(0), y.unsqueeze(1), c),
    "in batches": lambda f, x, y, c: f(x.reshape(2, 3, 1, 5), y[:8].reshape(2, 1, 4, 5), c),
    "over shared points": lambda f, x, y, c: f(x.reshape(2, 3, 1, 5), y, c),
}


@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("function", "ball"), SPELLINGS, ids=lambda value: getattr(value, "__name__", None))
def test_spelling_becomes_one_operator(function, ball, place, kind):
    x, y, c = points(6, 5), points(9, 5, seed=1), CURVATURES[kind]
    inputs = [x, y, *([c] if isinstance(c, torch.Tensor) else [])]

    def model(_, x, y, *rest):
        return PLACES[place](function, x, y, rest[0] if rest else c)

    before = trace(model, *inputs)
    after = copy.deepcopy(before)
    (site,) = HYPERBOLIC.run(after, Context(grad=True))
    name = f"{ball}_dist" if place == "rows" else f"{ball}_cdist"
    assert (site.target, site.status, site.reason) == (name, "rewritten", "")
    found = counts(after)
    assert found.pop(name) == 1
    assert not found.keys() & {"sum", "linalg_vector_norm", "atanh", "acosh", "mm", "div"}, found
    assert Verifier({}).check(before, after, site) is None
    weight = torch.randn(
        before(*inputs).shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    results = []
    for graph in (before, after):
        leaves = [value.clone().requires_grad_() for value in inputs]
        value = graph(*leaves)
        results.append([value.detach(), *torch.autograd.grad((value * weight).sum(), leaves)])
    for expected, other in zip(*results, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-7, atol=1e-9)


def poincare_odds(x, y, c):
    return c * squares(x - y) / ((1 - c * squares(x)) * (1 - c * squares(y)))


def with_times(x, y, c):
    times = [torch.sqrt(1 / c + squares(each)) for each in (x, y)]
    return c * (times[0] * times[1] - (x * y).sum(-1, keepdim=True))


def of_klein(x, y, c):
    return (1 - c * (x * y).sum(-1, keepdim=True)) / torch.sqrt((1 - c * squares(x)) * (1 - c * squares(y)))


LEAST = 0.7
# What the function of a distance is taken of, clamped so that none is below LEAST, in units of 1 / s.
FLOORED = {
    "arcosh": ("poincare", lambda *p: torch.acosh((1 + 2 * poincare_odds(*p)).clamp_min(math.cosh(LEAST)))),
    "arsinh": (
        "poincare",
        lambda *p: 2 * torch.asinh(poincare_odds(*p).sqrt().clamp(min=math.sinh(LEAST / 2))),
    ),
    "artanh of a clamped sum": (
        "poincare",
        lambda x, y, c: (
            2 * torch.atanh(c**0.5 * mobius_add(-x, y, c).norm(dim=-1, keepdim=True).clamp_min(0.3))
        ),
    ),
    "of Klein's ball": ("klein", lambda *p: torch.acosh(of_klein(*p).clamp(min=math.cosh(LEAST)))),
    "of the hyperboloid": ("lorentz", lambda *p: torch.acosh(with_times(*p).clamp(min=math.cosh(LEAST)))),
}


@pytest.mark.parametrize("kind", [*CURVATURES, "of each row"])
@pytest.mark.parametrize("pairs", [False, True], ids=["rows", "pairs"])
@pytest.mark.parametrize("name", FLOORED)
def test_a_clamp_from_below_is_a_least_distance(name, pairs, kind):
    ball, function = FLOORED[name]
    x, y = points(6, 5), torch.cat([points(6, 5)[:4] * 1.01, points(2, 5, seed=1)])
    c = CURVATURES.get(
        kind, 0.5 + torch.rand(6, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    )
    if pairs and kind == "of each row":
        c = c[:1]
    inputs = [x, y, *([c] if isinstance(c, torch.Tensor) else [])]

    def model(_, x, y, *rest):
        c = rest[0] if rest else CURVATURES[kind]
        x, y = (x[:, None], y[None]) if pairs else (x, y)
        return (function(x, y, c) / c**0.5).squeeze(-1) * 3.0

    before = trace(model, *inputs)
    after = copy.deepcopy(before)
    sites = HYPERBOLIC.run(after, Context(grad=True))
    if "sum" in name and kind != "float":  # how near the clamp is depends on the curvature
        assert [site.status for site in sites if site.target.endswith("dist")] in (["near miss"], [])
        return
    (site,) = sites
    assert (site.target, site.status, site.reason) == (f"{ball}_{'c' * pairs}dist", "rewritten", "")
    assert Verifier({}).check(before, after, site) is None
    results = []
    for graph in (before, after):
        leaves = [value.clone().requires_grad_() for value in inputs]
        value = graph(*leaves)
        results.append([value.detach(), *torch.autograd.grad((value * value.cos()).sum(), leaves)])
    scale = torch.as_tensor(c).squeeze(-1) if isinstance(c, torch.Tensor) and c.ndim else c
    least = 2 * math.atanh(0.3 * CURVATURES["float"] ** 0.5) if "sum" in name else LEAST
    assert (results[0][0] * scale**0.5 / 3 < least * (1 + 1e-9)).sum() >= 2  # the clamp acts
    for expected, other in zip(*results, strict=True):
        torch.testing.assert_close(other, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("place", ["pairs", "second broadcast alone", "in batches"])
@pytest.mark.parametrize(("function", "ball"), SPELLINGS, ids=lambda value: getattr(value, "__name__", None))
def test_no_temporary_over_pairs(function, ball, place):
    x, y = points(6, 5), points(9, 5, seed=1)
    graph = trace(lambda _, x, y: PLACES[place](function, x, y, 0.8), x, y)
    HYPERBOLIC.run(graph, Context())
    largest = max(node.meta["val"].numel() for node in graph.graph.nodes if node.op != "output")
    pairs = graph(x, y).numel()
    assert largest <= max(pairs, x.numel(), y.numel())


GRAM = {
    "@": lambda x, y: x @ y.t(),
    "einsum of rows": lambda x, y: torch.einsum("id,jd->ij", x, y),
    "mm": lambda x, y: torch.mm(x, y.mT),
    "matmul": lambda x, y: torch.matmul(x, y.transpose(0, 1)),
    "einsum of a product": lambda x, y: torch.einsum("ik,kj->ij", x, y.t()),
}


SQUARES = {
    "column and row": lambda x, y: (squares(x), squares(y).t()),
    "no dimension kept": lambda x, y: ((x * x).sum(-1).unsqueeze(1), y.pow(2).sum(-1)[None]),
    "einsum": lambda x, y: (torch.einsum("id,id->i", x, x)[:, None], torch.einsum("jd,jd->j", y, y)),
    "norm": lambda x, y: (x.norm(dim=-1, keepdim=True) ** 2, y.norm(dim=-1) ** 2),
}


@pytest.mark.parametrize("ball", ["poincare", "poincare by the sum", "klein"])
@pytest.mark.parametrize("squared", SQUARES)
@pytest.mark.parametrize("product", GRAM)
def test_matrix_products_become_distances(product, squared, ball):
    x, y, c = points(6, 5), points(9, 5, seed=1), 1.2

    def model(_, x, y):
        xy = GRAM[product](x, y)
        x2, y2 = SQUARES[squared](x, y)
        if ball == "klein":
            return torch.acosh((1 - c * xy) / torch.sqrt((1 - c * x2) * (1 - c * y2))) / c**0.5
        if ball == "poincare":
            z = 1 + 2 * c * (x2 + y2 - 2 * xy) / ((1 - c * x2) * (1 - c * y2))
            return torch.acosh(z) / c**0.5
        u = torch.sqrt(c * (x2 - 2 * xy + y2) / (1 - 2 * c * xy + c * c * x2 * y2))
        return 2 / c**0.5 * torch.atanh(u)

    before = trace(model, x, y)
    after = copy.deepcopy(before)
    (site,) = (site for site in HYPERBOLIC.run(after, Context()) if "dist" in site.target)
    assert (site.target, site.status, site.reason) == (f"{ball.split()[0]}_cdist", "rewritten", "")
    assert not counts(after).keys() & {"mm", "matmul", "einsum", "acosh", "atanh"}
    torch.testing.assert_close(after(x, y), before(x, y), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("function", "ball"), SPELLINGS, ids=lambda value: getattr(value, "__name__", None))
def test_pairs_of_one_set_of_points(function, ball):
    x = points(6, 5)
    y = points(6, 5, seed=1)
    graph = trace(lambda _, x: function(x.unsqueeze(1), x.unsqueeze(0), 0.8), x)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert (site.target, site.status, site.reason) == (f"{ball}_cdist", "rewritten", "")
    apart = ~torch.eye(6, dtype=torch.bool)
    expected = function(x.unsqueeze(1), x.unsqueeze(0), 0.8)
    torch.testing.assert_close(graph(x)[apart], expected[apart], rtol=1e-7, atol=1e-9)
    assert graph(y).diagonal().abs().max() < 1e-7


def test_squares_taken_before_dimensions_are_added():
    x, y, c = points(6, 5), points(9, 5, seed=1), 1.2

    def model(_, x, y):
        x2, y2 = x.pow(2).sum(-1)[:, None], y.pow(2).sum(-1)[None, :]
        apart = (x.unsqueeze(1) - y.unsqueeze(0)).pow(2).sum(-1)
        return torch.acosh(1 + 2 * c * apart / ((1 - c * x2) * (1 - c * y2))) / c**0.5

    before = trace(model, x, y)
    after = copy.deepcopy(before)
    (site,) = HYPERBOLIC.run(after, Context())
    assert (site.target, site.status, site.reason) == ("poincare_cdist", "rewritten", "")
    torch.testing.assert_close(after(x, y), before(x, y), rtol=1e-7, atol=1e-9)


def wrong_factor(x, y):
    return torch.acosh(1 + squares(x - y) / ((1 - squares(x)) * (1 - squares(y))))


def one_gap(x, y):
    return torch.acosh(1 + 2 * squares(x - y) / (1 - squares(x)))


def two_curvatures(x, y):
    return torch.acosh(1 + 2 * squares(x - y) / ((1 - squares(x)) * (1 - 0.5 * squares(y))))


def offset_in_the_denominator(x, y):
    return torch.acosh(1 + 2 * squares(x - y) / ((1 - squares(x)) * (1 - squares(y)) + 1e-7))


def offset_in_the_argument(x, y):
    return torch.acosh(1 + 1e-5 + 2 * squares(x - y) / ((1 - squares(x)) * (1 - squares(y))))


def clamped_argument(x, y):
    return torch.acosh((1 + 2 * squares(x - y) / ((1 - squares(x)) * (1 - squares(y)))).clamp(1.0, 50.0))


def arsinh_without_root(x, y):
    return 2 * torch.asinh(squares(x - y) / ((1 - squares(x)) * (1 - squares(y))))


@pytest.mark.parametrize(
    ("function", "pairs"),
    itertools.product(
        [
            wrong_factor,
            one_gap,
            two_curvatures,
            offset_in_the_denominator,
            offset_in_the_argument,
            clamped_argument,
            arsinh_without_root,
        ],
        [False, True],
    ),
)
def test_other_numbers_are_left_alone(function, pairs):
    x, y = points(6, 5), points(6, 5, seed=1)
    graph = trace(lambda _, x, y: function(x[:, None], y) if pairs else function(x, y), x, y)
    before = str(graph.graph)
    sites = HYPERBOLIC.run(graph, Context())
    assert all(site.status != "rewritten" for site in sites if "dist" in site.target)
    assert str(graph.graph) == before or not any("dist" in site.target for site in sites)


@pytest.mark.parametrize(("inner", "status"), [("eager", "rewritten"), ("inductor", "refused")])
def test_a_sum_that_feeds_only_a_norm_is_left_to_a_compiler_that_fuses(inner, status):
    x, y = points(4096, 64).float(), points(4096, 64, seed=1).float()
    graph = trace(lambda _, x, y: mobius_add(x, y, 1.0).norm(dim=-1), x, y)
    (site,) = HYPERBOLIC.run(graph, Context(inner=inner))
    assert (site.target, site.status) == ("mobius_add", status)
    if status == "refused":
        assert "an operator would cost" in site.reason
        assert "at 4096 rows" in site.reason
