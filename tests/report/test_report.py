"""The report: its graph texts and diff, its totals, its parts."""

import re

import pytest
import torch
from reports import chain_graph, merged_graph, report
from torch.fx.experimental.proxy_tensor import make_fx

from stonefx.report import Report, Totals, graph_text, graph_totals

ONES = torch.ones(3)


def test_graph_text_names_weights_where_they_are_used():
    lines = graph_text(chain_graph()).splitlines()
    lines = [re.sub(r"  # .*", "", line) for line in lines]
    assert lines == [
        "%x_1: f32[4, 8] = input",
        "%linear: f32[4, 6] = aten.linear(%x_1, 0.weight, 0.bias)",
        "%linear_1: f32[4, 2] = aten.linear(%linear, 1.weight)",
        "return %linear_1",
    ]


def test_graph_text_of_symbolic_sizes_adds_no_guard():
    module = chain_graph(rows=5, dynamic=True)
    value = next(n for n in module.graph.nodes if n.target is torch.ops.aten.linear.default).meta["val"]
    environment = value.shape[0].node.shape_env
    guards = len(environment.guards)
    text = graph_text(module)
    assert re.search(r"f32\[s\d+, s\d+\]", text)
    graph_totals(module)
    assert len(environment.guards) == guards


def test_graph_text_shows_a_fold_as_one_line():
    lines = graph_text(merged_graph()).splitlines()
    assert "0+1.weight: f32[2, 8] = fold(0.weight, 1.weight)" in lines
    assert "0+1.bias: f32[2] = fold(0.bias, 1.weight)" in lines
    assert any("aten.linear(%x_1, 0+1.weight, 0+1.bias)" in line for line in lines)
    assert "aten.mm" not in "\n".join(lines)


def test_graph_text_shows_the_value_of_a_constant_fold():
    module = make_fx(lambda x: x * torch.full((), 0.5), pre_dispatch=True, tracing_mode="fake")(ONES)
    full = next(node for node in module.graph.nodes if node.target is torch.ops.aten.full.default)
    full.meta["fold"] = "curvature"
    assert re.search(r"^curvature: f32\[\] = aten\.full\(\[\], 0\.5", graph_text(module), re.M)
    assert graph_totals(module).parameters == 0


def test_graph_text_shows_the_source_line_and_nested_graphs():
    module = chain_graph()
    linear = next(n for n in module.graph.nodes if n.target is torch.ops.aten.linear.default)
    linear.meta["stack_trace"] = '  File "/home/me/model.py", line 12, in forward\n    return f(x)'
    assert re.search(r"%linear: .*  # model\.py:12$", graph_text(module), re.M)
    module.body = merged_graph()
    with module.graph.inserting_before(linear):
        module.graph.get_attr("body")
    assert "body:\n  %x_1: f32[4, 8] = input" in graph_text(module)


def test_totals_count_folds_and_not_what_feeds_them():
    before, after = graph_totals(chain_graph()), graph_totals(merged_graph())
    assert before.parameters == 6 * 8 + 6 + 2 * 6
    assert after.parameters == 2 * 8 + 2
    assert before.flops == 2 * 4 * (8 * 6 + 6 * 2)
    assert after.flops == 2 * 4 * 8 * 2
    assert after.bytes == 4 * (4 * 8 + 2 * 8 + 2 + 4 * 2)


def test_totals_leave_views_out_and_count_elementwise_work_once_an_element():
    def forward(x):
        return x.view(8, 4).tanh()

    module = make_fx(forward, pre_dispatch=True, tracing_mode="fake")(torch.randn(4, 8))
    assert graph_totals(module) == Totals(parameters=0, flops=32, bytes=2 * 32 * 4)


@pytest.mark.parametrize(
    ("function", "shapes", "flops"),
    [
        (torch.matmul, [(3, 4, 5), (5, 6)], 2 * 3 * 4 * 5 * 6),
        (torch.bmm, [(3, 4, 5), (3, 5, 6)], 2 * 3 * 4 * 5 * 6),
        (torch.addmm, [(6,), (4, 5), (5, 6)], 2 * 4 * 5 * 6),
        (torch.conv2d, [(1, 3, 8, 8), (4, 3, 3, 3)], 2 * 4 * 36 * 27),
        (torch.nn.functional.scaled_dot_product_attention, [(1, 2, 4, 8)] * 3, 4 * 2 * 4 * 4 * 8),
    ],
)
def test_flops_of_products(function, shapes, flops):
    module = make_fx(function, pre_dispatch=True, tracing_mode="fake")(*(torch.randn(s) for s in shapes))
    assert graph_totals(module).flops == flops


def test_diff_is_a_unified_diff():
    lines = report().diff().splitlines()
    assert lines[:2] == ["--- before", "+++ after"]
    assert any(line.startswith("-%linear_1") for line in lines)
    assert "+0+1.weight: f32[2, 8] = fold(0.weight, 1.weight)" in lines
    assert report(after=report().before).diff() == ""


def test_merge_prefixes_and_sums():
    merged = Report.merge({"encoder.0": report(), "encoder.1": report()})
    assert [s.module_path for s in merged.sites] == [
        "encoder.0.head",
        "encoder.0.tail",
        "encoder.1.head",
        "encoder.1.tail",
    ]
    assert merged.notes == ["encoder.0: decoder: not captured", "encoder.1: decoder: not captured"]
    assert merged.seconds == {"linear_chains": 0.5}
    assert merged.totals_before == report().totals_before + report().totals_before
    assert merged.before.startswith("encoder.0:\n%x_1") and "\nencoder.1:\n" in merged.before
    assert report().sites[0].module_path == "head"
