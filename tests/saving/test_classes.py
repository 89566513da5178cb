"""Which classes are records, of which nothing runs when one is made."""

from __future__ import annotations

import collections
import dataclasses
import types
from typing import Any, Generic, NamedTuple, TypeVar

import pytest
import torch
from saved_models import Batch, Pair
from transformers.modeling_outputs import BaseModelOutput

from stonefx.saving.classes import Classes, is_record

Entry = TypeVar("Entry")


@dataclasses.dataclass(frozen=True)
class Frozen:
    x: Any


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    x: Any = None


@dataclasses.dataclass
class Typed(Generic[Entry]):
    x: Entry

    def __post_init__(self) -> None:
        raise AssertionError("nothing of the class runs")

    def double(self) -> Any:
        return [self.x, self.x]


class Plain(NamedTuple):
    x: int = 1

    def double(self) -> int:
        return 2 * self.x


class Sub(Pair):
    pass


class Made(Pair):
    def __new__(cls, *values: Any) -> Any:
        raise AssertionError


@dataclasses.dataclass
class Stated:
    x: Any

    def __getstate__(self) -> Any:
        raise AssertionError


@dataclasses.dataclass
class Dropped:
    x: Any

    def __del__(self) -> None:
        pass


@dataclasses.dataclass
class Property:
    x: Any

    def __setattr__(self, name: str, value: Any) -> None:
        raise AssertionError


@dataclasses.dataclass
class Output(BaseModelOutput):
    """Of the user's own, whose code nobody knows."""


@pytest.mark.parametrize("cls", [Batch, Pair, Frozen, Slotted, Typed, Plain, BaseModelOutput])
def test_records(cls: type) -> None:
    assert is_record(cls)
    assert Classes().container(f"{cls.__module__}:{cls.__qualname__}", "it") is cls


@pytest.mark.parametrize(
    "cls",
    [Sub, Made, Stated, Dropped, Property, Output, collections.Counter, collections.defaultdict, dict[str, int], 3,
     torch.nn.Linear, types.SimpleNamespace],
)  # fmt: skip
def test_no_records(cls: Any) -> None:
    assert not is_record(cls)
    name = f"{cls.__module__}:{cls.__qualname__}" if type(cls) is type else "x:y"
    with pytest.raises(ValueError, match=r"classes=\[|class of a tuple"):
        Classes().container(name, "it")


def test_torch_and_python_classes() -> None:
    for cls in (tuple, list, dict, collections.OrderedDict, torch.return_types.max, torch.Size):
        assert Classes().container(f"{cls.__module__}:{cls.__qualname__}", "it") is cls
    assert Classes().constant("torch.nn.modules.linear:Linear", "it") is torch.nn.Linear
    assert Classes().constant("torch:relu", "it") is torch.relu


def test_a_stand_in_of_a_module_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Asked:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    lazy = types.ModuleType("lazy_module")
    lazy.__dict__["thing"] = Asked()
    lazy.__dict__["__getattr__"] = lambda name: pytest.fail("asked for a name")
    monkeypatch.setitem(__import__("sys").modules, "lazy_module", lazy)
    for name in ("lazy_module:thing", "lazy_module:thing.part", "lazy_module:other"):
        with pytest.raises(ValueError, match="import lazy_module before loading"):
            Classes().container(name, "it")
