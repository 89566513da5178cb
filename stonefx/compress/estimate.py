"""What a compression needs in memory, known before it starts, so that it says so itself and the kernel does not."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .data import Batch, tensors
from .views import View

SHARE = 0.6
"""Of the memory that is available may be taken where the user names no bound."""


@dataclass(frozen=True)
class Estimate:
    """Bytes at most; layers that share their input need less.

    Attributes:
        statistics: covariances of all layers.
        spectra: components of all layers.
        losses: components and their products with the inputs of a batch, for the sampled losses.
        largest: what the neediest layer takes while it is decomposed.
        path: of that layer.
        model: the copy of the model that layers are replaced in.
    """

    statistics: int
    spectra: int
    losses: int
    largest: int
    path: str
    model: int

    @property
    def total(self) -> int:
        """All at once."""
        return max(self.statistics + self.spectra, self.spectra + self.losses) + self.largest + self.model

    def __str__(self) -> str:
        return (
            f"statistics {size(self.statistics)}, spectra {size(self.spectra)}, sampled losses {size(self.losses)}, "
            f"the largest layer ({self.path}) {size(self.largest)}, a copy of the model {size(self.model)}"
        )


def estimate(
    views: Sequence[View], batches: Sequence[Batch], model: int, most_rank: int | None = None
) -> Estimate:
    """What all views need.

    Args:
        views: of all layers.
        batches: for the statistics; none: there are no gradients and no losses.
        model: bytes of the copy of the model.
        most_rank: see `decompose`.
    """
    largest = max(views, key=decomposing, default=None)
    return Estimate(
        statistics=sum(map(measuring, views)) if batches else 0,
        spectra=sum(keeping(v, most_rank) for v in views),
        losses=sum(weighing(v, positions(batches), most_rank) for v in views) if batches else 0,
        largest=0 if largest is None else decomposing(largest),
        path="" if largest is None else largest.path,
        model=model,
    )


def measuring(view: View) -> int:
    """Covariances of its inputs and gradients."""
    inputs = view.columns if view.indexed else view.columns**2
    return 8 * view.groups * (inputs + view.rows**2)


def decomposing(view: View) -> int:
    """Its covariances, weights, their products and what the eigenvalue routine takes."""
    full = view.full_rank
    return measuring(view) + 8 * view.groups * (3 * view.rows * view.columns + view.rows**2 + 4 * full**2)


def keeping(view: View, most_rank: int | None) -> int:
    """Its components."""
    rank = view.full_rank if most_rank is None else min(view.full_rank, most_rank)
    return 8 * view.groups * rank * (view.rows + view.columns)


def weighing(view: View, rows: int, most_rank: int | None) -> int:
    """Its components in the layer's dtype, and the products of a batch's inputs with them."""
    rank = view.full_rank if most_rank is None else min(view.full_rank, most_rank)
    return keeping(view, most_rank) + 4 * view.groups * rank * (view.rows + view.columns + 2 * rows)


def positions(batches: Sequence[Batch]) -> int:
    """Rows of the largest batch, where its longest integer or first floating-point argument has one a position."""
    most = 1
    for batch in batches:
        for value in tensors((batch.args, batch.kwargs)):
            rows = (
                value.numel() if not value.is_floating_point() or value.dim() < 2 else value[..., 0].numel()
            )
            most = max(most, rows if value.dim() <= 3 else batch.samples)
    return most


def parts(
    views: Sequence[View], batches: Sequence[Batch], budget: int, most_rank: int | None = None
) -> list[list[int]]:
    """Numbers of views in groups, each of which fits the budget; one group where all do.

    Raises:
        MemoryError: one view alone does not fit.
    """
    rows = positions(batches)
    groups: list[list[int]] = [[]]
    used = 0
    for number, view in enumerate(views):
        need = max(measuring(view), weighing(view, rows, most_rank)) if batches else keeping(view, most_rank)
        if max(need, decomposing(view)) > budget:
            raise MemoryError(
                f"compress: layer {view.path!r} ({view.rows} x {view.columns}) needs about "
                f"{size(max(need, decomposing(view)))} for its statistics and decomposition, and {size(budget)} may "
                "be taken. Leave it out with layers=, give more with memory=, use smaller batches, or run on a "
                "machine with more memory"
            )
        if groups[-1] and used + need > budget:
            groups.append([])
            used = 0
        groups[-1].append(number)
        used += need
    return groups


def check_copy(model: int, free: int) -> None:
    """Raises MemoryError where a copy of the model does not fit."""
    if model > free:
        raise MemoryError(
            f"compress: a copy of the model takes {size(model)}, and {size(free)} of memory are available. Keep the "
            "model in files and let its layers be read one at a time: compress(folder, ..., output_folder=...) for a "
            "folder of transformers, or compress(model on the meta device, ..., weights=file, output_folder=...)"
        )


def available() -> int:
    """Bytes of memory that this process may still take: of the machine, its control group and its limits."""
    found = [_machine(), _group(), _limit()]
    return max(0, min(value for value in found if value is not None))


def _machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 1 << 62


def _group() -> int | None:
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        now = int(Path("/sys/fs/cgroup/memory.current").read_text())
        statistics = dict(
            line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines()
        )
    except (OSError, ValueError):
        return None
    # What is cached of files gives way.
    return None if most == "max" else int(most) - now + int(statistics.get("inactive_file", 0))


def _limit() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return soft
    return soft - pages * os.sysconf("SC_PAGE_SIZE")


def size(count: int) -> str:
    """Bytes as text.

    >>> size(3 << 30), size(1536)
    ('3.0 GiB', '1.5 KiB')
    """
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
