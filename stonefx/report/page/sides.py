"""The two graphs side by side: stretches that are equal, and stretches that a rewrite changed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

_CONTEXT, _FOLDED = 2, 6


@dataclass(frozen=True)
class Side:
    """One line of a graph and the numbers of the sites that it belongs to."""

    text: str
    sites: tuple[int, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """Lines that follow each other.

    Args:
        kind: `same` (both sides are equal), `folded` (the same, and many) or `changed`.
        left, right: the lines of the graph before and after; equal unless the stretch is changed.
    """

    kind: str
    left: tuple[Side, ...]
    right: tuple[Side, ...]

    @property
    def rows(self) -> list[tuple[Side | None, Side | None]]:
        """The lines next to each other; None where one side has fewer."""
        count = max(len(self.left), len(self.right))
        left = [*self.left, *[None] * (count - len(self.left))]
        right = [*self.right, *[None] * (count - len(self.right))]
        return list(zip(left, right, strict=True))

    @property
    def text(self) -> str:
        """The lines of an unchanged stretch."""
        return "\n".join(side.text for side in self.left)


def side_by_side(
    before: str, after: str, left: Mapping[int, tuple[int, ...]], right: Mapping[int, tuple[int, ...]]
) -> list[Stretch]:
    """Compare two graphs line by line.

    Args:
        before, after: as `graph_text` writes them.
        left, right: number of a line -> numbers of the sites that it belongs to.

    >>> [stretch.kind for stretch in side_by_side("a\\nb", "a\\nc", {}, {})]
    ['same', 'changed']
    """
    old, new = before.splitlines(), after.splitlines()
    stretches: list[Stretch] = []
    for what, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        lefts = tuple(Side(old[n], left.get(n, ())) for n in range(a, b))
        rights = tuple(Side(new[n], right.get(n, ())) for n in range(c, d))
        if what != "equal":
            stretches.append(Stretch("changed", lefts, rights))
            continue
        head, tail = (0 if a == 0 else _CONTEXT), (0 if b == len(old) else _CONTEXT)
        if b - a < head + tail + _FOLDED:
            stretches.append(Stretch("same", lefts, rights))
            continue
        cuts = [("same", 0, head), ("folded", head, b - a - tail), ("same", b - a - tail, b - a)]
        stretches += [Stretch(k, lefts[i:j], rights[i:j]) for k, i, j in cuts if j > i]
    return stretches
