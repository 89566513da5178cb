"""Weights in memory that others can write without a trace are not folded, and the report says so."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

import stonefx
from stonefx.backend import collected_reports

# The file of a test, and the model, to a function that doubles the weights or some of them.
Share = Callable[[nn.Sequential, Path], Callable[[], Any]]


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 8)).requires_grad_(False).eval()


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


def compiled(model: nn.Module, inner: str = "eager") -> Callable[..., torch.Tensor]:
    return torch.compile(model, backend="stone", options={"inner": inner})


def assert_fresh(fast: Callable[..., torch.Tensor], model: nn.Module) -> None:
    weight = next(model.parameters())
    x = torch.randn(3, 16, dtype=weight.dtype)
    with torch.no_grad(), warnings.catch_warnings(action="ignore", category=stonefx.StonefxWarning):
        tolerance = 64 * torch.finfo(weight.dtype).eps
        torch.testing.assert_close(fast(x), model(x), rtol=tolerance, atol=tolerance)


def flat_buffer(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    flat = nn.utils.parameters_to_vector(model.parameters())
    nn.utils.vector_to_parameters(flat, model.parameters())
    return lambda: flat.mul_(2)


def flat_buffer_of_one(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    flat = model[0].weight.flatten().clone()
    nn.utils.vector_to_parameters(flat, [model[0].weight])
    return lambda: flat[5:7].mul_(2)


def flattened_dense_tensors(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    parameters = list(model.parameters())
    flat = _flatten_dense_tensors(parameters)
    for parameter, part in zip(parameters, _unflatten_dense_tensors(flat, parameters), strict=True):
        parameter.data = part
    return lambda: flat.mul_(2)


def neighbour_in_a_buffer(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    both = torch.randn(128, 16)
    model[0].weight.data = both[:64]
    return lambda: both[:64].mul_(2)


def shared_memory(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    model.share_memory()
    return lambda: model[0].weight.data[3].mul_(2)


def from_numpy(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    array = numpy.random.default_rng(0).standard_normal((64, 16)).astype("float32")
    model[0].weight = nn.Parameter(torch.from_numpy(array), requires_grad=False)
    return lambda: numpy.multiply(array[3], 2, out=array[3])


def from_buffer(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    memory = bytearray(model[1].weight.numpy().tobytes())
    model[1].weight.data = torch.frombuffer(memory, dtype=torch.float32).view(8, 64)

    def write() -> None:
        memory[8:12] = torch.ones(1).numpy().tobytes()

    return write


def from_dlpack(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    array = model[0].weight.numpy().copy()
    model[0].weight.data = torch.from_dlpack(array)
    return lambda: numpy.multiply(array[3], 2, out=array[3])


def from_file(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    storage = torch.UntypedStorage.from_file(str(folder / "weights"), shared=True, nbytes=64 * 16 * 4)
    held = torch.tensor([]).set_(storage).view(64, 16)
    held.copy_(model[0].weight)
    model[0].weight.data = torch.tensor([]).set_(storage).view(64, 16)
    return lambda: held[3].mul_(2)


def data_alias(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    alias = model[1].weight.data
    return lambda: alias[:, 3].mul_(2)


def alias_of_a_bias(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    alias = model[0].bias.data
    return lambda: alias.mul_(2)


def numpy_alias(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    array = model[0].weight.numpy()
    return lambda: numpy.multiply(array[3], 2, out=array[3])


def passing_numpy_alias(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    def write() -> None:
        model[0].weight.numpy()[3] *= 2

    return write


def alias_by_dlpack(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    alias = torch.from_dlpack(model[0].weight.detach())
    return lambda: alias[3].mul_(2)


def storage_object(model: nn.Sequential, folder: Path) -> Callable[[], Any]:
    storage = model[0].weight.untyped_storage()
    return lambda: storage.copy_((2 * model[0].weight).untyped_storage())


LASTING: list[Share] = [
    flat_buffer,
    flattened_dense_tensors,
    neighbour_in_a_buffer,
    shared_memory,
    from_numpy,
    from_buffer,
    from_dlpack,
    from_file,
    numpy_alias,
]
PASSING: list[Share] = [
    flat_buffer_of_one,
    data_alias,
    alias_of_a_bias,
    alias_by_dlpack,
    storage_object,
]


def by_name(share: Share) -> str:
    return share.__name__


@pytest.mark.parametrize("share", LASTING + PASSING, ids=by_name)
def test_weights_that_others_can_write_are_not_folded(share: Share, tmp_path: Path) -> None:
    model = chain()
    write = share(model, tmp_path)
    fast = compiled(model)
    assert_fresh(fast, model)
    before = model(torch.ones(3, 16))
    for _ in range(2):
        write()
        assert_fresh(fast, model)
    assert not torch.equal(before, model(torch.ones(3, 16)))
    report = stonefx.last_report()
    if share in LASTING:
        (site,) = report.sites
        assert site.status == "refused" and "is not folded: it" in site.reason
    else:
        (note,) = report.notes
        assert note.startswith("the original graph runs for some weights: the weight '")
        assert note.endswith("is not folded: another tensor, array or storage object holds its memory")


@pytest.mark.parametrize("share", [*LASTING, *PASSING, passing_numpy_alias], ids=by_name)
def test_folds_are_given_up_when_others_come_to_hold_the_weights(share: Share, tmp_path: Path) -> None:
    model = chain()
    fast = compiled(model)
    assert_fresh(fast, model)
    assert stonefx.last_report().rewritten("linear_chain")
    write = share(model, tmp_path)
    assert_fresh(fast, model)
    for _ in range(2):
        write()
        assert_fresh(fast, model)
    (note,) = stonefx.last_report().notes
    assert note.startswith("the original graph runs for some weights: the weight '"), note


@pytest.mark.parametrize("share", [data_alias, storage_object, alias_by_dlpack], ids=by_name)
def test_weights_are_folded_again_when_they_are_held_alone(
    share: Share, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folded: list[int] = []
    evaluate = stonefx.runtime.evaluate_folds
    monkeypatch.setattr(stonefx.runtime, "evaluate_folds", lambda *args: folded.append(1) or evaluate(*args))
    model = chain()
    fast = compiled(model)
    write = share(model, tmp_path)
    assert_fresh(fast, model)
    assert not folded
    write()
    del write
    for _ in range(3):
        assert_fresh(fast, model)
    assert folded == [1]


def scale_data(model: nn.Sequential) -> None:
    model[0].weight.data.mul_(2)


def copy_into_storage(model: nn.Sequential) -> None:
    model[0].weight.untyped_storage().copy_((2 * model[0].weight).untyped_storage())


def fill_storage(model: nn.Sequential) -> None:
    model[1].bias.untyped_storage().fill_(1)


@pytest.mark.parametrize("write", [scale_data, copy_into_storage, fill_storage], ids=by_name)
def test_writes_to_all_of_a_weight_show(write: Callable[[nn.Sequential], None]) -> None:
    model = chain()
    fast = compiled(model)
    assert_fresh(fast, model)
    write(model)
    assert_fresh(fast, model)


def test_only_what_reads_such_a_weight_is_left() -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(16, 64), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 64), nn.Linear(64, 8)]
    model = nn.Sequential(*parts).requires_grad_(False).eval()
    model[1].share_memory()
    assert_fresh(compiled(model), model)
    sites = stonefx.last_report().sites
    assert [site.status for site in sites].count("rewritten") == 1
    (refused,) = (site for site in sites if site.code == "untraced")
    assert refused.reason == (
        "the weight '1.weight' is not folded: it lies in shared memory, which other processes may write"
    )


@pytest.mark.parametrize("inner", ["eager", "inductor"])
def test_one_graph_serves_weights_that_are_shared_and_others(inner: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 16)).requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    torch.manual_seed(0)
    blocks = [Block().eval() for _ in range(3)]
    originals = copy.deepcopy(blocks)
    blocks[1].share_memory()
    alias = blocks[2].layers[0].weight.data
    with collected_reports() as made:
        for block in blocks:
            block.compile(backend="stone", options={"inner": inner})
        for _ in range(2):
            for block, original in zip(blocks, originals, strict=True):
                assert_fresh(block, original)
            blocks[1].layers[0].weight.data[3].mul_(2)
            originals[1].layers[0].weight[3].mul_(2)
            alias[3].mul_(2)
            originals[2].layers[0].weight[3].mul_(2)
    assert len(made) == 1, "the instances no longer share one graph; the test shows nothing"
    assert made[0].rewritten("linear_chain") and len(made[0].notes) == 1


def test_what_optimize_owns_is_folded_whoever_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between graph breaks; a history of gradients that is alive holds the transposed weights."""

    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = chain().requires_grad_(True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            torch._dynamo.graph_break()
            return self.layers(x)

    refused: list[str] = []
    monkeypatch.setattr(stonefx.backend, "_note_original", lambda report, reason: refused.append(reason))
    model = Breaks().eval()
    fast = stonefx.optimize(model, torch.randn(3, 16))
    held = fast(torch.randn(3, 16, requires_grad=True))
    for _ in range(2):
        assert_fresh(fast, model)
    assert held.grad_fn is not None and not refused
    assert fast.report.rewritten("linear_chain")


def test_the_original_is_no_recompile() -> None:
    """It runs under settings that allow none, as the folds did."""
    model = chain()
    fast = compiled(model, "inductor")
    assert_fresh(fast, model)
    alias = model[0].weight.data
    with torch.compiler.set_stance("fail_on_recompile"), torch._dynamo.config.patch(error_on_recompile=True):
        assert_fresh(fast, model)
        alias.mul_(2)
        assert_fresh(fast, model)


def test_the_original_takes_sizes_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stonefx.inner, "_MOST_SIZES", 2)
    model = chain()
    fast = torch.compile(model, backend="stone", options={"inner": "inductor"}, dynamic=True)
    alias = model[0].weight.data
    for batch in (3, 5, 7, 3, 7):
        alias.mul_(1.5)
        x = torch.randn(batch, 16)
        with warnings.catch_warnings(action="ignore", category=stonefx.StonefxWarning):
            torch.testing.assert_close(fast(x), model(x))


def test_parameters_passed_to_functional_call_follow_their_values() -> None:
    model = chain()
    fast = compiled(model)
    assert_fresh(fast, model)
    x = torch.randn(3, 16)
    for factor in (1.0, 2.0, 3.0):
        parameters = {name: factor * value for name, value in model.named_parameters()}
        detached = {name: value.detach() for name, value in model.named_parameters()}
        for given in (parameters, detached):
            want = torch.func.functional_call(model, given, x)
            with warnings.catch_warnings(action="ignore", category=stonefx.StonefxWarning):
                torch.testing.assert_close(torch.func.functional_call(fast, given, x), want)
