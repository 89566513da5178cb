"""Which facts of a tensor tell that others may write its memory unseen."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import nn

from stonefx.memory import holds_alone, sample, unseen_writers


def in_inference_mode() -> torch.Tensor:
    with torch.inference_mode():
        return torch.ones(4)


SEEN: list[Callable[[], torch.Tensor]] = [
    lambda: torch.ones(4),
    lambda: nn.Parameter(torch.ones(4, 3)),
    lambda: torch.ones(4, 3).t(),
    lambda: torch.ones(1).expand(4),
    lambda: torch.ones(0),
    lambda: torch.ones(4, dtype=torch.bool),
    lambda: torch.ones(4, device="meta"),
    lambda: torch.ones(8)[:4].detach(),  # the only tensor that is left of a larger one
]


@pytest.mark.parametrize("make", SEEN)
def test_memory_of_its_own(make: Callable[[], torch.Tensor]) -> None:
    tensor = make()
    assert unseen_writers(tensor) == "" and holds_alone(tensor)


UNSEEN = [
    (in_inference_mode, "inference mode"),
    (lambda: torch.ones(4).share_memory_(), "shared memory"),
    (lambda: torch.frombuffer(bytearray(16), dtype=torch.float32), "came from NumPy, DLPack, a file"),
    (lambda: torch.eye(4).to_sparse(), "no dense tensor"),
    (lambda: torch.eye(4).to_sparse_csr(), "no dense tensor"),
]


@pytest.mark.parametrize(("make", "reason"), UNSEEN, ids=[reason for _, reason in UNSEEN])
def test_memory_that_others_may_write(make: Callable[[], torch.Tensor], reason: str) -> None:
    assert reason in unseen_writers(make())


def test_parts_of_a_buffer() -> None:
    whole = torch.ones(8)
    views, parts = whole.split(4), [part.detach() for part in whole.split(4)]
    assert all("part of a larger buffer" in unseen_writers(each) for each in [*views, *parts])
    del whole, views
    assert all("part of a larger buffer" in unseen_writers(each) for each in parts)
    del parts[1:]
    assert unseen_writers(parts[0]) == ""


def test_the_base_of_a_view_is_no_stranger() -> None:
    """What is written to it shows in the version of the view."""
    base = torch.ones(4, 3)
    view = base.t()
    version = view._version
    assert unseen_writers(view) == "" and holds_alone(view)
    base.mul_(2)
    assert view._version > version
    alias = base.data
    assert not holds_alone(view)
    del alias
    assert holds_alone(view)


def test_who_holds_a_tensor_is_known_again_and_again() -> None:
    weight = nn.Parameter(torch.ones(4))
    for _ in range(3):
        assert holds_alone(weight)
        holders = [weight.detach(), weight.untyped_storage(), weight.untyped_storage()]
        while holders:
            assert not holds_alone(weight)
            holders.pop()


def test_a_thread_that_looks_on_is_waited_for() -> None:
    weight = torch.ones(4)
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            for _ in range(100):
                weight.untyped_storage()
            time.sleep(0)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        assert all(holds_alone(weight, tries=50) for _ in range(200))
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("size", [0, 1, 3, 8, 17, 4096])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bool], ids=str)
def test_a_sample_shows_that_all_of_a_tensor_was_written(size: int, dtype: torch.dtype) -> None:
    tensor = torch.zeros(size, dtype=dtype)
    words = sample(tensor)
    before = words.tobytes()
    assert len(before) <= 8 * 32
    tensor.data.fill_(1)
    assert (words.tobytes() != before) == (size > 0)
    assert sample(torch.ones(size, dtype=dtype, device="meta")).tobytes() == b""
