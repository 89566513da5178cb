"""Every function of the corpus becomes its operator, with its guards and values; every look-alike is left alone."""

import copy
import re

import distances  # noqa: F401  (adds its cases)
import hyperboloid  # noqa: F401
import look_alikes  # noqa: F401
import planes  # noqa: F401
import poincare  # noqa: F401
import pytest
import torch
from cases import CASES, LOOK_ALIKES, PLACES, rows
from graphs import trace

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context

CURVATURE = 1.3
# How a model holds its curvature; each gives what is traced from what the model holds.
CURVATURES = {
    "number": (None, lambda held: CURVATURE),
    "tensor": (torch.tensor(CURVATURE), lambda held: held),
    "softplus": (torch.tensor(CURVATURE).expm1().log(), torch.nn.functional.softplus),
}
# artanh, arcosh and quotients by 1 - u^2 amplify the rounding of a norm by 1 / (1 - u) and more.
BOUNDS = {"interior": 1e3, "origin": 1e3, "boundary": 1e7, "outside": 1e4}
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def traced(case, dtype, kind):
    """The graph of a case, and its inputs at a place."""
    held, curvature = CURVATURES[kind]
    extra = [] if held is None else [held.to(dtype)]

    def inputs(place):
        given = [rows(k, place, CURVATURE, dtype, seed) for seed, k in enumerate(case.kinds)]
        return [*given, *extra]

    def model(_, *given):
        vectors = given[: len(case.kinds)]
        return case.function(*vectors, curvature(given[-1] if extra else None))

    return trace(model, *inputs("interior")), inputs


def held_guards(guards, dtype):
    limits = {
        k: torch.tensor(v, dtype=torch.float64).to(dtype).item()
        for k, v in guards.items()
        if k == "atanh_limit"
    }
    return {**guards, **limits}


@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_recognised(case, dtype, kind):
    dtype = DTYPES[dtype]
    before, inputs = traced(case, dtype, kind)
    after = copy.deepcopy(before)
    sites = HYPERBOLIC.run(after, Context())
    if case.single and dtype == torch.float64:
        assert {site.status for site in sites if site.target not in case.beside} <= {"near miss", "refused"}
        return
    assert {(site.status, site.reason) for site in sites} == {("rewritten", "")}
    assert sorted(site.target for site in sites) == sorted((case.target, *case.beside))
    (site,) = (site for site in sites if site.target == case.target)
    found = {k: v for k, v in site.guards.items() if k not in ("nan_at_zero", "eps")}
    double_limit = case.guards.get("atanh_limit") == 1 - 1e-15
    expected = held_guards(case.guards, torch.float64 if double_limit else dtype)
    expected |= case.in_double if dtype == torch.float64 else {}
    assert found == pytest.approx(expected, rel=1e-6)
    exact = copy.deepcopy(before)
    for place in PLACES:
        if place == "outside" and not case.limited and "tangent" not in case.kinds:
            continue
        given = inputs(place)
        value, original = after(*given).double(), before(*given).double()
        reference = in_float64(exact, given)
        right = original.isfinite() & reference.isfinite()
        error, accepted = ((each - reference).abs() for each in (value, original))
        scale = torch.where(right, reference.abs(), 0.0).amax()
        bound = 4 * torch.where(right, accepted, 0.0).amax() + BOUNDS[place] * torch.finfo(dtype).eps * (
            scale + 1e-20
        )
        # log(1 + u) - log(1 - u) is wrong by eps, arcosh by its root.
        bound = bound + 4 * torch.finfo(dtype).eps + case.loses * torch.finfo(dtype).eps ** 0.5
        assert (value.isfinite() | ~right).all(), place
        if case.cancels and place != "origin":
            error, accepted = (torch.where(reference < 0, 0.0, each) for each in (error, accepted))
        assert torch.where(right, error, 0.0).amax() <= bound, (place, value, original, reference)


@pytest.mark.parametrize("width", [2, 9, 40])
@pytest.mark.parametrize("case", [case for case in CASES if case.target == "mobius_matvec"], ids=str)
def test_a_matrix_may_change_the_length_of_the_rows(case, width):
    torch.manual_seed(0)
    x = rows("point", "interior", CURVATURE, torch.float64, 0).requires_grad_()
    matrix = torch.randn(width, x.shape[-1], dtype=torch.float64, requires_grad=True)

    def model(_, x, matrix):
        return case.function(x @ matrix.mT, x, CURVATURE)

    before = trace(model, x, matrix)
    after = copy.deepcopy(before)
    sites = HYPERBOLIC.run(after, Context(grad=True))
    assert [(site.target, site.status) for site in sites] == [("mobius_matvec", "rewritten")]
    found, expected = (graph(x, matrix) for graph in (after, before))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)
    cotangent = torch.randn_like(expected)
    for one, other in zip(
        *(torch.autograd.grad(y, (x, matrix), cotangent) for y in (found, expected)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def in_float64(graph, given):
    """The original in float64, its limits as its own dtype holds them."""
    dtype = given[0].dtype
    for node in graph.graph.nodes:
        if node.op == "call_function":
            node.args = torch.fx.node.map_aggregate(node.args, lambda a: limit_of(a, dtype))
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, lambda a: limit_of(a, dtype))
    graph.recompile()
    return graph(*(each.double() for each in given)).double()


def limit_of(argument, dtype):
    if argument is torch.float32:
        return torch.float64
    if isinstance(argument, float) and 0.5 < abs(argument) < 1 and abs(argument) < 1 - 1e-10:
        return torch.tensor(argument, dtype=torch.float64).to(dtype).item()
    return argument


@pytest.mark.parametrize("case", LOOK_ALIKES, ids=str)
def test_look_alikes_are_left_alone(case):
    given = [rows("point", "interior", CURVATURE, torch.float32, seed) for seed in range(case.vectors)]
    graph = trace(lambda _, *given: case.function(*given), *given)
    before = str(graph.graph)
    sites = HYPERBOLIC.run(graph, Context())
    assert [site.status for site in sites if site.target == case.target] == ["near miss"], sites
    (site,) = (site for site in sites if site.target == case.target)
    assert re.search(case.reason, site.reason), site.reason
    assert str(graph.graph) == before


def test_the_corpus_is_as_large_as_it_says():
    assert len(CASES) * len(DTYPES) * len(CURVATURES) >= 150
    assert len(LOOK_ALIKES) >= 80
    assert len({str(case) for case in CASES}) == len(CASES)
    assert len({str(case) for case in LOOK_ALIKES}) == len(LOOK_ALIKES)
