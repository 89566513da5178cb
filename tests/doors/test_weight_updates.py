"""No stale weight is ever used: one test for each way that weights change under a compiled model."""

from __future__ import annotations

import copy
import inspect
import threading
from collections.abc import Callable

import pytest
import torch
from torch import nn

import stonefx
from stonefx.backend import collected_reports

EAGER = {"inner": "eager"}


def chain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 8))


@pytest.fixture(autouse=True)
def fresh_dynamo() -> None:
    torch._dynamo.reset()


def folded(model: nn.Module) -> Callable[..., torch.Tensor]:
    """The model compiled and called once, its weights folded."""
    compiled = torch.compile(model, backend="stone", options=EAGER)
    with torch.no_grad():
        compiled(torch.ones(3, 16))
    assert stonefx.last_report().rewritten("linear_chain"), stonefx.last_report()
    return compiled


def assert_fresh(compiled: Callable[..., torch.Tensor], model: nn.Module) -> None:
    weight = next(model.parameters())
    x = torch.randn(3, 16, dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        tolerance = 64 * torch.finfo(weight.dtype).eps
        torch.testing.assert_close(compiled(x), model(x), rtol=tolerance, atol=tolerance)


def add_in_place(model: nn.Sequential) -> None:
    with torch.no_grad():
        model[0].weight.add_(1.0)


def copy_in_place(model: nn.Sequential) -> None:
    with torch.no_grad():
        model[1].bias.copy_(torch.arange(8.0))


def add_in_inference_mode(model: nn.Sequential) -> None:
    with torch.inference_mode():
        model[0].weight.add_(1.0)


def changed_state(model: nn.Sequential) -> dict[str, torch.Tensor]:
    return {name: value + 1.0 for name, value in model.state_dict().items()}


def load_state_dict(model: nn.Sequential) -> None:
    model.load_state_dict(changed_state(model))


def load_state_dict_assign(model: nn.Sequential) -> None:
    model.load_state_dict(changed_state(model), assign=True)


def new_parameter(model: nn.Sequential) -> None:
    model[1].weight = nn.Parameter(torch.randn(8, 64))


def set_data(model: nn.Sequential) -> None:
    model[0].weight.data = torch.randn(64, 16)


def vector_to_parameters(model: nn.Sequential) -> None:
    size = sum(parameter.numel() for parameter in model.parameters())
    nn.utils.vector_to_parameters(torch.randn(size) / 8, model.parameters())


def to_double(model: nn.Sequential) -> None:
    model.to(torch.float64)


def to_bfloat16_and_back(model: nn.Sequential) -> None:
    model.to(torch.bfloat16).to(torch.float32)


def swap(model: nn.Sequential) -> None:
    for layer in model:
        torch.utils.swap_tensors(layer.weight, nn.Parameter(torch.randn_like(layer.weight)))


def to_double_by_swapping(model: nn.Sequential) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def load_by_swapping(model: nn.Sequential) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        load_state_dict(model)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def prune(model: nn.Sequential) -> None:
    mask = torch.zeros(64, 16)
    mask[::2] = 1
    with torch.no_grad():
        model[0].weight *= mask


UPDATES = [
    add_in_place,
    copy_in_place,
    add_in_inference_mode,
    load_state_dict,
    load_state_dict_assign,
    new_parameter,
    set_data,
    vector_to_parameters,
    to_double,
    to_bfloat16_and_back,
    swap,
    to_double_by_swapping,
    load_by_swapping,
    prune,
]


@pytest.mark.parametrize("update", UPDATES, ids=lambda update: update.__name__)
def test_an_update_is_seen(update: Callable[[nn.Sequential], None]) -> None:
    model = chain()
    compiled = folded(model)
    assert_fresh(compiled, model)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    update(model)
    changed = [not torch.equal(a, b.to(a.dtype)) for a, b in zip(before, model.parameters(), strict=True)]
    assert any(changed) or update in (to_double, to_double_by_swapping)
    assert_fresh(compiled, model)


def test_new_data_at_the_old_address_is_seen() -> None:
    """Same Parameter, same version, same address: only the storage is another."""
    model = chain()
    compiled = folded(model)
    weight = model[0].weight
    repeated = 0
    for _ in range(64):
        before = (weight._version, weight.data_ptr())
        weight.data = torch.empty(0)
        weight.data = torch.randn(64, 16)
        repeated += before == (weight._version, weight.data_ptr())
        assert_fresh(compiled, model)
    assert repeated, "the allocator gave no address twice; the test shows nothing"


def test_a_parameter_that_takes_the_place_of_a_dead_one_is_seen() -> None:
    """Same identity, version, storage and address: only the tensor is another."""
    repeated = 0
    for _ in range(64):
        torch._dynamo.reset()
        model = chain().requires_grad_(False)
        compiled = folded(model)
        weight = model[0].weight
        version = weight._version
        memory, identity = weight.data, id(weight)
        for _ in range(version):
            memory.mul_(1.5)
        del weight, model[0].weight
        model[0].weight = nn.Parameter(memory, requires_grad=False)
        del memory
        assert model[0].weight._version == version
        repeated += identity == id(model[0].weight)
        assert_fresh(compiled, model)
        if repeated:
            return
    raise AssertionError("no identity came back; the test shows nothing")


OPTIMIZERS = [
    name
    for name, item in vars(torch.optim).items()
    if inspect.isclass(item)
    and issubclass(item, torch.optim.Optimizer)
    and name not in ("Optimizer", "SparseAdam")
]


def variants() -> list[tuple[str, dict[str, bool]]]:
    found: list[tuple[str, dict[str, bool]]] = []
    for name in OPTIMIZERS:
        accepted = inspect.signature(getattr(torch.optim, name)).parameters
        found.append((name, {}))
        found += [(name, {flag: True}) for flag in ("foreach", "fused") if flag in accepted]
    return found


@pytest.mark.parametrize(("name", "flags"), variants(), ids=lambda value: str(value))
def test_a_step_of_every_optimizer_is_seen(name: str, flags: dict[str, bool]) -> None:
    model = chain()
    compiled = folded(model)
    matrices = [p for p in model.parameters() if p.dim() == 2 or name != "Muon"]
    optimizer = getattr(torch.optim, name)(matrices, lr=0.1, **flags)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(4, 16)).square().mean()
        loss.backward()
        return loss

    before = model[0].weight.detach().clone()
    for _ in range(2):
        closure()
        optimizer.step(closure)
        assert_fresh(compiled, model)
    assert not torch.equal(before, model[0].weight)


