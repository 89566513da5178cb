"""What a model returns, and what it draws, is compared with the original's whatever kind it is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_forwards import Forward, rows
from torch import nn

import stonefx
from stonefx.optimized.whole import verify_whole
from stonefx.passes.site import RewriteError
from stonefx.report import Report


def compressed(layout: torch.layout, *block: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda y: y.to_sparse(layout=layout, **({"blocksize": block} if block else {}))


def complex_of(y: torch.Tensor) -> torch.Tensor:
    return torch.complex(y, y + 1)


RESULTS: dict[str, Callable[[torch.Tensor], Any]] = {
    "coo": compressed(torch.sparse_coo),
    "csr": compressed(torch.sparse_csr),
    "csc": compressed(torch.sparse_csc),
    "bsr": compressed(torch.sparse_bsr, 1, 3),
    "hybrid": lambda y: torch.sparse_coo_tensor(torch.tensor([[0, 1]]), y[:2], (4, 3)),
    "mkldnn": lambda y: y.to_mkldnn(),
    "nested": lambda y: torch.nested.as_nested_tensor([y, y[:2]], layout=torch.jagged),
    "complex": complex_of,
    "conjugate": lambda y: complex_of(y).conj(),
    "quantised": lambda y: torch.quantize_per_tensor(y, 0.1, 0, torch.qint8),
    "float8": lambda y: y.to(torch.float8_e4m3fn),
    "meta": lambda y: (y, y.to("meta")),
    "none": lambda y: (y[:0], None),
}


def values(result: Any) -> torch.Tensor:
    result = result[0] if isinstance(result, tuple) else result
    result = result.values() if result.is_nested else result
    return result.to_dense().dequantize() if result.is_quantized else result.to_dense()


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_of_any_layout(name: str) -> None:
    model = Forward(lambda m, x: RESULTS[name](m.chain(x))).eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that CSR and nested tensors are new
        fast = stonefx.optimize(model, rows(), machine="default")
        came, expected = fast(rows()), model(rows())
    assert fast.report.rewritten()
    got, wanted = values(came), values(expected)
    if name == "float8":
        got, wanted = got.float(), wanted.float()
    rtol, atol = 0.2 if name == "float8" else 1e-5, 0.11 if name == "quantised" else 1e-5
    torch.testing.assert_close(got, wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    "kind", ["coo", "csr", "csc", "bsr", "hybrid", "mkldnn", "nested", "complex", "conjugate"]
)
def test_a_difference_in_any_layout_is_one(kind: str) -> None:
    y = rows()[:, :3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right, wrong = RESULTS[kind](y), RESULTS[kind](y + torch.eye(5, 3))
    verify_whole(right, right, Report())
    with pytest.raises(RewriteError, match="differs from the original at result"):
        verify_whole(right, wrong, Report())


@pytest.mark.parametrize("holder", [lambda g: g, lambda g: [g], lambda g: {"noise": (g,)}])
def test_a_generator_of_the_models_own_is_left_as_it_was(holder: Callable[[Any], Any]) -> None:
    def found(value: Any) -> Any:
        while not isinstance(value, torch.Generator):
            value = value["noise"] if isinstance(value, dict) else value[0]
        return value

    def noisy(model: Any, x: torch.Tensor) -> torch.Tensor:
        return model.chain(x) + torch.randn(3, generator=found(model.generator))

    generator = torch.Generator().manual_seed(3)
    model = Forward(noisy, generator=holder(generator)).eval()
    state = generator.get_state()
    fast = stonefx.optimize(model, rows(), machine="default")
    assert torch.equal(state, generator.get_state())
    for count in (5, 8):
        torch.testing.assert_close(fast(rows(count)), model(rows(count)))


@pytest.mark.parametrize("planted", ["weight", "bias", "input"])
def test_an_infinity_in_the_model_or_its_input_is_no_failure(planted: str) -> None:
    def forward(model: Any, x: torch.Tensor) -> torch.Tensor:
        v = model.linear(x)
        norm = v.norm(dim=-1, keepdim=True).clamp_min(1e-15)
        point = torch.tanh(norm) * v / norm
        length = point.norm(dim=-1, keepdim=True).clamp_min(1e-15)
        return torch.atanh(length.clamp(max=1 - 1e-7)) * point / length

    model, x = Forward(forward, linear=nn.Linear(16, 16)).eval(), torch.randn(50, 16) / 4
    with torch.no_grad():
        (x if planted == "input" else getattr(model.linear, planted)).view(-1)[1] = torch.inf
    fast = stonefx.optimize(model, x)
    assert fast.report.rewritten()
    with torch.no_grad():
        finite = model(x).isfinite()
        torch.testing.assert_close(fast(x)[finite], model(x)[finite], rtol=1e-4, atol=1e-5)


class Distance(nn.Module):
    """Of points of the ball, and of others where it has none."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x2, y2, xy = (s.sum(-1, keepdim=True) for s in (x * x, y * y, -x * y))
        between = (-(1 + 2 * xy + y2) * x + (1 - x2) * y) / (1 + 2 * xy + x2 * y2)
        return 2 * torch.atanh(between.norm(dim=-1))


def test_points_outside_of_the_ball_are_no_failure() -> None:
    rows = torch.nn.functional.normalize(
        torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    x, y = rows[0] * torch.linspace(0.15, 1.55, 8)[:, None], rows[1] * 0.5
    fast = stonefx.optimize(Distance(), (x, y))
    assert fast.report.rewritten("poincare_dist")
    expected, found = Distance()(x, y), fast(x, y)
    assert expected.isnan().any()
    assert torch.equal(found.isfinite(), expected.isfinite())
    torch.testing.assert_close(found[found.isfinite()], expected[expected.isfinite()], rtol=1e-5, atol=1e-6)
