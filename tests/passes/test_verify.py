"""Verification: wrong rewrites are undone and reported, right ones measured."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graphs import trace
from torch import fx
from torch.utils._python_dispatch import TorchDispatchMode

import stonefx
from stonefx.passes.graph import blocks
from stonefx.passes.graph.evaluation import Evaluation
from stonefx.passes.linear import LINEAR_CHAINS
from stonefx.passes.pipeline import copy_graph, run_named, run_verified
from stonefx.passes.site import Context, RewriteError, Site
from stonefx.passes.verify import Verifier, relative_error

aten = torch.ops.aten


class Scale:
    """Rewrites `x * 2` as `change` says; a pass to be verified."""

    name = "scale"
    targets = ("scale",)

    def __init__(self, change: Callable[[fx.Graph, fx.Node], fx.Node], bound: float = 1e-6) -> None:
        self.change = change
        self.bound = bound
        self.runs = 0

    def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
        self.runs += 1
        sites = []
        for node in list(module.graph.nodes):
            if node.target is not aten.mul.Tensor:
                continue
            site = Site(
                pass_name=self.name,
                target="scale",
                status="rewritten",
                inputs=(node.args[0].name,),
                output=node.name,
                bound=self.bound,
            )
            sites.append(site)
            if site.key in context.denied:
                site.status, site.reason = "refused", context.denied[site.key]
                continue
            with module.graph.inserting_before(node):
                new = self.change(module.graph, node)
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new)
            module.graph.erase_node(node)
            site.replacement = new.name
        module.recompile()
        return sites


def right(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.call_function(aten.add.Tensor, (node.args[0], node.args[0]))


def wrong_for_the_second(graph: fx.Graph, node: fx.Node) -> fx.Node:
    factor = 2.0 if node.name == "mul" else 2.001
    return graph.call_function(aten.mul.Scalar, (node.args[0], factor))


def overflowing(graph: fx.Graph, node: fx.Node) -> fx.Node:
    return graph.call_function(aten.mul.Scalar, (node.args[0], 3.4e38))


def model(_: object, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x * 2) * 2


def verified(
    change: Callable[[fx.Graph, fx.Node], fx.Node], bound: float = 1e-6
) -> tuple[Scale, list[Site], fx.GraphModule]:
    graph = trace(model, torch.ones(4, 3), dynamic=True)
    item = Scale(change, bound)
    return item, run_verified(item, graph, Context(), Verifier({})), graph


def test_a_right_rewrite_stays_and_its_error_is_reported() -> None:
    item, sites, graph = verified(right)
    assert [site.status for site in sites] == ["rewritten", "rewritten"]
    assert [site.max_error for site in sites] == [0.0, 0.0]
    assert item.runs == 1
    assert not graph.graph.find_nodes(op="call_function", target=aten.mul.Tensor)


def test_a_wrong_rewrite_is_undone_and_the_others_stay() -> None:
    item, sites, graph = verified(wrong_for_the_second)
    assert [site.status for site in sites] == ["rewritten", "refused"]
    assert sites[1].reason.startswith("verification: relative error 5.0")
    assert "e-04 on the probes, allowed 1.00e-06" in sites[1].reason
    assert item.runs == 2
    x = torch.randn(5, 3)
    torch.testing.assert_close(graph(x), model(None, x), rtol=0, atol=0)


def test_the_bound_decides() -> None:
    _, sites, _ = verified(wrong_for_the_second, bound=1e-3)
    assert [site.status for site in sites] == ["rewritten", "rewritten"]
    assert sites[1].max_error == pytest.approx(5e-4, rel=1e-2)


def test_a_value_that_overflows_is_undone() -> None:
    _, sites, _ = verified(overflowing)
    assert [site.status for site in sites] == ["refused", "refused"]
    assert "relative error inf" in sites[0].reason


def columns(*kept: float) -> Callable[[fx.Graph, fx.Node], fx.Node]:
    """`x * 2` as a product with a matrix of the given columns, which reads all of them."""

    def change(graph: fx.Graph, node: fx.Node) -> fx.Node:
        width = len(kept)
        eye = graph.call_function(aten.eye.default, (width,))
        matrix = graph.call_function(aten.mul.Tensor, (eye, 2.0))
        return graph.call_function(aten.mm.default, (node.args[0], matrix))

    return change


def test_an_entry_that_reaches_more_results_is_undone() -> None:
    _, sites, _ = verified(columns(1.0, 1.0, 1.0))
    assert sites[0].status == "refused"
    assert "an entry of the input that is nan reaches" in sites[0].reason


def test_an_entry_that_is_lost_is_undone() -> None:
    def cleaned(graph: fx.Graph, node: fx.Node) -> fx.Node:
        return graph.call_function(aten.nan_to_num.default, (right(graph, node),))

    _, sites, _ = verified(cleaned)
    assert sites[0].status == "refused"
    assert "an entry of the input that is nan does not reach" in sites[0].reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("size", [1e-25, 1e-5, 1.0, 1e3, 1e20])
def test_weights_whose_product_their_dtype_does_not_hold_are_left_apart(
    size: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(6, 64, bias=False), torch.nn.Linear(64, 3, bias=False)]
    model = torch.nn.Sequential(*layers).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(size)
    model = model.to(dtype)
    info, held = torch.finfo(dtype), [weight.abs().max().item() for weight in model.parameters()]
    if not all(info.tiny < value < info.max for value in held):
        pytest.skip("the dtype does not hold the weights themselves")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stonefx.StonefxWarning)
        fast = stonefx.optimize(model, torch.ones(2, 6, dtype=dtype))
    product = (model[1].weight.double() @ model[0].weight.double()).detach()
    fits = (product.to(dtype).double() - product).abs().max() <= info.eps * product.abs().max()
    (site,) = fast.report.sites
    assert (site.status == "rewritten") == bool(fits), site.reason
    if not fits:
        assert "the folded weights go up to" in site.reason


def test_probes_of_the_scale_of_the_weights_find_what_unit_probes_do_not() -> None:
    """Results of 1e-44 are a few steps of float32 from 0, so that on values of unit scale anything goes."""

    def off(graph: fx.Graph, node: fx.Node) -> fx.Node:
        return graph.call_function(aten.mul.Tensor, (node.args[0], 1.08e-44))

    graph = trace(lambda _, x: x * 1e-44, torch.ones(4, 3))
    (site,) = run_verified(Scale(off), graph, Context(), Verifier({}))
    assert site.status == "refused"
    assert "on the probes times" in site.reason


class LargestWide(TorchDispatchMode):
    """Notes the entries of the largest float64 tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.dtype == torch.float64 and not result._is_view():
            self.entries = max(self.entries, result.numel())
        return result


