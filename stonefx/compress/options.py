"""What may become of a layer or a block, each with its loss, its bytes and its seconds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import nn

MOST_RANKS = 72
"""Ranks looked at a view: all of small layers, every second, fourth or eighth, then multiples of 8."""


@dataclass(frozen=True)
class Option:
    """One thing that may become of some layers.

    Attributes:
        form: "dense", "pair", "pifa", "width", or one of these with "+int8".
        size: its rank or its number of units; None where it is dense.
        loss: expected, in the one currency of all options: half the mean squared change of the probed scalar.
        bytes: of all that is stored for these layers, biases, scales and indices included.
        seconds: a call at the user's shapes, or None where that was not measured.
        build: makes the replacements by path; none for what stays as it is.
    """

    form: str
    size: int | None
    loss: float
    bytes: int
    seconds: float | None = None
    build: Callable[[], Mapping[str, nn.Module]] = field(default=dict, repr=False, compare=False)


@dataclass
class Candidate:
    """Layers that are decided together, with all options for them; the first is to leave them as they are.

    Attributes:
        paths: of the layers.
        options: the first is dense.
        refused: form and size of what was left out, with the reason, such as being slower than dense.
    """

    paths: tuple[str, ...]
    options: list[Option]
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def dense(self) -> Option:
        """To leave them as they are."""
        return self.options[0]

    def reason(self) -> str:
        """Why forms were left out, those of one reason together.

        >>> Candidate(("a",), [], {"pair": "slow: 1.3", "pifa": "slow: 2", "int8": "no"}).reason()
        'slow: pair 1.3, pifa 2; int8: no'
        """
        groups: dict[str, list[str]] = {}
        for form, why in self.refused.items():
            kind, _, figures = why.partition(": ")
            groups.setdefault(kind if figures else f"{form}: {why}", []).append(
                f"{form} {figures}" if figures else ""
            )
        return "; ".join(f"{kind}: {', '.join(f)}" if any(f) else kind for kind, f in groups.items())


def rank_grid(full: int) -> list[int]:
    """Ranks that are looked at: all of small layers, else at most `MOST_RANKS`, evenly apart.

    >>> rank_grid(4), rank_grid(128)[:3], rank_grid(576)[:3], len(rank_grid(4096))
    ([1, 2, 3], [2, 4, 6], [8, 16, 24], 63)
    """
    if full <= MOST_RANKS:
        return list(range(1, full))
    step = 1 << (math.ceil(full / MOST_RANKS) - 1).bit_length()
    if step > 8:
        step = 8 * math.ceil(full / 8 / MOST_RANKS)
    return list(range(step, full, step))
