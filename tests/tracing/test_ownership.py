"""What `optimize` cannot own is refused, with the name of the tensor and what to do."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_forwards import chain, rows
from torch import nn
from torch.nn.utils import prune

import stonefx
from stonefx.tracing.ownership import owned


class Foreign(torch.Tensor):
    """A tensor of a library that forbids copies."""

    @staticmethod
    def __new__(cls, value: torch.Tensor) -> Any:
        return torch.Tensor._make_subclass(cls, value)

    def __deepcopy__(self, memo: Any) -> Any:
        raise RuntimeError("there is one of a kind")


def with_foreign_weight() -> nn.Module:
    model = chain()
    model[0]._parameters["weight"] = Foreign(torch.randn(64, 6))  # type: ignore[assignment]
    return model


def with_history() -> nn.Module:
    model = chain()
    model.cache = {"last": [chain()(rows())]}
    return model


def with_lock() -> nn.Module:
    model = chain()
    model.lock = threading.Lock()
    return model


def without_values() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 2))


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(chain())


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(chain(), rows())


REFUSED: list[tuple[Callable[[], nn.Module], str]] = [
    (with_foreign_weight, r"`0.weight` of Sequential is a Foreign, which cannot be copied\n  because .*one of a kind"),
    (with_history, r"`cache\['last'\]\[0\]` of Sequential is a Tensor, which cannot be copied(.|\n)*detach"),
    (with_lock, r"Sequential cannot be copied\n  because TypeError: cannot pickle '_thread.lock'"),
    (without_values, r"`0.weight` and 3 more of Sequential is a meta tensor, which has no values\n  .*to_empty"),
    (scripted, r"is a RecursiveScriptModule, a TorchScript module(.|\n)*Pass the nn.Module"),
    (traced, r"is a TopLevelTracedModule, a TorchScript module(.|\n)*Pass the nn.Module"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "message"), REFUSED)
def test_what_cannot_be_owned_is_named(build: Callable[[], nn.Module], message: str) -> None:
    for door in (stonefx.optimize, stonefx.explain):
        with pytest.raises(stonefx.CaptureError, match=message):
            door(build(), rows())


@pytest.mark.parametrize("build", [with_foreign_weight, with_history, with_lock, scripted])
def test_on_error_eager_runs_the_original(build: Callable[[], nn.Module]) -> None:
    model = build()
    with pytest.warns(stonefx.StonefxWarning, match="the original runs"):
        fast = stonefx.optimize(model, rows(), on_error="eager")
    torch.testing.assert_close(torch.Tensor(fast(rows())), torch.Tensor(model(rows())))
    assert "the original runs" in fast.report.notes[0]


def weight_normed(layer: nn.Linear) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(layer)


def pruned_again(layer: nn.Linear) -> None:
    prune.random_unstructured(layer, "weight", 0.3)
    prune.ln_structured(layer, "weight", 0.3, 2, 0)
    prune.l1_unstructured(layer, "bias", 0.3)


@pytest.mark.parametrize("release", [True, False])
@pytest.mark.parametrize(
    "change",
    [weight_normed, nn.utils.spectral_norm, lambda m: prune.l1_unstructured(m, "weight", 0.5), pruned_again],
)
def test_a_weight_that_a_hook_makes_before_each_forward(change: Callable[[Any], Any], release: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 32), nn.Linear(32, 3)).eval()
    change(model[2])
    model(rows()).sum().backward()  # the weight has a history from now on, which nothing can copy
    fast = stonefx.optimize(model, rows(), release=release, machine="default")
    torch.testing.assert_close(fast(rows(8)), model(rows(8)))
    model.zero_grad()
    for one in (fast, model):
        one(rows(8)).square().sum().backward()
    own = dict(fast.named_parameters())
    kept = [name for name in own if not name.startswith("_")]
    assert kept
    for name, parameter in model.named_parameters():
        if name in own:
            torch.testing.assert_close(own[name].grad, parameter.grad)


def test_an_argument_without_values_is_named() -> None:
    with pytest.raises(
        stonefx.CaptureError, match=r"the argument `input` is a meta tensor(.|\n)*torch.rand\(\(5, 6\)\)"
    ):
        stonefx.optimize(chain(), rows().to("meta"))


def test_a_forward_of_torch_itself_needs_no_signature() -> None:
    model = nn.Module()
    model.forward = torch.relu  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert torch.equal(stonefx.optimize(model, rows())(rows(8)), rows(8).relu())


def test_a_compiled_forward_runs_the_copys_own_weights() -> None:
    model = nn.Linear(6, 3)
    model.forward = torch.compile(model.forward, backend="eager")  # type: ignore[method-assign]
    copy = owned(model)
    with torch.no_grad():
        model.weight.zero_()
    assert not torch.equal(copy(rows()), model(rows())) and copy.forward.__self__ is copy
