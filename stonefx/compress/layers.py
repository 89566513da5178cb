"""Which layers of a model can be made smaller, and why the others cannot."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from . import linear
from .views import View

READERS: tuple[Callable[[str, nn.Module], Sequence[View] | str | None], ...] = (linear.read,)
"""Each reads the layers of its kind: their views, or a reason why this one cannot be made smaller; None for others."""


@dataclass(frozen=True)
class Layers:
    """The layers that a search works on.

    Attributes:
        views: of each layer, by path.
        refused: path of each other layer that holds a matrix, with the reason.
        shared: path -> all paths of the same module.
    """

    views: dict[str, list[View]]
    refused: dict[str, str]
    shared: dict[str, list[str]]


def find(model: nn.Module, chosen: str | Iterable[str] | None = None) -> Layers:
    """Read all layers of `model`, or those whose paths or patterns are `chosen`.

    Raises:
        ValueError: a name fits no layer; the message names near ones.
    """
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
    views: dict[str, list[View]] = {}
    refused: dict[str, str] = {}
    for path, module in model.named_modules():
        reading = next((r for reader in READERS if (r := reader(path, module)) is not None), None)
        if reading is None:
            continue
        names = paths[id(module)]
        if patterns is not None and not any(fnmatchcase(name, p) for name in names for p in patterns):
            refused[path] = "not among layers="
            continue
        tied = sorted(
            {other for p in module.parameters(recurse=False) for other in holders[id(p)] if p.dim() > 1}
            - {path}
        )
        if tied:
            refused[path] = (
                f"its weight is tied to that of {', '.join(tied)}, and one of them alone cannot change"
            )
        elif isinstance(reading, str):
            refused[path] = reading
        else:
            views[path] = list(reading)
    return Layers(views, refused, {names[0]: names for names in paths.values()})


def get(model: nn.Module, path: str) -> nn.Module:
    """The submodule of a path; the model itself for the empty one."""
    return model.get_submodule(path)


def replace(model: nn.Module, path: str, module: nn.Module, shared: dict[str, list[str]]) -> None:
    """Put `module` where the layer is, under all its paths."""
    module.train(model.get_submodule(path).training)
    for name in shared.get(path, [path]):
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module)


def _check_patterns(patterns: Sequence[str], paths: Sequence[str]) -> None:
    for pattern in patterns:
        if not any(fnmatchcase(path, pattern) for path in paths):
            near = difflib.get_close_matches(pattern, paths, 3, 0.5)
            raise ValueError(
                f"layers: {pattern!r} fits no layer of the model"
                + (f"; did you mean {', '.join(map(repr, near))}?" if near else "")
            )
