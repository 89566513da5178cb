"""Blocks in a row: where one's reading layer makes the units of the next, both become narrower together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from torch import nn

from . import choose
from .options import Candidate, Option
from .stored import element_size, stored_bytes
from .views import layer_weights
from .width import Reduced, Width

FORM = "widths"
"""The name in reports; `size` is how many units all blocks of the row keep."""


@dataclass(frozen=True)
class Row:
    """Blocks of which each but the first takes units that another one's reading layer makes.

    Attributes:
        blocks: with their units in order; whoever reads comes before whoever is made by the reader.
        candidates: what may become of each by itself.
    """

    blocks: tuple[Reduced, ...]
    candidates: tuple[Candidate, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """Of all layers, each once."""
        return tuple(dict.fromkeys(path for c in self.candidates for path in c.paths))

    @property
    def model(self) -> nn.Module:
        """That holds the layers."""
        return self.blocks[0].block.model

    def candidate(self) -> Candidate:
        """The row at sizes of its blocks that go together: for a price of a weight the best of each."""
        layers = [self.model.get_submodule(path) for path in self.paths]
        weights, dense_bytes = sum(map(layer_weights, layers)), sum(map(stored_bytes, layers))
        losses = [{option.size: option.loss for option in c.options[1:]} for c in self.candidates]
        hulls = []
        for block, own in zip(self.blocks, losses, strict=True):
            points = [
                (float(block.numbers(size)), loss, size) for size, loss in own.items() if size is not None
            ]
            hulls.append(choose.lower_hull([*points, (float(block.numbers(block.block.units)), 0.0, None)]))
        found: dict[int, Option] = {}
        for price in sorted({p for hull in hulls for p in _prices(hull)}):
            sizes = tuple(min(hull, key=lambda p: (p[1] + price * p[0], -p[0]))[2] for hull in hulls)
            if sum(size is not None for size in sizes) < 2:
                # One block alone is a candidate by itself.
                continue
            after = dense_bytes - (weights - self.numbers(sizes)) * element_size(layers[0])
            units = sum(b.block.units if s is None else s for b, s in zip(self.blocks, sizes, strict=True))
            loss = sum(own[size] for own, size in zip(losses, sizes, strict=True) if size is not None)
            if after < dense_bytes:
                found[units] = Option(FORM, units, loss, after, None, partial(self.build, sizes))
        return Candidate(
            self.paths, [Option("dense", None, 0.0, dense_bytes), *(found[k] for k in sorted(found))]
        )

    def numbers(self, sizes: Sequence[int | None]) -> int:
        """How many weights all layers then store, biases not counted."""
        kept = {r.block.view.path: _share(r.block, s) for r, s in zip(self.blocks, sizes, strict=True)}
        total = 0
        for reduction, size in zip(self.blocks, sizes, strict=True):
            block = reduction.block
            total += reduction.numbers(block.units if size is None else size)
            for path in block.producers:
                if path in kept:
                    # Counted twice: with fewer columns, and with fewer rows. It has fewer of both.
                    whole = layer_weights(self.model.get_submodule(path))
                    rows, columns = _share(block, size), kept[path]
                    total -= round(whole * (rows + columns - rows * columns))
        return total

    def build(self, sizes: Sequence[int | None]) -> Mapping[str, nn.Module]:
        """The layers' replacements by path."""
        made: dict[str, nn.Module] = {}
        for reduction, size in zip(self.blocks, sizes, strict=True):
            if size is not None:
                made |= reduction.build(size, made)
        return made


def find(blocks: Sequence[tuple[Reduced, Candidate]]) -> list[Row]:
    """All rows of blocks that share layers in this way alone; each block is in one of them at most."""
    reads = {reduction.block.view.path: i for i, (reduction, _) in enumerate(blocks)}
    before = {
        i: [reads[path] for path in reduction.block.producers if path in reads]
        for i, (reduction, _) in enumerate(blocks)
    }
    groups: dict[int, set[int]] = {i: {i} for i in before}
    for i, others in before.items():
        for j in others:
            joined = groups[i] | groups[j]
            groups |= dict.fromkeys(joined, joined)
    rows = []
    for group in {frozenset(g) for g in groups.values() if len(g) > 1}:
        ordered: list[int] = []
        while left := [i for i in sorted(group) if i not in ordered]:
            ready = [i for i in left if all(j in ordered for j in before[i])]
            if not ready:
                break
            ordered += ready
        chosen = [blocks[i] for i in ordered]
        if len(ordered) == len(group) and _apart([reduction.block for reduction, _ in chosen]):
            rows.append(Row(tuple(r for r, _ in chosen), tuple(c for _, c in chosen)))
    return sorted(rows, key=lambda row: row.paths)


def _apart(blocks: Sequence[Width]) -> bool:
    """Whether each layer has one part in one block, or reads in one and makes units in another."""
    parts: dict[str, list[str]] = {}
    for block in blocks:
        parts.setdefault(block.view.path, []).append("reads")
        for path in block.producers:
            parts.setdefault(path, []).append("makes")
        for path in {*block.carriers, *(holder for holder, _, _ in block.parameters)}:
            parts.setdefault(path, []).append("carries")
    return all(len(own) == 1 or sorted(own) == ["makes", "reads"] for own in parts.values())


def _share(block: Width, size: int | None) -> float:
    return 1.0 if size is None else size / block.units


def _prices(hull: Sequence[tuple[float, float, int | None]]) -> list[float]:
    """Of a weight, between the corners of a hull: there the best size changes."""
    slopes = [(a[1] - b[1]) / (b[0] - a[0]) for a, b in pairwise(hull)]
    return [(a * b) ** 0.5 for a, b in pairwise(slopes) if a > 0 and b > 0] + [2 * s for s in slopes[:1]]
