"""What an optimized model knows of itself: its program, and what was changed since it was captured."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..rewriting import StonefxWarning
from .parts import PLACE, Place, difference, is_pruning, occupy, parts, peek, vacate
from .weights import hooks, weight

if TYPE_CHECKING:
    from ..report import Report
    from .module import OptimizedModule
    from .program import Program

_WAY_OUT = (
    "Call stonefx.optimize on the changed original, or stonefx.optimize(model, ..., release=False), which keeps all "
    "weights and runs the original forward then"
)


@dataclass(eq=False)
class Record:
    """The state of one optimized model.

    Args:
        program: what its call runs.
        report: what `optimize` did.
        patched: the forward that the model had as an attribute of its own.
        constants: tensors beside the model's parameters and buffers that the graph reads, where the model keeps all
            its weights.
        roots: refer to the model, and to shallow copies of it, weakly.
        fast: the class whose call is the generated function.
        stale: something was changed since the generated call was bound.
        original: the original forward is to run.
        warned: the user knows that it runs.
    """

    program: Program
    report: Report
    patched: Any = None
    constants: dict[str, torch.Tensor] = field(default_factory=dict)
    roots: weakref.WeakSet[OptimizedModule] = field(default_factory=weakref.WeakSet)
    fast: type | None = None
    stale: bool = False
    original: bool = False
    warned: bool = False

    def settle(self, root: OptimizedModule) -> None:
        """Give every module of the model that the graph relies on its place."""
        self.roots.add(root)
        places: dict[nn.Module, Place] = {}

        def at(path: str) -> tuple[nn.Module, Place] | None:
            try:
                module = root.get_submodule(path) if path else root
            except AttributeError:
                return None
            return module, places.setdefault(module, Place(self, path))

        at("")
        for path, name in self.program.capture.attributes:
            if (found := at(path)) is not None and name:
                module, place = found
                place.attributes[name] = peek(module, name)
        for name in self.program.used:
            path, _, leaf = name.rpartition(".")
            found = at(path)
            if found is not None and name not in self.program.released:
                value = weight(root, name)
                found[1].weights[leaf] = value.shape, value.dtype
        for name, folded in self.program.released.items():
            path, _, leaf = name.rpartition(".")
            if (found := at(path)) is not None:
                found[1].released[leaf] = folded
                found[1].shown = self.program.shown.get(path)
        for module, place in places.items():
            place.hooks = hooks(module)
            for name, child in module._modules.items():
                if child is not None and any(below in places for below in child.modules()):
                    place.children[name] = child
            if module is root:
                module.__dict__[PLACE] = place
            else:
                occupy(module, place)

    def look_again(self) -> None:
        """Something that the generated call depends on was changed: the next call finds out what."""
        self.stale = True
        for root in list(self.roots):
            root._stone_look_again()

    def change(self, what: str) -> None:
        """Something that the graph holds for is about to change.

        Raises:
            AttributeError: the original forward cannot run instead.
        """
        if self.program.original_missing:
            raise AttributeError(
                f"{what!r} cannot be changed: the captured graph holds for the value that it had. {_WAY_OUT}"
            )
        self._say(f"{what!r} was changed")
        self.look_again()

    def hooked(self, place: Place, hook: Any) -> None:
        """A hook is about to be registered on a module of the model.

        Raises:
            RuntimeError: the module is no longer called, and the original forward cannot run instead.
        """
        if place.path and not is_pruning(place, hook):
            if self.program.original_missing:
                raise RuntimeError(
                    f"a hook on {place.path!r} would never run: its calls were merged into one function. {_WAY_OUT}"
                )
            self._say(f"{place.path!r} has a hook")
        self.look_again()

    def cast(self, before: torch.dtype, after: torch.dtype) -> None:
        """The weights are about to change their dtype.

        Raises:
            RuntimeError: the original forward cannot run instead.
        """
        if self.program.original_missing:
            raise RuntimeError(
                f"this model was captured with {before} weights and cannot change to {after}: its graph may depend on "
                "the dtype. Cast the original and call stonefx.optimize on it again, or with release=False, which "
                "keeps the original forward"
            )
        self._say(f"weights were cast from {before} to {after}")
        self.look_again()

    def replaced(self, place: Place, name: str, new: Any) -> Callable[[], None]:
        """A submodule is about to be replaced; returns what is to be done once it is.

        Raises:
            AttributeError: its weights were folded away, or the graph does not hold for the new one.
        """
        old, path = place.children[name], place.named(name)
        if new is old:
            return self.look_again
        for _, below in parts(old):
            for leaf in below.released:
                raise AttributeError(f"{path!r} cannot be replaced: {below.gone(leaf)}")
        if why := difference(old, new):
            self.change(f"{path} ({why})")
            return self.look_again

        def move() -> None:
            moved = dict(zip(old.modules(), new.modules(), strict=True))
            for before, after in moved.items():
                if (left := before.__dict__.get(PLACE)) is not None:
                    children = {key: moved[child] for key, child in left.children.items()}
                    attributes = {key: peek(after, key) for key in left.attributes}
                    occupy(after, Place(self, left.path, attributes, children, left.weights))
            vacate(old)
            place.children[name] = new
            self.look_again()

        return move

    def _say(self, reason: str) -> None:
        if not self.warned:
            self.warned = True
            warnings.warn(f"stonefx: {reason}; the original forward runs instead", StonefxWarning, 5)

    def is_as_captured(self, root: nn.Module) -> bool:
        """Whether the graph holds for the model as it is now."""
        return all(
            place.is_as_captured(module)
            and (
                module is root
                or [hook for hook in hooks(module) if not is_pruning(place, hook)] == place.hooks
            )
            for module, place in parts(root)
        )