def test_a_sparse_optimizer_step_is_seen() -> None:
    model = chain()
    compiled = folded(model)
    optimizer = torch.optim.SparseAdam([model[0].weight], lr=0.1)
    model[0].weight.grad = torch.ones(64, 16).to_sparse()
    optimizer.step()
    assert_fresh(compiled, model)


def test_one_graph_serves_several_instances_of_a_block() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers(x)

    torch.manual_seed(0)
    blocks = [Block() for _ in range(3)]
    originals = copy.deepcopy(blocks)
    with collected_reports() as made:
        for block in blocks:
            block.compile(backend="stone", options=EAGER)
        for _ in range(2):
            for block, original in zip(blocks, originals, strict=True):
                assert_fresh(block, original)
            for block, original in zip(blocks, originals, strict=True):
                with torch.no_grad():
                    block.layers[0].weight.mul_(2)
                    original.layers[0].weight.mul_(2)
    assert len(made) == 1, "the instances no longer share one graph; the test shows nothing"


def test_weights_with_attributes_of_their_own_are_followed() -> None:
    """An attribute may lead back to the weight; then nothing else may keep it alive."""
    import gc
    import weakref

    model = chain()
    model[0].weight.owner = model
    compiled = folded(model)
    for _ in range(2):
        model[0].weight = nn.Parameter(torch.randn(64, 16))
        model[0].weight.owner = model
        assert_fresh(compiled, model)
    weight = weakref.ref(model[0].weight)
    del model, compiled
    torch._dynamo.reset()
    gc.collect()
    assert weight() is None


def test_two_threads_call_at_once() -> None:
    torch.manual_seed(0)
    models = [chain() for _ in range(2)]
    with torch.no_grad():
        models[1][0].weight.mul_(3)
    compiled = [torch.compile(model, backend="stone", options=EAGER) for model in models]
    for call, model in zip(compiled, models, strict=True):
        assert_fresh(call, model)
    failures: list[BaseException] = []

    def work(index: int) -> None:
        try:
            for _ in range(50):
                with torch.no_grad():
                    models[index][1].weight.add_(0.01)
                assert_fresh(compiled[index], models[index])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def scale_data(model: nn.Sequential) -> None:
    model[0].weight.data.mul_(2)


def write_through_numpy(model: nn.Sequential) -> None:
    model[0].weight.detach().numpy()[:] *= 2


@pytest.mark.parametrize("update", [scale_data, write_through_numpy], ids=lambda update: update.__name__)
def test_invalidate_covers_what_no_counter_shows(update: Callable[[nn.Sequential], None]) -> None:
    model = chain()
    compiled = folded(model)
    update(model)
    stonefx.invalidate(model)
    assert_fresh(compiled, model)


def test_invalidate_refuses_a_model_that_owns_its_weights() -> None:
    fast = stonefx.optimize(chain(), torch.ones(2, 16))
    with pytest.raises(TypeError, match=r"came out of stonefx\.optimize and owns a folded copy"):
        stonefx.invalidate(fast)


def test_weights_without_a_version_counter_are_not_folded() -> None:
    with torch.inference_mode():
        model = chain()
    compiled = torch.compile(model, backend="stone", options=EAGER)
    with torch.inference_mode(), pytest.warns(stonefx.StonefxWarning, match="rewrote nothing"):
        x = torch.ones(3, 16)
        compiled(x)
        model[0].weight.mul_(2)
        torch.testing.assert_close(compiled(x), model(x))
    (site,) = stonefx.last_report().sites
    assert "the weight '0.weight' is not folded: it was made in inference mode" in site.reason


def test_dead_weights_are_let_go() -> None:
    import gc
    import weakref

    model = chain()
    compiled = folded(model)
    model[0].weight.data = torch.randn(64, 16)
    assert_fresh(compiled, model)
    weight = weakref.ref(model[0].weight)
    del model, compiled
    torch._dynamo.reset()
    gc.collect()
    assert weight() is None
