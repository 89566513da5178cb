"""What a model returns, as a template whose leaves say where each tensor comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .arguments import Leaf, Path, Weight, children, is_constant, rebuild, walk, walk_arguments
from .errors import capture_error
from .numbers import GraphFloat, GraphInteger


@dataclass(frozen=True)
class Output(Leaf):
    """A leaf: output number `index` of the graph, or the number in it where `item` is set."""

    index: int
    item: bool = False


@dataclass(frozen=True)
class Shape(Leaf):
    """A leaf: a `torch.Size` of which some entries follow the call."""

    entries: tuple[int | Path | Output, ...]


def plain_integers(result: Any) -> dict[Path, int]:
    """The integers of a result, also those in a `torch.Size`, that no output of the graph gives."""
    found: dict[Path, int] = {}
    for path, value in walk(result, Path("result")):
        for place, number in _entries(path, value):
            if isinstance(number, int) and not isinstance(number, (bool, GraphInteger)):
                found[place] = number
    return found


def _entries(path: Path, value: Any) -> list[tuple[Path, Any]]:
    if isinstance(value, torch.Size):
        return [(path.then("item", index), entry) for index, entry in enumerate(value)]
    return [(path, value)]


def result_template(
    result: Any,
    outputs: Sequence[Any],
    arguments: Mapping[int, Path],
    weights: Mapping[int, str],
    sizes: Mapping[Path, Path] | None = None,
) -> Any:
    """The nest of containers of `result` with an `Output`, `Path`, `Weight` or `Shape` for all that follows the call.

    Args:
        result: what the model returned on the recorded run.
        outputs: what the graph returned on it, see `numbers`.
        arguments: paths of the call's tensors by `id`.
        weights: names of the model's tensors by `id`.
        sizes: for integers of the result that are a size of an argument, the path to that.

    Raises:
        CaptureError: a tensor is none of these, or the result holds an object that capture cannot look into.
    """
    origin: dict[int, Any] = {}
    for i, output in enumerate(outputs):
        if isinstance(output, torch.Tensor):
            origin.setdefault(id(output), Output(i))
    origin |= {key: Weight(name) for key, name in weights.items()}
    origin |= arguments
    for path, value in walk(result, Path("result")):
        if isinstance(value, torch.Tensor):
            if id(value) not in origin:
                raise capture_error(
                    f"the tensor `{path}` of the result is no output of the graph",
                    "Return tensors that forward computes, or its arguments.",
                )
        elif children(value) is None and not is_constant(value):
            raise capture_error(
                f"`{path}` of the result is a {type(value).__name__}, which capture cannot look into",
                "Return tensors and constants in tuples, lists, dicts or dataclasses "
                "(of transformers models: pass use_cache=False).",
            )
    # `walk` and `rebuild` meet the leaves in the same order.
    paths = iter([path for path, value in walk(result, Path("result")) if children(value) is None])
    return rebuild(result, lambda value: _leaf(next(paths), value, origin, sizes or {}))


def _leaf(path: Path, value: Any, origin: Mapping[int, Any], sizes: Mapping[Path, Path]) -> Any:
    if isinstance(value, torch.Tensor):
        return origin[id(value)]
    if isinstance(value, GraphInteger):
        return Output(value.output)
    if isinstance(value, GraphFloat):
        return Output(value.output, item=True)
    if isinstance(value, torch.Size):
        entries = tuple(_leaf(place, entry, origin, sizes) for place, entry in _entries(path, value))
        return value if all(isinstance(entry, int) for entry in entries) else Shape(entries)
    return sizes.get(path, value)


# Dynamo leaves these out of the graph and takes them of the argument itself.
VIEWS = ("mT", "T", "mH", "H")


def attribute_views(result: Any, arguments: Mapping[str, Any], known: Iterable[int]) -> dict[int, Path]:
    """Paths of those tensors of a result that are an attribute of an argument, such as `x.mT`, by `id`.

    Args:
        result: what the model returned on the recorded run.
        arguments: those of that run by parameter.
        known: `id` of each tensor that is accounted for.
    """
    given = [(path, value) for path, value in walk_arguments(arguments) if isinstance(value, torch.Tensor)]
    found: dict[int, Path] = {}
    for _, value in walk(result, Path("result")):
        if not isinstance(value, torch.Tensor) or id(value) in known or not value._is_view():
            continue
        for path, argument in given:
            names = VIEWS if argument.dim() == 2 else VIEWS[::2] if argument.dim() > 2 else ()
            name = next((name for name in names if _same_view(value, getattr(argument, name))), None)
            if name is not None:
                found[id(value)] = path.then("attr", name)
    return found


def _same_view(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
        and one.is_conj() == other.is_conj()
    )


def fill(
    template: Any, outputs: Sequence[Any], arguments: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
) -> Any:
    """The result of a call: a template with the tensors of this call in place of its leaves."""

    def leaf(value: Any) -> Any:
        if isinstance(value, Output):
            return outputs[value.index].item() if value.item else outputs[value.index]
        if isinstance(value, Path):
            return value.read(arguments)
        if isinstance(value, Shape):
            return torch.Size(map(leaf, value.entries))
        if isinstance(value, Weight):
            return weights[value.name]
        return value

    return rebuild(template, leaf)
