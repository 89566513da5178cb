"""Probes divide by no zero, and masks among them still have zeros."""

import pytest
import torch
from graphs import trace
from torch import fx

from stonefx.passes.graph.evaluation import Evaluation
from stonefx.passes.pipeline import copy_graph
from stonefx.passes.probes import draw
from stonefx.passes.site import Site
from stonefx.passes.verify import Verifier

aten = torch.ops.aten

DIVISORS = {
    "count": lambda m: m.sum(1, keepdim=True),
    "count of what is true": lambda m: m.bool().sum(1, keepdim=True),
    "through views and a conversion": lambda m: m.float().sum(1).unsqueeze(-1).expand(-1, 5),
    "inverse": lambda m: 1 / m.sum(1, keepdim=True).float().reciprocal(),
    "power": lambda m: m.sum(1, keepdim=True).float() ** -1,
    "clamped, without effect": lambda m: m.sum(1, keepdim=True).clamp(max=100),
}


def drawn(function, *inputs, seed=0):
    graph = trace(lambda _, *given: function(*given), *inputs)
    nodes = [node for node in graph.graph.nodes if node.op == "placeholder"]
    output = graph.graph.output_node().args[0]
    generator = torch.Generator().manual_seed(seed)
    values = draw(nodes, Evaluation(graph, {}), output.name, {}, generator)
    return [values[node.name] for node in nodes]


@pytest.mark.parametrize("shape", [(3, 12), (40, 3), (64, 6)], ids=str)
@pytest.mark.parametrize("dtype", [torch.long, torch.int32, torch.bool], ids=str)
@pytest.mark.parametrize("name", DIVISORS)
def test_a_mask_has_zeros_and_its_counts_have_none(name, dtype, shape):
    def mean(x, m):
        return (x * m.unsqueeze(-1)).sum(1) / DIVISORS[name](m)

    for seed in range(3):
        x, m = drawn(mean, torch.ones(*shape, 5), torch.ones(shape, dtype=dtype), seed=seed)
        assert m.dtype == dtype and (m == 0).any() and (m.sum(1) != 0).all()
        assert mean(x, m).isfinite().all()


def test_what_divides_itself_is_no_zero_and_not_always_the_same():
    _, n = drawn(lambda x, n: x / n, torch.ones(50, 4), torch.ones(50, 1, dtype=torch.long))
    assert (n > 0).all() and len(n.unique()) > 1


def test_nothing_else_is_drawn_anew():
    given = [torch.ones(6, 4), torch.ones(6, 4, dtype=torch.long)]
    plain = drawn(lambda x, m: x * m, *given)
    assert set(plain[1].unique().tolist()) == {0, 1}
    added = drawn(lambda x, m: x * m / (m + 1), *given)
    assert torch.equal(added[0], plain[0]) and torch.equal(added[1], plain[1])


def test_where_every_draw_divides_by_zero_the_first_one_stays():
    x, m = drawn(lambda x, m: x / (m - m), torch.ones(6, 4), torch.ones(6, 4, dtype=torch.long))
    assert set(m.unique().tolist()) == {0, 1} and x.isfinite().all()


@pytest.mark.parametrize("off", [0, 1])
def test_a_wrong_rewrite_of_a_quotient_is_found(off):
    """`x / n` as `x / (n + off)`."""
    graph = trace(lambda _, x, n: x / n, torch.ones(9, 4), torch.ones(9, 1, dtype=torch.long))
    before = fx.GraphModule(graph, copy_graph(graph.graph))
    (node,) = graph.graph.find_nodes(op="call_function", target=aten.div.Tensor)
    x, n = node.args
    with graph.graph.inserting_before(node):
        more = graph.graph.call_function(aten.add.Tensor, (n, off))
    more.meta = dict(n.meta)
    node.args = (x, more)
    site = Site(
        pass_name="quotients",
        target="quotient",
        status="rewritten",
        inputs=(x.name, n.name),
        output=node.name,
        replacement=node.name,
        bound=1e-6,
    )
    reason = Verifier({}).check(before, graph, site)
    assert reason is None if off == 0 else "relative error" in reason
