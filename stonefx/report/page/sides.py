"""The two graphs side by side: what the rewrites changed, and folds of what they left as it was."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

_CONTEXT, _FOLDED = 2, 5


@dataclass(frozen=True)
class Side:
    """One line of a graph and the numbers of the sites that it belongs to."""

    text: str
    sites: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A line of the graph before next to one of the graph after; None where one side has none.

    `kind` is `changed` where a site rewrote it, `spelled` where the graphs differ though no site did (a default that is
    written out, a name that came from a rewrite elsewhere), and `same`.
    """

    left: Side | None
    right: Side | None
    kind: str


@dataclass(frozen=True)
class Stretch:
    """Pairs that follow each other, all of one kind; `folded` where no rewrite changed them and they are many."""

    pairs: tuple[Pair, ...]
    folded: bool = False

    @property
    def groups(self) -> list[tuple[str, list[Pair]]]:
        """The pairs by their kind, in order."""
        return [(kind, list(group)) for kind, group in groupby(self.pairs, key=lambda pair: pair.kind)]


def side_by_side(
    before: str,
    after: str,
    left: Mapping[int, tuple[int, ...]],
    right: Mapping[int, tuple[int, ...]],
) -> list[Stretch]:
    """Compare two graphs line by line.

    Args:
        before, after: as `graph_text` writes them.
        left, right: number of a line -> numbers of the sites that it belongs to.

    >>> stretches = side_by_side("%a = f()\\n%b = f()", "%a = f()\\n%b = g()", {}, {1: (7,)})
    >>> [pair.kind for stretch in stretches for pair in stretch.pairs]
    ['same', 'changed']
    """
    old = [Side(text, left.get(n, ())) for n, text in enumerate(before.splitlines())]
    new = [Side(text, right.get(n, ())) for n, text in enumerate(after.splitlines())]
    return _stretches(_pairs(old, new))


def _pairs(old: Sequence[Side], new: Sequence[Side]) -> list[Pair]:
    pairs: list[Pair] = []
    for equal, a, b, c, d in _matched(old, new, lambda side: side.text):
        if equal:
            pairs += [Pair(*both, "same") for both in zip(old[a:b], new[c:d], strict=True)]
            continue
        # A value that both graphs have stands next to itself.
        for named, e, f, g, h in _matched(old[a:b], new[c:d], _name):
            lefts: list[Side | None] = list(old[a:b][e:f])
            rights: list[Side | None] = list(new[c:d][g:h])
            if not named:
                count = max(len(lefts), len(rights))
                lefts += [None] * (count - len(lefts))
                rights += [None] * (count - len(rights))
            pairs += [Pair(x, y, _kind(x, y)) for x, y in zip(lefts, rights, strict=True)]
    return pairs


def _matched(
    old: Sequence[Side], new: Sequence[Side], key: Callable[[Side], str]
) -> list[tuple[bool, int, int, int, int]]:
    matcher = difflib.SequenceMatcher(None, [key(s) for s in old], [key(s) for s in new], autojunk=False)
    return [(what == "equal", a, b, c, d) for what, a, b, c, d in matcher.get_opcodes()]


def _name(side: Side) -> str:
    return side.text.split(": ")[0].split(" = ")[0]


def _kind(left: Side | None, right: Side | None) -> str:
    return "changed" if (left and left.sites) or (right and right.sites) else "spelled"


def _stretches(pairs: Sequence[Pair]) -> list[Stretch]:
    stretches = []
    runs = [list(run) for _, run in groupby(pairs, key=lambda pair: pair.kind == "changed")]
    for place, run in enumerate(runs):
        if run[0].kind == "changed":
            stretches.append(Stretch(tuple(run)))
            continue
        head = 0 if place == 0 else _CONTEXT
        last = len(run) - (0 if place == len(runs) - 1 else _CONTEXT)
        if last - head < _FOLDED:
            stretches.append(Stretch(tuple(run)))
            continue
        cuts = [(run[:head], False), (run[head:last], True), (run[last:], False)]
        stretches += [Stretch(tuple(part), folded) for part, folded in cuts if part]
    return stretches
