"""What a later call must satisfy, and the words for what it does not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from replay import Nested, mlp, nested_call, replay
from torch import nn

from stonefx.capture import from_module


def test_static_capture_wants_the_same_batch() -> None:
    capture = from_module(mlp(), (torch.ones(3, 4),), dynamic=False)
    assert capture.sizes == {}
    expected = "dimension 0 of `input` must be 3, and its shape is [2, 4]"
    assert capture.mismatch((torch.ones(2, 4),), {}) == expected


def test_a_guard_on_the_batch_is_part_of_the_checks() -> None:
    class Halves(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[0] % 2:
                return x
            return x[: x.shape[0] // 2] + x[x.shape[0] // 2 :]

    capture = from_module(Halves(), (torch.ones(4, 3),))
    assert replay(capture, Halves(), torch.ones(10, 3)).shape == (5, 3)
    reason = capture.mismatch((torch.ones(5, 3),), {})
    assert reason is not None and "% 2" in reason and "x.shape[0] is 5" in reason


def test_related_sizes_are_checked() -> None:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return x * mask

    capture = from_module(Doubled(), (torch.ones(4, 3), torch.ones(4, 1)))
    reason = capture.mismatch((torch.ones(5, 3), torch.ones(6, 1)), {})
    assert reason is not None and "dimension 0" in reason and "must be" in reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, k: k.update(mode="sum"), "the argument `mode` was 'mean' at capture, and now is 'sum'"),
        (lambda a, k: k.update(shift=3), "the argument `options['shift']` was a tensor at capture, and now is 3"),
        (lambda a, k: k.pop("shift"), "the argument `options` held ['shift'] at capture, and now holds []"),
        (lambda a, k: k.update(mode=torch.ones(2)), "was 'mean' at capture, and now is a tensor of shape [2]"),
        (lambda a, k: setattr(a[0], "ids", a[0].ids.double()), "must have dtype torch.float32, and has torch.float64"),
        (lambda a, k: setattr(a[0], "ids", a[0].ids[None]), "must have 2 dimensions, and has shape [1, 5, 4]"),
        (lambda a, k: setattr(a[0], "ids", a[0].ids[:, :2]), "dimension 1 of `batch.ids` must be 4"),
        (lambda a, k: setattr(a[0], "ids", a[0].ids.to("meta")), "must be on cpu, and is on meta"),
        (lambda a, k: a[0].extra.update(other=1), "held ['bias'] at capture, and now holds ['bias', 'other']"),
        (lambda a, k: a.append(torch.ones(3, 4)), "the argument `rest` held [0] at capture, and now holds [0, 1]"),
        (lambda a, k: a.clear(), "the call does not fit the signature of forward: missing a required argument"),
    ],
)  # fmt: skip
def test_a_mismatch_names_the_argument_and_what_came(change: Any, message: str) -> None:
    args, kwargs = nested_call(3)
    capture = from_module(Nested(), args, kwargs)
    args, kwargs = nested_call(5)
    arguments = list(args)
    change(arguments, kwargs)
    assert message in (capture.mismatch(tuple(arguments), kwargs) or "")