@pytest.mark.parametrize("bias", [True, False])
def test_weights_are_never_widened_as_a_whole(bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", 8 * 1024)
    layers = [torch.nn.Linear(32, 2048, bias=bias), torch.nn.Linear(2048, 16, bias=bias)]
    net = torch.nn.Sequential(*layers).eval()
    graph = trace(net, torch.ones(4, 32))
    before = fx.GraphModule(graph, copy_graph(graph.graph))
    weights = {
        node.name: net.get_parameter(node.meta["weight"])
        for node in graph.graph.nodes
        if "weight" in node.meta
    }
    (site,) = LINEAR_CHAINS.run(graph, Context())
    assert site.status == "rewritten"
    with LargestWide() as made:
        assert Verifier(weights).check(before, graph, site) is None
    # A block of 1,024 entries, the hidden rows [4, 2048] of the exact run, never one of the weights of 32,768.
    assert made.entries <= 4 * 2048
    assert site.max_error is not None and site.max_error <= (site.bound or 0.0)


def test_folds_are_computed_once_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(6, 64), torch.nn.Linear(64, 3)).eval()
    watched: list[str] = []
    compute = Evaluation.compute

    def noted(self: Evaluation, names: Any, given: Any, **options: Any) -> Any:
        computed = self._needed([self.nodes[name] for name in names], given)
        watched.extend(node.name for node in computed if "fold" in node.meta and node.name not in given)
        return compute(self, names, given, **options)

    monkeypatch.setattr(Evaluation, "compute", noted)
    fast = stonefx.optimize(net, torch.ones(2, 6))
    assert fast.report.rewritten("linear_chain")
    assert watched and len(watched) == len(set(watched))


