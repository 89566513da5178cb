"""Grows a random program statement by statement, running each one as it is added."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from random_program import Input, Program, Statement, fill_weights
from torch import nn
from torch.nn import functional as F

# Not the size of any other axis, so that an axis taken for the batch shows.
BATCH = 5
_LARGEST = 30.0
_ELEMENTS = 6000


@dataclass(frozen=True)
class Draft:
    """A statement before its targets have names."""

    source: str
    targets: int = 1


class Builder:
    """The program so far, with the value of everything in it.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.train = False
        self.inputs: dict[str, Input] = {}
        self.values: dict[str, torch.Tensor] = {}
        self.layers: dict[str, str] = {}
        self.statements: list[Statement] = []
        self.holder = nn.Module()
        self._pending: dict[str, str] = {}
        self._attributes = 0
        self._names = 0

    def add_input(self, given: Input) -> str:
        """One more argument of forward."""
        name = self._name()
        self.inputs[name] = given
        self.values[name] = given.draw(BATCH, self.seed)
        return name

    def layer(self, made: str) -> str:
        """The expression for an attribute made by `made`; sometimes one that is there already, which is then shared."""
        if self.chance(0.2):
            for name, other in self.layers.items():
                if made == other:
                    return f"self.{name}"
        name = f"m{self._attributes}"
        self._attributes += 1
        self._pending[name] = made
        return f"self.{name}"

    def weight(self, *shape: int, like: torch.Tensor) -> str:
        """A parameter of the given shape, in the dtype of `like`."""
        return self.layer(f"nn.Parameter(torch.empty({list(shape)}{dtype_argument(like)}))")

    def add(self, draft: Draft | str | None) -> bool:
        """Append a statement if it runs and its results are tame; otherwise leave everything as it was."""
        pending, self._pending = self._pending, {}
        if draft is None:
            return False
        draft = Draft(draft) if isinstance(draft, str) else draft
        used = Statement((), draft.source).layers()
        pending = {name: made for name, made in pending.items() if name in used}
        kept = {name: value.clone() for name, value in self.values.items()} if draft.targets == 0 else {}
        try:
            for name, made in pending.items():
                setattr(self.holder, name, eval(made, {"torch": torch, "nn": nn}))
            fill_weights(self.holder, self.seed)
            results = self._run(draft)
        except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
            results = None
        if results is None or not all(tame(value) for value in [*results, *self.values.values()]):
            for name in pending:
                if hasattr(self.holder, name):
                    delattr(self.holder, name)
            for name, value in kept.items():
                self.values[name] = value
            return False
        targets = tuple(self._name() for _ in results)
        self.values |= dict(zip(targets, results, strict=True))
        self.layers |= pending
        self.statements.append(Statement(targets, draft.source))
        return True

    @torch.no_grad()
    def _run(self, draft: Draft) -> Sequence[torch.Tensor] | None:
        space: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "math": math, "self": self.holder}
        self.holder.train(self.train)
        space |= self.values
        if draft.targets == 0:
            exec(draft.source, space)
            return ()
        result = eval(draft.source, space)
        results = (result,) if draft.targets == 1 else tuple(result)
        return results if len(results) == draft.targets else None

    def operand(self) -> str:
        """A value to go on from: mostly the last one or one that nothing reads yet."""
        names = [name for name, value in self.values.items() if value.is_floating_point()]
        read = set().union(*(statement.reads() for statement in self.statements))
        unread = [name for name in names if name not in read]
        if self.chance(0.55):
            return names[-1]
        return self.random.choice(unread if unread and self.chance(0.6) else names)

    def program(self) -> Program:
        """What was grown, with a random choice of outputs: the last value, and perhaps some on the way."""
        floating = [name for name, value in self.values.items() if value.is_floating_point()]
        made = [name for name in floating if name not in self.inputs] or floating
        outputs = [made[-1]]
        while len(outputs) < len(made) and self.chance(0.3):
            other = self.random.choice(floating)
            outputs += [other] if other not in outputs else []
        program = Program(
            seed=self.seed,
            inputs=dict(self.inputs),
            layers=dict(self.layers),
            statements=list(self.statements),
            outputs=outputs,
            train=self.train,
        )
        return program if self.chance(0.1) else program.pruned()

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.random.random() < probability

    def one(self, *choices: Any) -> Any:
        """One of the choices."""
        return self.random.choice(choices)

    def width(self) -> int:
        """A size of a feature axis: small ones often, odd and prime ones too."""
        return self.one(2, 3, 4, 4, 6, 7, 8, 8, 12, 16, 16, 24, 32, 48)

    def like(self, name: str) -> str | None:
        """Another value of the same shape and dtype."""
        value = self.values[name]
        others = [
            other
            for other, its in self.values.items()
            if other != name and its.shape == value.shape and its.dtype == value.dtype
        ]
        return self.random.choice(others) if others else None

    def _name(self) -> str:
        self._names += 1
        return f"v{self._names - 1}"


def dtype_argument(like: torch.Tensor) -> str:
    """The `dtype=` of a layer for a value, preceded by a comma; nothing for float32."""
    return "" if like.dtype == torch.float32 else f", dtype={like.dtype}"


def tame(value: Any) -> bool:
    """Whether a value is a small tensor of moderate numbers over the batch."""
    return (
        isinstance(value, torch.Tensor)
        and value.dim() >= 2
        and value.shape[0] == BATCH
        and 0 < value.numel() <= _ELEMENTS
        and bool(value.double().abs().max() <= _LARGEST)
    )


def divisors(size: int) -> list[int]:
    """What a size can be divided by."""
    return [d for d in range(1, size + 1) if size % d == 0]
