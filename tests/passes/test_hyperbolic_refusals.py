"""A map that cannot be replaced without changing the graph's meaning is refused, and the reason says why."""

import copy

import torch
from graphs import trace
from torch.nn import functional as F

import stonefx.ops  # noqa: F401  (registers the operators)
from stonefx.passes.hyperbolic import HYPERBOLIC
from stonefx.passes.site import Context

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)) * 0.3
Y = torch.randn(6, 5, generator=torch.Generator().manual_seed(1)) * 0.3
C = torch.tensor(0.7)


def norm(x):
    return x.norm(dim=-1, keepdim=True)


def refused(function, *inputs, context=None, target="expmap0"):
    """The reason of the only site, which must be refused without a change of the graph."""
    graph = trace(lambda _, *given: function(*given), *inputs)
    before = str(graph.graph)
    (site,) = HYPERBOLIC.run(graph, context or Context())
    assert (site.target, site.status) == (target, "refused")
    assert str(graph.graph) == before
    return site.reason


def test_returned_intermediate():
    def function(x):
        n = norm(x)
        return torch.tanh(n) * x / n, n

    assert "the intermediate linalg_vector_norm" in refused(function, X)
    assert refused(function, X).endswith("is returned")


def test_intermediate_used_elsewhere():
    def function(x):
        n = norm(x).clamp_min(1e-15)
        return torch.tanh(n) * x / n + n

    reason = refused(function, X)
    assert "the intermediate clamp_min" in reason
    assert "is also used by add" in reason


def test_norm_shared_by_two_maps_is_no_obstacle():
    def function(x):
        n = norm(x).clamp_min(1e-15)
        return torch.tanh(n) * x / n, torch.tanh(2 * n) * x / (2 * n)

    graph = trace(lambda _, x: function(x), X)
    sites = HYPERBOLIC.run(graph, Context())
    assert [site.status for site in sites] == ["rewritten", "rewritten"]
    for found, expected in zip(graph(X), function(X), strict=True):
        torch.testing.assert_close(found, expected)


def test_norm_shared_with_a_look_alike_stays():
    def function(x):
        n = norm(x).clamp_min(1e-15)
        return torch.tanh(n) * x / n, torch.tanh(2 * n) * x / n.square()

    graph = trace(lambda _, x: function(x), X)
    sites = HYPERBOLIC.run(graph, Context())
    assert {site.status for site in sites} == {"refused", "near miss"}


def test_view_of_the_input_may_be_shared():
    def function(x):
        alias = torch.ops.aten.alias.default(x)
        n = norm(alias).clamp_min(1e-15)
        return torch.tanh(n) * alias / n + alias

    graph = trace(lambda _, x: function(x), X)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert site.status == "rewritten"
    torch.testing.assert_close(graph(X), function(X))


def test_cast_inside():
    def function(x):
        u = norm(x).clamp_min(1e-15)
        return torch.atanh(u.bfloat16()).to(torch.float32) / u * x

    reason = refused(function, X, target="logmap0")
    assert "dtypes differ inside" in reason
    assert "torch.bfloat16" in reason


def test_result_in_another_dtype():
    def function(x):
        n = norm(x).clamp_min(1e-15).double()
        return torch.tanh(n) * x / n

    reason = refused(function, X)
    assert "dtypes differ inside" in reason
    assert "torch.float64" in reason


def test_map_in_float64_between_casts_is_a_map():
    def function(x):
        x = x.double()
        n = norm(x).clamp_min(1e-15)
        return (torch.tanh(n) * x / n).float()

    graph = trace(lambda _, x: function(x), X)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert site.status == "rewritten"
    torch.testing.assert_close(graph(X), function(X), rtol=1e-7, atol=0)


def test_integer_rows_are_no_rows():
    graph = trace(
        lambda _, x: torch.tanh((x * x).sum(-1, True).sqrt()) * x, torch.ones(3, 4, dtype=torch.int64)
    )
    assert HYPERBOLIC.run(graph, Context()) == []


