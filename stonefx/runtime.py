"""Folded weights, kept fresh: evaluated once, again whenever a weight changed, and never where that would not show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.optim.optimizer import register_optimizer_step_post_hook

from .fold_range import outside, with_magnitudes
from .memory import holds_alone, unseen_writers
from .passes.hoist import evaluate_folds
from .unchanged import unchanged


class _Epoch:
    """A process-wide count of changes that no tensor's version counter shows."""

    number = 0

    @classmethod
    def advance(cls, *_: Any) -> None:
        cls.number += 1


# Fused optimisers write the weights without touching their version counters.
register_optimizer_step_post_hook(_Epoch.advance)


def invalidate(model: torch.nn.Module | None = None) -> None:
    """Say that weights were changed in a way that nothing shows; the next call folds them again.

    How weights may be written under `torch.compile(backend="stone")`:

    - Seen, and folded again: in-place operations, `load_state_dict`, `.data = ...`, `.to(...)`, a new Parameter,
      `torch.utils.swap_tensors`, a step of any `torch.optim` optimizer.
    - Not folded at all, so that the original graph runs and the report says why: shared memory, memory from NumPy,
      DLPack, a file or `torch.load`, or once shown to NumPy, parts of a larger buffer, weights made in inference mode.
      The same holds for as long as another tensor (`weight.data`, `weight.detach()`, a `state_dict`), array or storage
      object holds a weight's memory.
    - Seen on the CPU where one of some words spread over a weight changes: a write by something that was gone again
      before the next call, such as `weight.data.mul_(...)`, `weight.untyped_storage().copy_(...)`, or foreign code
      with a raw pointer. Call this function to be sure, and always on a GPU.
    - Not seen: whatever is written between the replays of a CUDA graph that the caller captured.

    Args:
        model: the model whose weights changed, compiled with `torch.compile(backend="stone")`.

    Raises:
        TypeError: `model` came out of `stonefx.optimize`: it owns a folded copy of its weights, so there is
            nothing to fold again; call `stonefx.optimize` on the changed original instead.

    >>> layer = torch.nn.Linear(2, 2)
    >>> _ = layer.weight.data.mul_(2.0)
    >>> invalidate(layer)
    """
    if getattr(model, "_stone_owns_weights", False) and not getattr(model, "_stone_follows_weights", False):
        raise TypeError(
            "this model came out of stonefx.optimize and owns a folded copy of its weights; expected the model "
            "given to torch.compile(backend='stone'). Call stonefx.optimize again on the changed original."
        )
    _Epoch.advance()


class _Snapshot:
    """Folds, and what tells whether the weights still look as they did when these were computed."""

    __slots__ = ("epoch", "folds", "unchanged")

    def __init__(self, weights: list[torch.Tensor], epoch: int, drop: Callable[[Any], None]) -> None:
        self.epoch = epoch
        self.unchanged = unchanged(weights, drop)
        self.folds: tuple[torch.Tensor, ...] | None = None

    def is_fresh(self, weights: list[torch.Tensor]) -> bool:
        """Whether no weight was exchanged or written, and none is held by somebody who could write it unseen."""
        return self.epoch == _Epoch.number and self.unchanged(weights)


# While folds are evaluated, the weights are held a second time: nobody may ask then who holds them.
_EVALUATING = threading.Lock()


class FreshFolds:
    """The folds of one compiled graph, for every set of weights that it is called with.

    One graph serves many instances of a module, so the folds are kept by the identity of the weights passed.
    Evaluating is serialised; a reader sees the old folds or the new ones, never a mixture.

    Args:
        folds: the graph that computes them from weights.
        refuse: is told why the folds of some weights are not to be used.
        owned: the weights belong to a model that stonefx made: who else holds one, such as the history of gradients,
            does not write it. They are folded again when that changes.
    """

    def __init__(self, folds: fx.GraphModule, refuse: Callable[[str], None], *, owned: bool = False) -> None:
        self.names = [node.meta["weight"] for node in folds.graph.find_nodes(op="placeholder")]
        self.count = len(folds.graph.output_node().args[0])  # type: ignore[arg-type]
        self.folds, self.ranges = with_magnitudes(folds)
        self.refuse = refuse
        self.owned = owned
        self.told: set[str] = set()
        self.snapshots: dict[tuple[int, ...], _Snapshot] = {}

    def __call__(self, weights: list[torch.Tensor]) -> tuple[torch.Tensor, ...] | None:
        """The folds of these weights as they are now; None where they are not to be used."""
        key = tuple(map(id, weights))
        snapshot = self.snapshots.get(key)
        if snapshot is not None and snapshot.is_fresh(weights):
            return snapshot.folds
        return self.refresh(key, weights)

    def refresh(self, key: tuple[int, ...], weights: list[torch.Tensor]) -> tuple[torch.Tensor, ...] | None:
        """Evaluate the folds and keep them, unless a later write to the weights might not show."""
        with _EVALUATING:
            known = self.snapshots.get(key)
            if known is not None and known.is_fresh(weights):  # another thread was here first
                return known.folds
            # Folds that were used until now are not given up for a thread that passes by.
            if self._refuses(*self._untraced(weights, tries=1 if known is None else 4)):
                self.snapshots.pop(key, None)
                return None

            def drop(_: Any) -> None:
                self.snapshots.pop(key, None)

            snapshot = _Snapshot(weights, _Epoch.number, drop)
            values = evaluate_folds(self.folds, weights)
            if not self._refuses(*outside(self.ranges, values[self.count :])):
                snapshot.folds = _apart(values[: self.count], weights)
            del values
            # A write by another thread while the folds were computed shows here: they may be a mixture.
            if not snapshot.is_fresh(weights):
                self.snapshots.pop(key, None)
                return None
            self.snapshots[key] = snapshot
            return snapshot.folds

    def computed(self, weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The folds of these weights, computed for this one call, with gradients where they are wanted.

        Raises:
            ValueError: they do not hold for the values of the weights; the message says why.
        """
        values = self.folds(*weights)
        _, reason = outside(self.ranges, [value.detach() for value in values[self.count :]])
        if reason:
            raise ValueError(reason)
        return tuple(values[: self.count])

    def _untraced(self, weights: Sequence[torch.Tensor], tries: int) -> tuple[str, str]:
        """The first weight to which a write might not show, and why; empty if it would show on all."""
        for name, weight in zip(self.names, weights, strict=True):
            reason = unseen_writers(weight)
            if not reason and not self.owned and not holds_alone(weight, tries):
                reason = "another tensor, array or storage object holds its memory"
            if reason:
                return name, f"the weight {name!r} is not folded: {reason}"
        return "", ""

    def _refuses(self, name: str, reason: str) -> bool:
        """Whether there is a reason; the first one of each weight and fold is passed on."""
        if reason and name not in self.told:
            self.told.add(name)
            self.refuse(reason)
        return bool(reason)


def _apart(folds: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Folds in memory of their own: one that is a view of a weight would hold the weight's."""
    held = {weight.untyped_storage()._cdata for weight in weights}
    return tuple(fold.clone() if fold.untyped_storage()._cdata in held else fold for fold in folds)
