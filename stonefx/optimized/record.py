"""What an optimized model knows of itself: its program, and what was changed since it was captured."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..rewriting import StonefxWarning
from .parts import PLACE, Place, difference, is_pruning, occupy, parts, peek, vacate
from .weights import hooks

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
        roots: refer to the model, and to shallow copies of it, weakly.
        changed: by what was changed, whether it is as it was at capture again.
        fast: the class whose call is the generated function.
        original: the original forward is to run.
        warned: the user knows that it runs.
    """

    program: Program
    report: Report
    patched: Any = None
    roots: weakref.WeakSet[OptimizedModule] = field(default_factory=weakref.WeakSet)
    changed: dict[Hashable, Callable[[], bool]] = field(default_factory=dict)
    fast: type | None = None
    original: bool = False
    warned: bool = False

    def serve(self, root: OptimizedModule) -> None:
        """Tell this model, too, when something has changed."""
        self.roots.add(root)

    def settle(self, root: OptimizedModule) -> None:
        """Give every module of the model that the graph relies on its place."""
        self.serve(root)
        places: dict[nn.Module, Place] = {}

        def at(path: str) -> Place | None:
            try:
                module = root.get_submodule(path) if path else root
            except AttributeError:
                return None
            known = module.__dict__.get(PLACE)
            made = Place(self, path)
            if known is not None:
                made.released, made.shown = known.released, known.shown
            return places.setdefault(module, made)

        at("")
        for path, name in self.program.capture.attributes:
            if (place := at(path)) is not None and name:
                place.attributes.add(name)
        for name in self.program.used:
            path, _, leaf = name.rpartition(".")
            if (place := at(path)) is not None:
                place.weights.add(leaf)
        for name, folded in self.program.released.items():
            path, _, leaf = name.rpartition(".")
            if (place := at(path)) is not None:
                place.released[leaf] = folded
                place.weights.discard(leaf)
                place.shown = self.program.shown.get(path)
        for module, place in places.items():
            place.hooks = hooks(module)
            if module is root:
                module.__dict__[PLACE] = place
            else:
                occupy(module, place)

    def look_again(self) -> None:
        """Something that the generated call reads lies elsewhere: the next call finds out where."""
        for root in list(self.roots):
            root._stone_look_again()

    def change(self, what: str, key: Hashable, is_back: Callable[[], bool]) -> None:
        """Something that the graph holds for is about to change.

        Raises:
            AttributeError: the original forward cannot run instead.
        """
        if self.program.original_missing:
            raise AttributeError(
                f"{what!r} cannot be changed: the captured graph holds for the value that it had. {_WAY_OUT}"
            )
        self.changed[key] = is_back
        self.say(f"{what!r} was changed")
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
            self.say(f"{place.path!r} has a hook")
        self.look_again()

    def cast(self, before: torch.dtype, after: torch.dtype) -> None:
        """The weights are about to change their dtype.

        Raises:
            RuntimeError: the original forward cannot run instead.
        """
        if self.program.original_missing:
            raise RuntimeError(
                f"this model was captured with {before} weights and cannot change to {after}: its graph may depend on "
                "the dtype. Cast the original and call stonefx.optimize on it again"
            )
        root = next(iter(self.roots), None)
        if root is not None and "dtype" not in self.changed:
            dtypes = [tensor.dtype for tensor in root.parameters()]
            self.changed["dtype"] = lambda: [tensor.dtype for tensor in root.parameters()] == dtypes
            self.say(f"the weights changed from {before} to {after}")
            self.look_again()

    def replaced(
        self, module: nn.Module, place: Place, name: str, old: Any, new: Any
    ) -> Callable[[], None] | None:
        """A child is about to be replaced; returns what is to be done once it is.

        Raises:
            AttributeError: its weights were folded away, or the graph does not hold for the new one.
        """
        path = place.named(name)
        for _, below in parts(old) if isinstance(old, nn.Module) else ():
            for leaf in below.released:
                raise AttributeError(f"{path!r} cannot be replaced: {below.gone(leaf)}")
        why = difference(old, new)
        if why or self.changed:
            self.change(f"{path}: {why}" if why else path, (id(module), name), lambda: peek(module, name) is old)
            return None

        def move() -> None:
            for before, after in zip(old.modules(), new.modules(), strict=True):
                if (left := before.__dict__.get(PLACE)) is not None:
                    taken = Place(self, left.path, left.attributes, left.weights)
                    occupy(after, taken)
            vacate(old)
            self.look_again()

        return move

    def say(self, reason: str) -> None:
        """Tell the user, once, that the original forward runs."""
        if not self.warned:
            self.warned = True
            warnings.warn(f"stonefx: {reason}; the original forward runs instead", StonefxWarning, 4)

    def is_as_captured(self, root: nn.Module) -> bool:
        """Whether the graph holds for the model as it is now."""
        self.changed = {key: is_back for key, is_back in self.changed.items() if not is_back()}
        return not self.changed and all(
            [hook for hook in hooks(module) if not is_pruning(place, hook)] == place.hooks
            for module, place in parts(root)
            if module is not root
        )
