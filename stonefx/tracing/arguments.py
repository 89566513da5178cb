"""Where a value lies in a call: paths into nested tuples, lists, dicts and dataclasses."""

from __future__ import annotations

import copy
import dataclasses
import enum
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from stonefx.integrations import unusable

from .errors import Uncapturable, capture_error

Step = tuple[Literal["item", "attr"], Any]

_CONSTANTS = (
    type(None), bool, int, float, complex, str, bytes, slice, type, enum.Enum,
    torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size,
)  # fmt: skip


class Leaf:
    """A place in a result template that a tensor is put into; not a container, though it is a dataclass."""


@dataclass(frozen=True)
class Path(Leaf):
    """Where a value lies in a call: a parameter of `forward` and the steps into it.

    >>> path = Path("batch", (("item", "ids"), ("attr", "hidden"), ("item", 0)))
    >>> str(path)
    "batch['ids'].hidden[0]"
    >>> Path("batch", (("item", 1),)).read({"batch": [3, 5]})
    5
    """

    parameter: str
    steps: tuple[Step, ...] = ()

    def read(self, arguments: Mapping[str, Any]) -> Any:
        """The value in a call whose arguments are bound to their parameters."""
        value = arguments[self.parameter]
        for kind, key in self.steps:
            value = value[key] if kind == "item" else getattr(value, key)
        return value

    def then(self, kind: Literal["item", "attr"], key: Any) -> Path:
        """The path one step further in."""
        return Path(self.parameter, (*self.steps, (kind, key)))

    def __str__(self) -> str:
        return self.parameter + "".join(
            f"[{key!r}]" if kind == "item" else f".{key}" for kind, key in self.steps
        )


@dataclass(frozen=True)
class Weight(Leaf):
    """A parameter or buffer of the model by its fully qualified name."""

    name: str

    def __str__(self) -> str:
        return self.name


def bind(signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by parameter, defaults filled in; raises `TypeError` as the call would."""
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def children(value: Any) -> list[tuple[Step, Any]] | None:
    """The steps into a container and what lies there; None for what is no container."""
    if isinstance(value, Leaf):
        return None
    if isinstance(value, dict):
        return [(("item", key), value[key]) for key in value]
    if isinstance(value, (list, tuple)) and not isinstance(value, torch.Size):
        return [(("item", i), item) for i, item in enumerate(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(("attr", field.name), getattr(value, field.name)) for field in dataclasses.fields(value)]
    return None


def walk(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Every value in a nest of containers with its path, each container before its contents."""
    yield path, value
    for (kind, key), item in children(value) or ():
        yield from walk(item, path.then(kind, key))


def walk_arguments(arguments: Mapping[str, Any]) -> Iterator[tuple[Path, Any]]:
    """`walk` over all arguments of a call."""
    for parameter, value in arguments.items():
        yield from walk(value, Path(parameter))


def rebuild(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A nest of the same containers whose leaves are `leaf(old)`."""
    steps = children(value)
    if steps is None:
        return leaf(value)
    items = [rebuild(item, leaf) for _, item in steps]
    if isinstance(value, (list, tuple)):
        # Not the constructor, which may ask more of its arguments than a leaf is.
        made: Any = type(value)
        return made._make(items) if hasattr(value, "_fields") else made(items)
    if type(value) is dict:
        return {key: item for ((_, key), _), item in zip(steps, items, strict=True)}
    result = copy.copy(value)
    for ((kind, key), _), item in zip(steps, items, strict=True):
        if kind == "item":
            result[key] = item
        else:
            object.__setattr__(result, key, item)
    return result


def is_constant(value: Any) -> bool:
    """Whether a leaf is a value that a graph may depend on and a later call can be compared with."""
    return isinstance(value, _CONSTANTS) or (callable(value) and not isinstance(value, torch.nn.Module))


def check_leaves(arguments: Mapping[str, Any]) -> None:
    """Raise `CaptureError` for an argument that is no plain tensor with values, no constant and no container."""
    for path, value in walk_arguments(arguments):
        if isinstance(value, torch.Tensor):
            if value.is_meta:
                raise capture_error(
                    f"the argument `{path}` is a meta tensor, which has no values",
                    f"Pass one that has, such as torch.rand({tuple(value.shape)}).",
                    kind=Uncapturable,
                )
            if type(value) not in (torch.Tensor, torch.nn.Parameter):
                raise capture_error(
                    f"the argument `{path}` is a {type(value).__name__}, a tensor subclass",
                    "Pass plain tensors.",
                )
        elif reason := unusable(value):
            raise capture_error(
                f"the argument `{path}` is a {type(value).__name__}", f"{reason}.", kind=Uncapturable
            )
        elif children(value) is None and not is_constant(value):
            raise capture_error(
                f"the argument `{path}` is a {type(value).__name__}, which capture cannot look into",
                "Pass tensors and constants in tuples, lists, dicts or dataclasses.",
            )
