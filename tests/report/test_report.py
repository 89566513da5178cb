"""The report: its table, its graph texts and diff, its totals, its JSON."""

import json
import os
import re

import pytest
import torch
from torch import fx
from torch.fx.experimental.proxy_tensor import make_fx

from stonefx.passes.refusal import Refusal
from stonefx.passes.site import Site
from stonefx.report import Report, Totals, graph_text, graph_totals, write_atomically

ONES = torch.ones(3)


def chain_graph(rows: int = 4, dynamic: bool = False) -> fx.GraphModule:
    """x [rows, 8] through two linears, weights marked as `capture` marks them."""

    def forward(x, w1, b1, w2):
        return torch.nn.functional.linear(torch.nn.functional.linear(x, w1, b1), w2)

    arguments = torch.randn(rows, 8), torch.randn(6, 8), torch.randn(6), torch.randn(2, 6)
    mode = "symbolic" if dynamic else "fake"
    module = make_fx(forward, pre_dispatch=True, tracing_mode=mode)(*arguments)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders[1:], ("0.weight", "0.bias", "1.weight"), strict=True):
        node.meta["weight"] = name
    return module


def merged_graph() -> fx.GraphModule:
    """The same value as one linear over a fold."""

    def forward(x, w1, b1, w2):
        weight = (w2.double() @ w1.double()).float()
        bias = (w2.double() @ b1.double()).float()
        return torch.nn.functional.linear(x, weight, bias)

    arguments = torch.randn(4, 8), torch.randn(6, 8), torch.randn(6), torch.randn(2, 6)
    module = make_fx(forward, pre_dispatch=True, tracing_mode="fake")(*arguments)
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, name in zip(placeholders[1:], ("0.weight", "0.bias", "1.weight"), strict=True):
        node.meta["weight"] = name
    linear = next(node for node in module.graph.nodes if node.target is torch.ops.aten.linear.default)
    linear.args[1].meta["fold"] = "0+1.weight"
    linear.args[2].meta["fold"] = "0+1.bias"
    return module


def site(**changes) -> Site:
    fields = {
        "pass_name": "linear_chains",
        "target": "linear_chain",
        "status": "rewritten",
        "module_path": "head",
        "source": "/home/me/model.py:12",
        "params_before": 66,
        "params_after": 18,
        "flops_before": 480,
        "flops_after": 128,
        "original_error": 3e-8,
        "max_error": 2e-8,
        "bound": 1e-6,
    }
    return Site(**(fields | changes))


def report(**changes) -> Report:
    fields = {
        "sites": [site(), site(status="refused", reason="the value between is returned", module_path="tail")],
        "before": graph_text(chain_graph()),
        "after": graph_text(merged_graph()),
        "notes": ["decoder: not captured"],
        "seconds": {"linear_chains": 0.25},
        "totals_before": graph_totals(chain_graph()),
        "totals_after": graph_totals(merged_graph()),
        "backend": {"door": "optimize", "inner": "eager", "torch": "2.13.0"},
    }
    return Report(**(fields | changes))


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


def test_table_holds_every_column_and_every_reason():
    text = str(report())
    for part in (
        "linear_chain",
        "rewritten",
        "refused",
        "model.py:12",
        "params 66 -> 18",
        "flops 480 -> 128",
    ):
        assert part in text
    assert "3.0e-08 -> 2.0e-08 / 1.0e-06" in text
    assert "the value between is returned" in text
    assert "1 rewritten, 1 refused, 0 near misses" in text
    assert "parameters 66 -> 18 (27.27 %)" in text
    assert "door optimize, inner eager, torch 2.13.0" in text
    assert "notes:\n  decoder: not captured" in text
    assert "/home/me" not in text


def test_repeated_blocks_share_a_row():
    sites = [site(module_path=f"layer.{i}.ffn") for i in range(12)]
    text = str(report(sites=sites))
    assert "layer.0.ffn (+11 more)" in text
    assert "layer.1.ffn" not in text
    assert "12 rewritten" in text


def test_nothing_found_is_said():
    assert str(Report()) == "nothing to rewrite was found"


def test_diff_is_a_unified_diff():
    lines = report().diff().splitlines()
    assert lines[:2] == ["--- before", "+++ after"]
    assert any(line.startswith("-%linear_1") for line in lines)
    assert "+0+1.weight: f32[2, 8] = fold(0.weight, 1.weight)" in lines
    assert report(after=report().before).diff() == ""


def test_json_round_trip(tmp_path):
    sites = [site(guards={"tanh_limit": float("inf"), "min_norm": 1e-15}, nodes=("linear", "linear_1"))]
    path = tmp_path / "report.json"
    text = report(sites=sites).to_json(path)
    document = json.loads(path.read_text())
    assert json.loads(text) == document
    assert document["schema"] == 2
    assert document["sites"][0]["guards"] == {"tanh_limit": "inf", "min_norm": 1e-15}
    assert document["sites"][0]["nodes"] == ["linear", "linear_1"]
    assert document["summary"]["parameters_before"] == 66
    assert document["notes"] == ["decoder: not captured"]
    assert not any(name.endswith(".tmp") for name in os.listdir(tmp_path))


def test_a_refusal_keeps_its_code_and_figures():
    why = Refusal("shared", value="relu", count=2, users="linear, linear_1")
    text = report(sites=[site(status="refused", reason=why), site(reason="two became one")]).to_json()
    refused, rewritten = Report.from_json(text).sites
    assert (refused.code, refused.figures["count"]) == ("shared", 2)
    assert refused.reason == why and "read" not in refused.reason.cure
    assert (rewritten.code, rewritten.figures) == ("", {})
    old = json.loads(text) | {"schema": 1}
    for facts in old["sites"]:
        del facts["code"], facts["figures"]
    assert Report.from_json(json.dumps(old)).sites[0].reason == str(why)
    with pytest.raises(ValueError, match="expected a report of schema 2 or 1, got 3"):
        Report.from_json(json.dumps(old | {"schema": 3}))


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


def test_write_needs_its_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing; create it first"):
        write_atomically(tmp_path / "missing" / "a.json", "{}")


def test_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    path.write_text("old")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.json"]
