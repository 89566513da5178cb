"""Constants and containers as JSON, and back."""

from __future__ import annotations

import enum
import json
import re
from collections import OrderedDict
from typing import Any

import pytest
import torch
from saved_models import Batch, Pair
from torch import nn

from stonefx.saving.classes import Classes
from stonefx.saving.values import decode, encode


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        None, True, -3, 2.5, float("inf"), 1 + 2j, "text", b"\x00\xff", slice(1, None, 2), torch.Size([2, 3]),
        torch.bfloat16, torch.device("cuda", 1), torch.device("cpu"), torch.strided, torch.channels_last, nn.Linear,
        torch.relu, nn.functional.gelu, torch.einsum, Color.RED, Color, (), [], {}, OrderedDict(a=1), Pair(1, 2),
        (1, [2.0, {"a": (None,), 3: Batch(1, 2.0, {"y": Pair(1, [])}), (1, "b"): 2**80, None: -0.0}]),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_values_survive_json(value: Any) -> None:
    document = json.loads(json.dumps(encode(value), allow_nan=False))
    found = decode(document, "the value", Classes())
    assert found == value and type(found) is type(value) and repr(found) == repr(value)


def test_not_a_number_survives_json() -> None:
    found = decode(encode([float("nan")]), "the value")
    assert type(found[0]) is float and found[0] != found[0]


@pytest.mark.parametrize(
    "value, reason",
    [
        (object(), r"cannot save <object object at .* of type builtins\.object; expected tensors"),
        (re.compile("x"), r"of type re\.Pattern"),
        (lambda: None, r"cannot import it as .*<lambda> from test_values; define it at the top"),
        (torch.load, None),
        ({Color.RED: 1}, r"a dict with the key <Color\.RED: 1>; expected keys that are strings, numbers or tuples"),
        ({float("inf"): 1}, r"a dict with the key inf"),
    ],
)  # fmt: skip
def test_a_value_without_a_notation(value: Any, reason: str | None) -> None:
    if reason is None:
        # It can be written, as a function of the user's can, and is read where the user passes it.
        with pytest.raises(
            ValueError, match=r"holds the function load of the module torch\.serialization; pass it"
        ):
            decode(encode(value), "the value", Classes())
        assert decode(encode(value), "the value", Classes([value])) is value
        return
    with pytest.raises(TypeError, match=reason):
        encode(value)


def test_no_class_is_named_where_none_is_allowed() -> None:
    for value in (Color.RED, nn.Linear, Pair(1, 2)):
        with pytest.raises(ValueError, match="the value: expected a constant, got dict"):
            decode(encode(value), "the value")