def test_a_default_device_does_not_move_the_probes() -> None:
    graph = trace(model, torch.ones(4, 3))
    with torch.device("meta"):
        sites = run_verified(Scale(right), graph, Context(), Verifier({}))
    assert [site.status for site in sites] == ["rewritten", "rewritten"]


def test_another_dtype_is_undone() -> None:
    def double(graph: fx.Graph, node: fx.Node) -> fx.Node:
        return graph.call_function(aten._to_copy.default, (right(graph, node),), {"dtype": torch.float64})

    _, sites, _ = verified(double)
    assert sites[0].reason == (
        "verification: the original gives torch.float32 [4, 3], the rewritten region torch.float64 [4, 3]"
    )


def test_nan_where_the_original_has_none_is_undone() -> None:
    def root(graph: fx.Graph, node: fx.Node) -> fx.Node:
        return graph.call_function(aten.sqrt.default, (right(graph, node),))

    _, sites, _ = verified(root)
    assert sites[0].reason == "verification: NaN where the original has none"


def test_breaking_down_where_the_original_does_is_no_excuse() -> None:
    """`mul(x, 2)` in float16 of 6e4 overflows in the original too; the other rows still have to be right."""

    def first_row(generator: torch.Generator) -> list[torch.Tensor]:
        return [torch.tensor([[6e4, 1.0], [3.0, 4.0]], dtype=torch.float16)]

    def off(graph: fx.Graph, node: fx.Node) -> fx.Node:
        return graph.call_function(aten.mul.Scalar, (node.args[0], 2.5))

    class Probed(Scale):
        def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
            sites = super().run(module, context)
            for site in sites:
                site.probes, site.error_norm = first_row, "row"
            return sites

    graph = trace(lambda _, x: x * 2, torch.ones(2, 2, dtype=torch.float16))
    sites = run_verified(Probed(off), graph, Context(), Verifier({}))
    assert [site.status for site in sites] == ["refused"]


def test_a_pass_that_ignores_a_denial_is_an_error() -> None:
    class Stubborn(Scale):
        def run(self, module: fx.GraphModule, context: Context) -> list[Site]:
            return super().run(module, Context())

    graph = trace(model, torch.ones(4, 3))
    with pytest.raises(RewriteError, match="pass 'scale' rewrote a site again that verification undid"):
        run_verified(Stubborn(wrong_for_the_second), graph, Context(), Verifier({}))


def test_a_failure_inside_a_pass_names_the_pass_and_the_node() -> None:
    def broken(graph: fx.Graph, node: fx.Node) -> fx.Node:
        raise KeyError("lost")

    graph = trace(model, torch.ones(4, 3))
    with pytest.raises(RewriteError, match=r"pass 'scale' failed at node %mul .*: KeyError: 'lost'"):
        run_named(Scale(broken), graph, Context())


@pytest.mark.parametrize(
    ("value", "exact", "norm", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], "tensor", 0.0),
        ([1.0, 2.2], [1.0, 2.0], "tensor", 0.1),
        ([[1.1, 0.0], [0.0, 100.0]], [[1.0, 0.0], [0.0, 100.0]], "tensor", 0.001),
        ([[1.1, 0.0], [0.0, 100.0]], [[1.0, 0.0], [0.0, 100.0]], "row", 0.1),
        ([float("nan"), 1.0], [float("nan"), 1.0], "tensor", 0.0),
        ([float("inf"), 1.0], [float("inf"), 1.0], "tensor", 0.0),
        ([float("nan"), 1.0], [0.0, 1.0], "tensor", float("inf")),
        ([0.0, 0.0], [0.0, 0.0], "row", 0.0),
        ([], [], "tensor", 0.0),
    ],
)
def test_relative_error(value: list[float], exact: list[float], norm: str, error: float) -> None:
    found = relative_error(torch.tensor(value), torch.tensor(exact), norm)
    assert found == pytest.approx(error, rel=1e-5)
