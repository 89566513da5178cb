"""What shows on weights, by the compiled look at them and by the general one."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import nn

from stonefx import unchanged as module
from stonefx.native import calls
from stonefx.unchanged import unchanged


@pytest.fixture(params=["compiled", "general"], autouse=True)
def look(request, monkeypatch):
    if request.param == "general":
        monkeypatch.setattr(module, "calls", lambda: "not asked for")
    elif isinstance(calls(), str):
        pytest.skip(calls())


def nothing(_):
    pass


def weights():
    torch.manual_seed(0)
    return [
        nn.Parameter(torch.randn(8, 8)),
        nn.Parameter(torch.randn(3)),
        torch.randn(2, 2, dtype=torch.bfloat16),
    ]


def test_what_nobody_touched_is_unchanged():
    given = weights()
    same = unchanged(given, nothing)
    assert same(given) and same(given)
    (given[0] @ given[0]).sum().backward()
    assert same(given)  # a gradient is no change of the weight


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize(
    "write",
    {
        "in place": lambda w: w.detach().mul_(1.0),  # to the same values, too
        "fill": lambda w: nn.init.ones_(w),
        "data in place": lambda w: w.data.fill_(7.0),
        "copy of data": lambda w: w.data.copy_(torch.full_like(w, 7.0)),
        "storage": lambda w: w.untyped_storage().fill_(5),
        "numpy": lambda w: (
            w.detach().view(torch.uint8 if w.dtype == torch.bfloat16 else w.dtype).numpy().fill(7)
        ),
        "other data": lambda w: setattr(w, "data", w.detach().clone()),
        "data of another": lambda w: setattr(w, "data", torch.zeros_like(w)),
        "swapped": lambda w: torch.utils.swap_tensors(
            w, type(w)(w.detach().clone()) if isinstance(w, nn.Parameter) else w.clone()
        ),
        "moved": lambda w: setattr(w, "data", w.detach().clone().t() if w.dim() == 2 else w.detach().clone()),
        "resized": lambda w: w.untyped_storage().resize_(4096),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_write_shows(write, place):
    given = weights()
    same = unchanged(given, nothing)
    with torch.no_grad():
        write[1](given[place])
    assert not same(given)


@pytest.mark.parametrize("words", [1, 2, 3, 7, 8, 16, 17, 31, 32, 33, 1000])
def test_a_write_to_all_of_a_weight_shows_whatever_its_size(words):
    weight = torch.ones(words, dtype=torch.bfloat16)
    same = unchanged([weight], nothing)
    weight.data.mul_(2)
    assert not same([weight])
    weight.data.div_(2)  # as it was, and nothing else shows
    assert same([weight])


def test_the_memory_of_an_empty_weight_is_not_read():
    weight = torch.empty(0, 4)
    same = unchanged([weight], nothing)
    assert same([weight])
    weight.untyped_storage().resize_(64)
    assert not same([weight])


@pytest.mark.parametrize(
    "hold",
    {
        "data": lambda w: w.data,
        "detached": lambda w: w.detach(),
        "view": lambda w: w.detach()[:1],
        "storage": lambda w: w.untyped_storage(),
        "array": lambda w: w.detach().numpy(),
        "capsule": lambda w: torch.utils.dlpack.to_dlpack(w.detach()),
        "list of storage": lambda w: [w.untyped_storage()],
    }.items(),
    ids=lambda item: item[0],
)
def test_whoever_holds_the_memory_shows(hold):
    given = weights()
    same = unchanged(given, nothing)
    held = hold[1](given[0])
    assert not same(given)
    del held
    gc.collect()
    # An array and a capsule leave memory behind that may be written elsewhere; the others leave nothing.
    assert same(given) or hold[0] in ("array", "capsule")


def test_other_weights_are_told_from_these():
    given = weights()
    same = unchanged(given, nothing)
    assert not same(weights())
    assert not same(given[::-1])
    assert not same(given[:2]) and not same([])
    assert not same([nn.Parameter(given[0].detach()), *given[1:]])  # the same memory, another weight
    assert same(given)


def test_a_weight_with_attributes_that_lead_back_is_still_known():
    weight = nn.Parameter(torch.ones(4))
    weight.owner = [weight]
    same = unchanged([weight], nothing)
    assert same([weight])
    reference = weakref.ref(weight)
    del weight
    gc.collect()
    assert reference() is None  # and it is not kept alive


def test_nothing_is_kept_alive_and_the_loss_is_told():
    given = weights()
    told = []
    same = unchanged(given, told.append)
    references = [weakref.ref(each) for each in given]
    assert same(given)
    given.clear()
    gc.collect()
    assert [each() for each in references] == [None] * 3
    assert len(told) == 3
    assert not same(weights())
