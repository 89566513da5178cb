"""Inputs that do not fit, models that nothing can be captured of, and parts that are left as they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import stonefx
from stonefx.tracing.errors import ModelError
from stonefx.tracing.own_errors import model_error


def two(width: int = 6, hidden: int = 64, out: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.Linear(hidden, out)).eval()


class Asserts(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != 4:
            raise AssertionError(f"expected 4 columns, got {x.shape[1]}")
        return x * 2


class Raises(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


MISFITS: list[tuple[Callable[[], nn.Module], tuple[torch.Tensor, ...], str]] = [
    (two, (torch.ones(5, 7),), "mat1 and mat2 shapes cannot be multiplied (5x7 and 6x64)"),
    (two, (torch.ones(5, 6), torch.ones(5, 6)), "takes 2 positional arguments but 3 were given"),
    (two, (torch.ones(5, 6, dtype=torch.int64),), "dtype"),
    (lambda: nn.Embedding(4, 3), (torch.full((2,), 9),), "index out of range in self"),
    (lambda: nn.Conv2d(3, 4, 3), (torch.ones(1, 2, 8, 8),), "to have 3 channels, but got 2 channels instead"),
    (lambda: nn.LSTM(8, 4), (torch.ones(5, 2, 6),), "input.size(-1) must be equal to input_size. Expected 8, got 6"),
    (Asserts, (torch.ones(5, 3),), "AssertionError: expected 4 columns, got 3"),
    (Raises, (torch.ones(5, 3),), "NotImplementedError: without a message"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "inputs", "message", "door"),
    [*((*misfit, stonefx.optimize) for misfit in MISFITS), (*MISFITS[0], stonefx.explain)],
)
def test_inputs_that_do_not_fit_give_the_models_own_error(
    make: Callable[[], nn.Module], inputs: tuple[torch.Tensor, ...], message: str, door: Callable[..., object]
) -> None:
    with pytest.raises(ModelError) as caught:
        door(make(), inputs)
    assert message in str(caught.value).splitlines()[-1]
    assert len(str(caught.value).splitlines()) <= 6
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_script_that_passes_wrong_inputs_prints_a_short_traceback() -> None:
    code = (
        "import stonefx, torch; from torch import nn; "
        "stonefx.optimize(nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3)), torch.randn(5, 7))"
    )
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert len(text.strip().splitlines()) < 25, text
    assert "(5x7 and 6x9)" in text.strip().splitlines()[-1]


def test_at_the_first_call_of_a_lazy_model_too() -> None:
    fast = stonefx.optimize(two())
    with pytest.raises(ModelError, match="5x7 and 6x64"):
        fast(torch.ones(5, 7))
    assert fast(torch.ones(5, 6)).shape == (5, 3)


def test_what_the_model_does_to_its_state_before_it_raises_is_undone() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            self.seen += 1
            raise ValueError("no")

    model = Counts()
    error = model_error(model, (torch.ones(1),), {})
    assert error is not None and str(error).endswith("ValueError: no")
    assert model.calls == 0 and model.seen == 0
    assert model_error(two(), (torch.ones(5, 6),), {}) is None


def traced() -> nn.Module:
    return torch.jit.trace(two(3), torch.ones(5, 3))


def scripted() -> nn.Module:
    return torch.jit.script(two(3))


def builtin() -> nn.Module:
    part = nn.ReLU()
    part.forward = F.relu_  # type: ignore[method-assign, assignment]
    return part


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [traced, scripted, builtin])
def test_a_part_that_is_no_python_is_left_as_it_is(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(two(), make(), two(3)).eval(), torch.randn(5, 6)
    fast = stonefx.optimize(model, x)
    assert len(fast.report.rewritten("linear_chain")) == 2
    for rows in (5, 1, 8):
        probe = torch.randn(rows, 6)
        torch.testing.assert_close(fast(probe), model(probe), rtol=1e-4, atol=1e-5)
    assert len(stonefx.explain(model, x).rewritten("linear_chain")) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [traced, scripted])
def test_a_whole_that_is_no_python_is_refused_with_what_to_do(make: Callable[[], nn.Module]) -> None:
    for door in (stonefx.optimize, stonefx.explain):
        with pytest.raises(stonefx.CaptureError, match=r"Pass the nn\.Module that it was scripted"):
            door(make(), torch.ones(5, 3))


@pytest.mark.parametrize("function", [torch.relu, torch.sigmoid, F.gelu])
def test_a_forward_that_is_builtin_runs(function: Callable[..., torch.Tensor]) -> None:
    model = nn.Identity()
    model.forward = function  # type: ignore[method-assign]
    fast = stonefx.optimize(model, torch.randn(5, 3))
    x = torch.randn(7, 3)
    assert torch.equal(fast(x), function(x))


def test_layers_are_named_where_no_line_of_the_user_is_known() -> None:
    (site,) = stonefx.optimize(two(), torch.ones(5, 6)).report.sites
    assert (site.module_path, site.source) == ("0, 1", "")
    deep = nn.Sequential(*(nn.Linear(8, 8) for _ in range(7))).eval()
    (site,) = stonefx.optimize(deep, torch.ones(5, 8)).report.sites
    assert site.module_path == "0, 1, 2, 3, ..., 6"
    nested = nn.Sequential(two(), nn.ReLU(), two(3)).eval()
    sites = stonefx.optimize(nested, torch.ones(5, 6)).report.sites
    assert [site.module_path for site in sites if site.code != "nonlinear"] == ["0", "2"]
    (between,) = (site for site in sites if site.code == "nonlinear")
    assert between.module_path == "0.0, 0.1, 2.0"
