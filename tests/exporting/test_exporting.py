"""`torch.export` and AOTInductor take what `stonefx.optimize` returns."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

import stonefx
from stonefx.geometry import poincare

SHAPES = {"batch": {"x": {0: torch.export.Dim("batch", min=2, max=1024)}}}


class Model(nn.Module):
    """A chain, a hyperbolic map, a buffer, and arguments in a dict."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(*(nn.Linear(a, b) for a, b in itertools.pairwise((16, 64, 32, 8))))
        self.register_buffer("offset", torch.full((8,), 0.5))

    def forward(
        self, batch: dict[str, torch.Tensor], scale: float = 1.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.layers(batch["x"])
        return poincare.expmap0(y, c=1.0) * scale, y + self.offset


def call(batch: int) -> dict[str, torch.Tensor]:
    return {"x": torch.randn(batch, 16)}


@pytest.mark.parametrize("inner", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("grad", [True, False])
def test_export_with_a_dynamic_batch(inner: str, grad: bool) -> None:
    fast = stonefx.optimize(Model().eval(), (call(4),), inner=inner, verify=False)
    with torch.set_grad_enabled(grad):
        exported = torch.export.export(fast, (call(4),), dynamic_shapes=SHAPES)
    operators = [node.target for node in exported.graph.nodes if node.op == "call_function"]
    linear = [
        target
        for target in operators
        if target in (torch.ops.aten.linear.default, torch.ops.aten.addmm.default)
    ]
    assert len(linear) == 1
    assert {*exported.state_dict} == {*fast.state_dict()}
    again = exported.module()
    for batch in (2, 4, 33):
        arguments = call(batch)
        for one, other in zip(again(arguments), Model().eval()(arguments), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_export_of_a_loaded_model(tmp_path: Path) -> None:
    fast = stonefx.optimize(Model().eval(), (call(4),))
    loaded = stonefx.load(stonefx.save(fast, tmp_path / "model"))
    again = torch.export.export(loaded, (call(4),), dynamic_shapes=SHAPES).module()
    arguments = call(9)
    for one, other in zip(again(arguments), fast(arguments), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_export_for_arguments_that_the_graph_does_not_cover_says_so() -> None:
    fast = stonefx.optimize(Model().eval(), (call(4),))
    with pytest.raises(
        ValueError, match=r"`scale` was 1\.0 at capture, and now is 2\.0.*folded away; call stonefx"
    ):
        torch.export.export(fast, (call(4),), {"scale": 2.0})


@pytest.mark.slow
def test_aot_inductor_packages_the_export(tmp_path: Path) -> None:
    fast = stonefx.optimize(Model().eval(), (call(4),))
    exported = torch.export.export(fast, (call(4),), dynamic_shapes=SHAPES)
    path = torch._inductor.aoti_compile_and_package(exported, package_path=str(tmp_path / "model.pt2"))
    packaged = torch._inductor.aoti_load_package(path)
    for batch in (2, 7):
        arguments = call(batch)
        for one, other in zip(packaged(arguments), fast(arguments), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
