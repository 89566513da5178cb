"""`stonefx.save` and `stonefx.load`: what comes back is what was saved."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from saved_models import CASES, Branching, Case, Hyperbolic, Positional, Tied, x
from saved_replay import flat
from torch import nn

import stonefx


def optimized(case: Case) -> nn.Module:
    torch.manual_seed(0)
    fast = stonefx.optimize(case.make().train(case.train), inner=case.inner)
    args, kwargs = case.call(4)
    with warnings.catch_warnings(action="ignore"):
        fast(*args, **kwargs)
    return fast


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[nn.Module, Path]]:
    folder = tmp_path_factory.mktemp("saved")
    done = {}
    for name, case in CASES.items():
        fast = optimized(case)
        done[name] = fast, stonefx.save(fast, folder / f"{name}.safetensors")
    return done


def same(first: Any, second: Any) -> None:
    if is_dataclass(first):
        assert type(first) is type(second)
        first, second = vars(first), vars(second)
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            same(first[key], second[key])
    elif isinstance(first, tuple):
        assert type(first) is type(second) and len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            same(one, other)
    elif isinstance(first, torch.Tensor):
        assert first.dtype == second.dtype and torch.equal(first, second)
    else:
        assert first == second


@pytest.mark.parametrize("name", CASES)
def test_the_loaded_model_computes_the_same_on_every_batch_size(name: str, saved: Any) -> None:
    fast, path = saved[name]
    fast = copy.deepcopy(fast)
    loaded = stonefx.load(path)
    for batch in CASES[name].batches:
        args, kwargs = CASES[name].call(batch)
        same(loaded(*args, **kwargs), fast(*args, **kwargs))
    same(dict(loaded.named_buffers()), dict(fast.named_buffers()))


@pytest.mark.parametrize("name", CASES)
def test_names_flags_and_report_come_back(name: str, saved: Any) -> None:
    fast, path = saved[name]
    loaded = stonefx.load(path)
    assert list(loaded.state_dict()) == list(fast.state_dict())
    for (key, value), (other, original) in zip(
        loaded.named_parameters(remove_duplicate=False),
        fast.named_parameters(remove_duplicate=False),
        strict=True,
    ):
        assert key == other and value.requires_grad == original.requires_grad
        assert value.stride() == original.stride()
    assert loaded.training == fast.training == CASES[name].train
    assert type(loaded).__name__ == type(fast).__name__
    assert loaded.report.to_json() == fast.report.to_json() and str(loaded.report) == str(fast.report)
    loaded.load_state_dict(fast.state_dict())


def test_the_files_load_in_another_process(saved: Any) -> None:
    for name, (fast, path) in saved.items():
        args, kwargs = CASES[name].call(4)
        with torch.no_grad():
            torch.save(((args, kwargs), copy.deepcopy(fast)(*args, **kwargs)), path.with_suffix(".results"))
    script = Path(__file__).with_name("saved_replay.py")
    done = subprocess.run(
        [sys.executable, str(script), str(path.parent)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(CASES)


@pytest.mark.slow
def test_a_model_over_inductor_comes_back(tmp_path: Path) -> None:
    case = Case(Hyperbolic, lambda b: ((x(b),), {}), inner="inductor")
    fast = optimized(case)
    loaded = stonefx.load(stonefx.save(fast, tmp_path / "model"))
    for batch in (4, 2, 7):
        args, kwargs = case.call(batch)
        same(loaded(*args, **kwargs), fast(*args, **kwargs))


@pytest.mark.parametrize("name", ["bodies", "aot_bodies", "aot_sizes", "structured"])
def test_a_loaded_model_that_is_saved_again_has_the_same_results_and_gradients(
    name: str, saved: Any, tmp_path: Path
) -> None:
    fast, path = saved[name]
    again = stonefx.load(stonefx.save(stonefx.load(path), tmp_path / "twice"))
    for batch in CASES[name].batches:
        args, kwargs = CASES[name].call(batch)
        grads = []
        for model in (copy.deepcopy(fast), again):
            model.zero_grad()
            result = flat(model(*args, **kwargs))
            sum(tensor.square().sum() for tensor in result if tensor.requires_grad).backward()
            grads.append([*result, *(parameter.grad for parameter in model.parameters())])
        for one, other in zip(*grads, strict=True):
            assert one is not None and torch.equal(one, other)


def test_a_loaded_model_trains_copies_and_is_saved_again(tmp_path: Path) -> None:
    model = Positional().eval()
    fast = stonefx.optimize(model, (x(4), x(4)))
    loaded = stonefx.load(stonefx.save(fast, tmp_path / "once"))
    again = stonefx.load(stonefx.save(copy.deepcopy(loaded), tmp_path / "twice"))
    args = x(3), x(3)
    fast(*args).square().sum().backward()
    again(*args).square().sum().backward()
    for (name, one), (other, two) in zip(fast.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and one.grad is not None
        torch.testing.assert_close(one.grad, two.grad, rtol=0, atol=0)
    with pytest.raises(
        ValueError, match=r"`flag` was True at capture.*not the original forward; call stonefx\.opt"
    ):
        loaded(*args, False)


def test_a_branch_on_a_buffer_is_taken_as_it_was_or_refused(saved: Any) -> None:
    loaded = stonefx.load(saved["deciding"][1])
    value = x(3)
    loaded.k.mul_(0.9)
    assert loaded(value).shape == (3, 8)
    loaded.k.neg_()
    with pytest.raises(
        ValueError, match=r"depends on `a branch on k at .*saved_models\.py:.*it was True at capture"
    ):
        loaded(value)


def test_tied_weights_stay_tied(saved: Any) -> None:
    loaded = stonefx.load(saved["tied"][1])
    assert loaded.head.weight is loaded.embedding.weight
    with safe_open(saved["tied"][1], framework="pt") as file:
        assert "embedding.weight" in file.keys() and "head.weight" not in file.keys()  # noqa: SIM118


def test_other_readers_of_safetensors_find_the_weights(saved: Any) -> None:
    fast, path = saved["chain"]
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["format"] == "pt"
        for name, value in fast.state_dict().items():
            stored = file.get_tensor(name)
            assert sorted(stored.shape) == sorted(value.shape) and stored.sum() == pytest.approx(
                value.sum().item()
            )


def test_an_optimized_submodule_goes_into_a_model_made_by_its_code(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Branching().eval()
    fast = stonefx.optimize(model, x(4).abs())
    assert fast.report.rewritten()
    path = stonefx.save(fast, tmp_path / "model")
    with pytest.raises(
        TypeError, match=r"submodules of a Branching, whose own forward is Python code.*load\(path, m"
    ):
        stonefx.load(path)
    fresh = Branching()
    loaded = stonefx.load(path, fresh)
    assert list(loaded.state_dict()) == list(fast.state_dict()) and not loaded.training
    for value in (x(3).abs(), -x(5).abs()):
        same(loaded(value), fast(value))
    assert str(loaded.report) == str(fast.report)
    assert fresh.training and not torch.equal(fresh.second[0].weight, model.second[0].weight)
    with pytest.raises(TypeError, match=r"submodules of a Branching, got a Tied to put them in"):
        stonefx.load(path, Tied())
    with pytest.raises(
        TypeError, match=r"shape \[16, 8\], and in .*model \[64, 8\]; make the model with the argum"
    ):
        stonefx.load(path, Branching(16))
