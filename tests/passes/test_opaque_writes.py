"""What calls outside of the graph language may write to: `regions` takes all their operands, where a name says so."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.testing._internal.two_tensor import TwoTensor

from stonefx.passes.graph.effects import effects, storages, written_operands


def a_users_function(x: torch.Tensor) -> torch.Tensor:
    return x


def call(op: str, target: str | Callable[..., Any], *more: Any, **options: Any) -> tuple[fx.Node, fx.Node]:
    graph = fx.Graph()
    x = graph.placeholder("x")
    node = graph.create_node(op, target, (x, *more), options)
    node.meta["verbatim"] = "on TwoTensor"
    return x, node


WRITES = [
    ("call_method", "mul_", (2,), {}),
    ("call_method", "__setitem__", (0, 1.0), {}),
    ("call_function", torch.relu_, (), {}),
    ("call_function", torch.add, (1,), {"out": 1}),
    ("call_function", functional.relu, (True,), {}),
    ("call_function", functional.dropout, (), {"inplace": True}),
    ("call_function", operator.setitem, (0, 1.0), {}),
    ("call_function", operator.iadd, (1,), {}),
    ("call_function", a_users_function, (), {}),
]
READS = [
    ("call_method", "mul", (2,), {}),
    ("call_method", "values", (), {}),
    ("call_function", torch.relu, (), {}),
    ("call_function", functional.linear, (), {}),
    ("call_function", torch._C._nn.gelu, (), {}),
    ("call_function", operator.add, (1,), {}),
    ("call_function", operator.getitem, (0,), {}),
    ("call_function", torch._C._autograd._get_data_attr, (), {}),
]


@pytest.mark.parametrize(("op", "target", "more", "options"), WRITES)
def test_calls_that_may_write(op: str, target: Any, more: Any, options: Any) -> None:
    x, node = call(op, target, *more, **options)
    assert written_operands(node) == [x]


@pytest.mark.parametrize(("op", "target", "more", "options"), READS)
def test_calls_that_only_read(op: str, target: Any, more: Any, options: Any) -> None:
    _, node = call(op, target, *more, **options)
    assert written_operands(node) == []


def test_memory_inside_of_a_wrapper_is_written_with_it() -> None:
    wrapped, node = call("call_method", "mul_", 2)
    plain = node.graph.create_node("placeholder", "plain")
    with FakeTensorMode():
        inside = torch.empty(3)
        plain.meta["val"] = inside
        wrapped.meta["val"] = TwoTensor(inside, torch.empty(3))
    assert len(storages(wrapped)) == 2
    assert effects(node.graph).writer(plain) is node
