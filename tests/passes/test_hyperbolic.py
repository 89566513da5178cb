"""Every spelling of the maps becomes one operator with the right guard, the same values and gradients."""

import copy

import pytest
import torch
from graphs import counts, trace
from library_spellings import SPELLINGS

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context
from stonefx.passes.verify import Verifier

DIM = 7
CURVATURES = {
    "float": 1.7,
    "scalar": torch.tensor(0.6),
    "vector": torch.tensor([0.8]),
    "rows": torch.linspace(0.3, 1.2, 12).reshape(12, 1),
}
ids = {"ids": lambda value: getattr(value, "name", None)}


def rows(dtype=torch.float32, seed=0, largest=0.7):
    """Twelve rows of very different norms, one of them zero."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(12, DIM, generator=generator, dtype=torch.float64)
    norms = torch.tensor([1.0, 1e-3, 0.1, 0.9, 0.3, 0.0, 0.5, 0.05, 0.7, 1e-4, 0.2, 0.6], dtype=torch.float64)
    return (directions / directions.norm(dim=-1, keepdim=True) * norms[:, None] * largest).to(dtype)


def inputs_of(spelling, dtype=torch.float32):
    return [rows(dtype)] + [rows(dtype, seed=1).flip(0)] * (spelling.target == "mobius_add")


def traced(spelling, curvature, dtype=torch.float32, dynamic=False):
    """The graph of a spelling, and its inputs; a tensor curvature is an input too."""
    inputs = inputs_of(spelling, dtype)
    if isinstance(curvature, torch.Tensor):
        inputs.append(curvature.to(dtype))
        graph = trace(lambda _, *given: spelling.function(*given), *inputs, dynamic=dynamic)
    else:
        graph = trace(lambda _, *given: spelling.function(*given, curvature), *inputs, dynamic=dynamic)
    return graph, inputs


def rewritten(graph, context=None):
    """A rewritten copy of a graph, and its only site."""
    after = copy.deepcopy(graph)
    (site,) = HYPERBOLIC.run(after, context or Context())
    after.graph.lint()
    return after, site


def same_guards(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "atanh_limit":  # as float32 holds it
            value = torch.tensor(value, dtype=torch.float32).item()
        assert found[name] == pytest.approx(value, rel=1e-9), name


@pytest.mark.parametrize("kind", CURVATURES)
@pytest.mark.parametrize("spelling", SPELLINGS, **ids)
def test_spelling_becomes_one_operator(spelling, kind):
    curvature = CURVATURES[kind]
    before, _ = traced(spelling, curvature)
    after, site = rewritten(before)
    assert (site.target, site.status, site.reason) == (spelling.target, "rewritten", "")
    same_guards(site.guards, spelling.guards)
    found = counts(after)
    assert found.pop(spelling.target) == 1
    # Only what makes the curvature operand or turns a sign may remain, on scalars or one vector.
    assert sum(found.values()) <= 3, found
    assert set(found) <= {"neg", "abs", "add", "pow", "sqrt", "mul"}, found
    assert Verifier({}).check(before, after, site) is None
    assert site.max_error < 1e-5
    assert 0 < site.flops_after <= site.flops_before


@pytest.mark.parametrize("spelling", SPELLINGS, **ids)
def test_curvature_one_without_operand(spelling):
    before, _ = traced(spelling, 1.0)
    after, site = rewritten(before)
    assert site.status == "rewritten"
    assert Verifier({}).check(before, after, site) is None
    (operand,) = (node for node in after.graph.nodes if node.meta.get("fold") == "curvature")
    assert operand.args == ([], pytest.approx(1.0, rel=1e-12))
    assert operand.meta["val"].dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spelling", SPELLINGS, **ids)
def test_other_dtypes(spelling, dtype):
    before, inputs = traced(spelling, 1.0, dtype)
    after, site = rewritten(before)
    assert site.status == "rewritten"
    for node in after.graph.nodes:
        if node.name == site.replacement:
            assert node.meta["val"].dtype == dtype
    assert Verifier({}).check(before, after, site) is None
    assert after(*inputs).dtype == dtype


@pytest.mark.parametrize("kind", ["float", "scalar", "vector", "rows"])
@pytest.mark.parametrize("spelling", SPELLINGS, **ids)
def test_gradients_are_those_of_the_spelling(spelling, kind):
    before, inputs = traced(spelling, CURVATURES[kind], torch.float64)
    if spelling.guards.get("nan_at_zero") or spelling.target == "logmap0":
        # There a spelling gives 0 / 0, or loses all digits in 1 + u.
        inputs[0] = inputs[0] + 0.01 * (inputs[0] == 0)
    after, site = rewritten(before, Context(grad=True))
    assert site.status == "rewritten"
    weight = torch.randn(12, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    results = []
    for graph in (before, after):
        leaves = [value.clone().requires_grad_() for value in inputs]
        results.append(torch.autograd.grad((graph(*leaves) * weight).sum(), leaves))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


GUARDED = [s for s in SPELLINGS if s.target == "expmap0" and "nan_at_zero" not in s.guards]


@pytest.mark.parametrize("spelling", GUARDED, **ids)
def test_values_and_gradients_where_guards_act(spelling):
    before, _ = traced(spelling, CURVATURES["scalar"], torch.float64)
    after, _ = rewritten(before, Context(grad=True))
    norms = torch.tensor([0, 1e-17, 1e-14, 1e-11, 1e-8, 1e-6, 1e-5, 0.1, 5.0, 17.0, 25.0, 40.0])
    x = rows(torch.float64)
    x[5] = 1.0
    x = x / x.norm(dim=-1, keepdim=True) * norms.double()[:, None]
    c = CURVATURES["scalar"].double()
    results = []
    for graph in (before, after):
        leaves = [x.clone().requires_grad_(), c.clone().requires_grad_()]
        value = graph(*leaves)
        results.append((value.detach(), *torch.autograd.grad(value.sum(), leaves)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-20)


@pytest.mark.parametrize("spelling", SPELLINGS, **ids)
def test_dynamic_shapes(spelling):
    before, inputs = traced(spelling, CURVATURES["scalar"], dynamic=True)
    guards = len(environment(before).guards)
    after, site = rewritten(before)
    assert site.status == "rewritten"
    assert len(environment(before).guards) == guards
    assert Verifier({}).check(before, after, site) is None
    other = [value[:5] if value.ndim else value for value in inputs]
    if "nan_at_zero" not in spelling.guards:
        torch.testing.assert_close(after(*other), before(*other), rtol=2e-5, atol=1e-6)


def environment(graph):
    """The shape environment that a graph was traced in."""
    return next(iter(graph.graph.nodes)).meta["val"].fake_mode.shape_env


@pytest.mark.parametrize("shape", [(DIM,), (2, 3, DIM), (2, 1, 3, DIM), (0, DIM)])
def test_any_leading_dimensions(shape):
    x = torch.randn(shape) * 0.1
    for spelling in SPELLINGS:
        given = [x] * (spelling.target != "mobius_add") or [x, x.roll(1, -1)]
        before = trace(lambda _, *a, s=spelling: s.function(*a, 1.3), *given)
        after, site = rewritten(before)
        assert site.status == "rewritten", spelling.name
        torch.testing.assert_close(after(*given), before(*given), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shapes", [((4, DIM), (DIM,)), ((4, 1, DIM), (1, 3, DIM)), ((DIM,), (5, DIM))])
def test_mobius_add_broadcasts_over_rows(shapes):
    x, y = (torch.randn(shape) * 0.2 for shape in shapes)
    for spelling in SPELLINGS:
        if spelling.target != "mobius_add" or (spelling.name == "mobius_add_of_parts" and x.ndim != y.ndim):
            continue
        before = trace(lambda _, *a, s=spelling: s.function(*a, 0.8), x, y)
        after, site = rewritten(before)
        assert site.status == "rewritten", spelling.name
        torch.testing.assert_close(after(x, y), before(x, y), rtol=2e-5, atol=1e-6)
        assert Verifier({}).check(before, after, site) is None


def test_negative_curvature_parameter():
    """With `k = -c`, as geoopt passes it, the operand is `-k`."""

    def function(x, y, k):
        x2, y2, xy = (x * x).sum(-1, True), (y * y).sum(-1, True), (x * y).sum(-1, True)
        num = (1 - 2 * k * xy - k * y2) * x + (1 + k * x2) * y
        return num / (1 - 2 * k * xy + k**2 * x2 * y2).clamp_min(1e-15)

    x, y, k = rows(), rows(seed=1), torch.tensor(-0.8)
    before = trace(lambda _, *given: function(*given), x, y, k)
    after, site = rewritten(before)
    assert site.status == "rewritten"
    torch.testing.assert_close(after(x, y, k), before(x, y, k))
    assert Verifier({}).check(before, after, site) is None
