"""What may become of each layer and block, from their spectra and the losses of their ranks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from . import choose, rows_of_blocks
from .blocks import Reduction, obstacle
from .data import Batch
from .measuring import Measurements
from .options import Candidate, Option, rank_grid
from .spectrum import Spectrum
from .stored import element_size, stored_bytes
from .task import Task
from .views import Form, Joint, View, layer_weights
from .width import Reduced


class Candidates:
    """All that is chosen from.

    Args:
        task: whose layers they are.
        found: spectra and reductions of them.
        tails: losses of ranks by the number of the view or ("block", number); where there are none, those
            of covariances count.

    Attributes:
        singles: one for each layer.
        blocks: one for each block of several.
    """

    def __init__(self, task: Task, found: Measurements, tails: Mapping[Any, Tensor]) -> None:
        self.task = task
        self.spectra = found.spectra
        self.few = found.few
        self.tails = tails
        self.singles: list[Candidate] = []
        self.blocks: list[Candidate] = []
        numbers_of: dict[str, list[int]] = {}
        narrow: list[tuple[Reduced, Candidate]] = []
        for number, view in enumerate(task.views):
            if number in self.spectra:
                numbers_of.setdefault(view.path, []).append(number)
        for path, numbers in numbers_of.items():
            self.singles.append(Candidate((path,), self._of_layer(numbers)))
        for i, (block, reduction) in enumerate(found.reductions):
            if block.name in task.settings.forms:
                options = self._of_block(block.paths, block.name, reduction, ("block", i))
                self.blocks.append(Candidate(block.paths, options))
                if isinstance(reduction, Reduced):
                    narrow.append((reduction, self.blocks[-1]))
        self.blocks += [row.candidate() for row in rows_of_blocks.find(narrow)]

    def check(self, call: Batch) -> None:
        """Leave out what the model does not run with, such as where its code reads more of a layer than its result.

        Each form is tried at its smallest, in all layers at once, and in each by itself only where that fails.
        """
        smallest: dict[str, list[tuple[Candidate, Option]]] = {}
        rows = [c for c in self.blocks if c.options[-1].form == rows_of_blocks.FORM]
        for candidate in [*self.singles, *rows]:
            kinds: dict[str, Option] = {}
            for option in candidate.options[1:]:
                kinds.setdefault(_kind(option.form), option)
            for kind, option in kinds.items():
                smallest.setdefault(kind, []).append((candidate, option))
        for kind, tried in smallest.items():
            if self._obstacle([option for _, option in tried], call) is None:
                continue
            for candidate, option in tried:
                if (reason := self._obstacle([option], call)) is not None:
                    candidate.options = [o for o in candidate.options if _kind(o.form) != kind]
                    candidate.refused[kind] = f"the model does not run with it: {reason}"

    def _obstacle(self, options: Sequence[Option], call: Batch) -> str | None:
        modules = {path: module for option in options for path, module in option.build().items()}
        return obstacle(self.task.model, modules, call, self.task.layers.shared)

    @property
    def every(self) -> list[Candidate]:
        """Layers, then blocks."""
        return [*self.singles, *self.blocks]

    @property
    def bytes(self) -> int:
        """Of all layers as they are."""
        return sum(c.dense.bytes for c in self.singles)

    @property
    def fixed(self) -> int:
        """Of what is compared and cannot change after all."""
        free = {candidate.paths[0] for candidate in self.singles}
        model = self.task.model
        return sum(
            stored_bytes(model.get_submodule(p), recurse=True) for p in self.task.counted if p not in free
        )

    def dense(self) -> choose.Plan:
        """All layers as they are."""
        return choose.Plan({c.paths: c.dense for c in self.singles}, 1.0, 0.0)

    def _of_layer(self, numbers: list[int]) -> list[Option]:
        views = [self.task.views[n] for n in numbers]
        dense_bytes = stored_bytes(views[0].layer)
        options = [Option("dense", None, 0.0, dense_bytes)]
        for number, view in zip(numbers, views, strict=True):
            options += self._of_view(number, dense_bytes)
            for joint in view.joints(views):
                options += self._of_joint(joint, dense_bytes)
        return options

    def _of_view(self, number: int, dense_bytes: int) -> list[Option]:
        view, tail = self.task.views[number], self._tail(number)
        ranks = [rank for rank in rank_grid(view.full_rank) if rank < len(tail)]
        options = []
        for name, form in view.forms().items():
            if name not in self.task.settings.forms:
                continue
            label = name if view.name == "linear" else f"{name} {view.name}"
            for rank in ranks:
                option = factored(
                    label, rank, tail[rank].item(), dense_bytes, form, self.spectra, number, view
                )
                if option.bytes < dense_bytes:
                    options.append(option)
        return options

    def _tail(self, number: int) -> Tensor:
        """Losses of a view's ranks: the sampled ones, or what covariances alone say."""
        sampled = self.tails.get(number)
        if sampled is None or bool(sampled.isnan().any()):
            return self.spectra[number].tails.cpu()
        # Few rows that were sampled say nothing of directions that they do not have.
        return torch.maximum(sampled, self.spectra[number].tails.cpu()) if number in self.few else sampled

    def _of_joint(self, joint: Joint, dense_bytes: int) -> list[Option]:
        """Options of a form with two ranks: of all pairs of ranks those on the lower convex hull."""
        if "pair" not in self.task.settings.forms:
            return []
        numbers = [
            next(n for n, v in enumerate(self.task.views) if v is w) for w in (joint.outer, joint.inner)
        ]
        outer, inner = (self._tail(n) for n in numbers)
        weights, element = layer_weights(joint.outer.layer), element_size(joint.outer.layer)
        points = []
        for i, j in itertools.product(rank_grid(joint.outer.full_rank), rank_grid(joint.inner.full_rank)):
            after = dense_bytes - (weights - joint.numbers(i, j)) * element
            if after < dense_bytes and i < len(outer) and j < len(inner):
                points.append((float(after), (outer[i] + inner[j]).item(), (i, j)))
        build = _joining(joint, *(self.spectra[n] for n in numbers))
        return [
            Option(f"{joint.name} {j}", i, loss, int(after), None, partial(build, i, j))
            for after, loss, (i, j) in choose.lower_hull(points)
        ]

    def _of_block(self, paths: tuple[str, ...], name: str, reduction: Reduction, key: Any) -> list[Option]:
        tail = self.tails.get(key)
        whole = [self.task.model.get_submodule(path) for path in paths]
        dense_bytes = sum(map(stored_bytes, whole))
        weights, element = sum(map(layer_weights, whole)), element_size(whole[0])
        options = [Option("dense", None, 0.0, dense_bytes)]
        for size in reduction.sizes:
            unknown = tail is None or bool(tail.isnan().any())
            loss = reduction.loss(size) if unknown else tail[size * reduction.parts].item()  # type: ignore[index]
            loss = max(loss, reduction.loss(size)) if key in self.few else loss
            after = dense_bytes - (weights - reduction.numbers(size)) * element
            if after < dense_bytes:
                options.append(Option(name, size, loss, after, None, partial(reduction.build, size)))
        return options


def _kind(form: str) -> str:
    """A form without the rank that the names of some hold.

    >>> _kind("pair input"), _kind("tucker 12")
    ('pair input', 'tucker')
    """
    return form.rstrip("0123456789").rstrip()


def factored(
    label: str,
    rank: int,
    loss: float,
    dense_bytes: int,
    form: Form,
    spectra: Mapping[int, Spectrum],
    number: int,
    view: View,
) -> Option:
    """A layer stored in a form at a rank.

    Args:
        label: the form's name in reports.
        rank, loss: of it.
        dense_bytes: of the layer as it is.
        form: of `view`.
        spectra: asked for the factors when their turn comes: they may lie in a file.
        number: of the view.
        view: of the layer.
    """
    fewer = layer_weights(view.layer) - form.numbers(rank)
    after = dense_bytes - fewer * element_size(view.layer) + form.index_bytes(rank)
    return Option(
        label, rank, loss, after, None, lambda: {view.path: form.build(*spectra[number].factors(rank))}
    )


def _joining(joint: Joint, outer: Spectrum, inner: Spectrum) -> Callable[[int, int], Mapping[str, nn.Module]]:
    return lambda i, j: {joint.outer.path: joint.build(outer.projection(i), inner.factors(j))}