def test_autocast_region():
    def function(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            n = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
            return torch.tanh(n) * x / n

    assert "dtypes differ inside" in refused(function, X.bfloat16())


def test_more_rows_than_there_are():
    def function(x, c):
        u = c.sqrt() * norm(x)
        return torch.tanh(u) * x / u

    reason = refused(function, X, torch.rand(3, 1, 1))
    assert reason == "broadcasting is not over rows: arg0_1 [6, 5], arg1_1 [3, 1, 1] give [3, 6, 5]"


def test_mutation_between():
    def function(x):
        y = x.clone()
        n = norm(y)
        y[0].zero_()
        return torch.tanh(n) * y / n

    assert "clone is changed in place by zero_" in refused(function, X)


def test_mutated_intermediate():
    def function(x):
        n = norm(x)
        n.clamp_min_(1e-7)
        return torch.tanh(n) * x / n

    assert "clamp_min_" in refused(function, X)


def test_root_written_in_place():
    def function(x):
        n = norm(x).clamp_min(1e-7)
        y = torch.tanh(n) * x
        y.div_(n)
        return y

    assert "div_ changes mul in place" in refused(function, X)


def test_curvature_changed_after_its_root_was_taken():
    def function(x, c):
        c = c.clone()
        alias = c.view(1)
        s = c.sqrt()
        alias.mul_(4.0)
        u = s * norm(x).clamp_min(1e-7)
        return torch.tanh(u) * x / u

    graph = trace(lambda _, *given: function(*given), X, C)
    HYPERBOLIC.run(graph, Context())
    torch.testing.assert_close(graph(X, C), function(X, C))


def test_detach_inside_only_matters_with_gradients():
    def function(x):
        n = norm(x).clamp_min(1e-15)
        return torch.tanh(n) * x / n.detach()

    assert "the gradient is stopped inside, at detach" in refused(function, X, context=Context(grad=True))
    graph = trace(lambda _, x: function(x), X)
    (site,) = HYPERBOLIC.run(graph, Context())
    assert site.status == "rewritten"


def test_no_grad_inside():
    def function(x):
        n = norm(x).clamp_min(1e-15)
        with torch.no_grad():
            u = torch.tanh(n)
        return u * x / n

    assert "without gradient" in refused(function, X, context=Context(grad=True))


def test_detached_curvature_stays_detached():
    def function(x, c):
        u = c.detach().sqrt() * norm(x).clamp_min(1e-15)
        return torch.tanh(u) * x / u

    graph = trace(lambda _, *given: function(*given), X, C)
    (site,) = HYPERBOLIC.run(graph, Context(grad=True))
    assert site.status == "rewritten"
    x, c = X.clone().requires_grad_(), C.clone().requires_grad_()
    assert torch.autograd.grad(graph(x, c).sum(), [x, c], allow_unused=True)[1] is None


def test_denied_site_keeps_its_spelling():
    def function(x):
        n = norm(x)
        return torch.tanh(n) * x / n

    graph = trace(lambda _, x: function(x), X)
    (site,) = HYPERBOLIC.run(copy.deepcopy(graph), Context())
    reason = refused(function, X, context=Context(denied={site.key: "verification: off by 2"}))
    assert reason == "verification: off by 2"


def no_candidates(x, y):
    gelu = 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x.pow(3))))
    rms = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
    cosine = (F.normalize(x, dim=-1) * F.normalize(y, dim=-1)).sum(-1)
    gate = torch.tanh((x * y).sum(-1, keepdim=True)) * x
    distance = (x - y).norm(dim=-1)
    return gelu, rms, cosine, gate, distance, F.gelu(x, approximate="tanh"), x / norm(x) ** 2


def test_no_noise_about_what_is_no_map():
    graph = trace(lambda _, *given: no_candidates(*given), X, Y)
    sites = HYPERBOLIC.run(graph, Context())
    assert [site.reason for site in sites] == []


def test_result_in_another_memory_layout():
    def function(x):
        x = x.t()
        n = norm(x).clamp_min(1e-15)
        return (torch.tanh(n) * x / n).t().view(-1)

    reason = refused(function, X)
    assert reason.startswith("the result has strides (1, 5), not the row-major ones of the operator")
