"""Which layers of a model can be made smaller, and why the others cannot."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from . import convolution, embedding, linear, others, padding, recurrent
from .views import View, layer_weights

READERS: tuple[Callable[[str, nn.Module], Sequence[View] | str | None], ...] = (
    linear.read,
    convolution.read,
    embedding.read,
    recurrent.read,
)
"""Each reads the layers of its kind: their views, or a reason why this one cannot be made smaller; None for others."""


@dataclass(frozen=True)
class Layers:
    """The layers that a search works on.

    Attributes:
        views: of each layer, by path.
        refused: path of each other layer or parameter that holds a matrix, with the reason.
        shared: path -> all paths of the same module.
    """

    views: dict[str, list[View]]
    refused: dict[str, str]
    shared: dict[str, list[str]]


def check_lazy(model: nn.Module) -> None:
    """Say that a lazy layer has no weights yet.

    Raises:
        ValueError: there is one.
    """
    if lazy := others.uninitialised(model):
        names = ", ".join(path or "the model itself" for path in lazy)
        raise ValueError(
            f"model: {names} has weights without a shape yet; call the model once on its data, then compress"
        )


def find(model: nn.Module, chosen: str | Iterable[str] | None = None) -> Layers:
    """Read all layers of `model`, or those whose paths or patterns are `chosen`.

    Raises:
        ValueError: a name fits no layer (the message names near ones), or a lazy layer has no weights yet.
    """
    check_lazy(model)
    patterns = None if chosen is None else [chosen] if isinstance(chosen, str) else list(chosen)
    paths: dict[int, list[str]] = {}
    holders: dict[int, list[str]] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(module), []).append(path)
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), []).append(path)
    if patterns is not None:
        _check_patterns(patterns, [path for group in paths.values() for path in group if path])
    found = Layers({}, {}, {names[0]: names for names in paths.values()})
    claimed = others.claimed(model)
    for path, module in model.named_modules():
        names = paths[id(module)]
        wanted = patterns is None or any(fnmatchcase(name, p) for name in names for p in patterns)
        reading = next((r for reader in READERS if (r := reader(path, module)) is not None), None)
        if module in claimed:
            if claimed[module]:
                found.refused[path] = claimed[module] if wanted else UNWANTED
        elif reading is None:
            if others.is_quantised(module):
                found.refused[path] = "it is quantised already"
            for name, reason in others.unread(module):
                found.refused[f"{path}.{name}".lstrip(".")] = reason if wanted else UNWANTED
        elif not wanted:
            found.refused[path] = UNWANTED
        elif reason := _why_not(path, module, reading, _tied(path, module, holders)):
            found.refused[path] = reason
        else:
            assert not isinstance(reading, str)
            found.views[path] = list(reading)
            for name, reason in reading[0].left_out().items():
                found.refused[f"{path}.{name}".lstrip(".")] = reason
    return found


UNWANTED = "not among layers="


def _tied(path: str, module: nn.Module, holders: Mapping[int, Sequence[str]]) -> list[str]:
    """Paths of other modules that hold one of this one's matrices."""
    held = {other for p in module.parameters(recurse=False) for other in holders[id(p)] if p.dim() > 1}
    return sorted(held - {path})


def _why_not(path: str, module: nn.Module, reading: Sequence[View] | str, tied: Sequence[str]) -> str:
    """Why a layer that was read stays as it is; empty where it may change."""
    if not path:
        return (
            "it is the whole model, which has no place in which a layer could be replaced; wrap it: "
            "compress(torch.nn.Sequential(model), ...)"
        )
    if tied:
        return f"its weight is tied to that of {', '.join(tied)}, and one of them alone cannot change"
    if reason := others.why_not(module):
        return reason
    if isinstance(reading, str):
        return reading
    weights = layer_weights(module)
    fewest = min(form.numbers(1) for view in reading for form in view.forms().values())
    if fewest >= weights:
        return f"no rank makes it smaller: rank 1 stores {fewest:,} numbers, and the layer itself {weights:,}"
    return ""


def get(model: nn.Module, path: str) -> nn.Module | nn.Parameter:
    """The submodule or parameter of a path; the model itself for the empty one."""
    parent, _, last = path.rpartition(".")
    owner = model.get_submodule(parent)
    return owner._parameters[last] if last in owner._parameters else model.get_submodule(path)  # type: ignore[return-value]


def replace(model: nn.Module, path: str, module: nn.Module, shared: dict[str, list[str]]) -> None:
    """Put `module` where the layer is, under all its paths."""
    module.train(model.get_submodule(path).training)
    for name in shared.get(path, [path]):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module)
        steps = parent.split(".")
        for i in range(len(steps) + 1):
            above = model.get_submodule(".".join(steps[:i]))
            if isinstance(above, nn.TransformerEncoder):
                padding.follow(above)


def _check_patterns(patterns: Sequence[str], paths: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            near = difflib.get_close_matches(pattern, paths, 3, 0.5)
            raise ValueError(
                f"layers: {pattern!r} fits no layer of the model"
                + (f"; did you mean {', '.join(map(repr, near))}?" if near else "")
            )
