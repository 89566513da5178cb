"""The first 256 components of a matrix of 4096 x 4096: seconds, the error over the least, and the certificate."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from stonefx.benchmarks.compress.rows import Row, Wanted
from stonefx.benchmarks.compress.work import commit
from stonefx.compress.spectrum import decompose

SIZE, RANK = 4096, 256
DECAYS = (0.3, 0.5, 1.0)
"""The i-th singular value is `i ** -decay`: trained layers lie in between."""
REFLECTIONS = 4
"""On either side of the diagonal, so that singular vectors are no axes."""
ROUNDS = 5


def decomposition_rows(wanted: Wanted, seed: int = 0) -> Iterator[Row]:
    """Ours and torch.svd_lowrank, with the threads that torch is set to."""
    threads = torch.get_num_threads()
    arms: dict[str, Callable[[Tensor], tuple[Tensor, Tensor, float | None]]] = {
        "stonefx": _ours,
        "torch.svd_lowrank": _torch,
    }
    for decay in DECAYS:
        asked = f"decay {decay:g}, {threads} threads"
        todo = {name: arm for name, arm in arms.items() if wanted(name, asked, seed)}
        if not todo:
            continue
        matrix, least = _matrix(decay, seed)
        for name, arm in todo.items():
            seconds = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                left, right, certified = arm(matrix)
                seconds.append(time.perf_counter() - start)
            error = (matrix - left.to(matrix) @ right.to(matrix)).norm().item()
            metrics = {"error over the least": error / least, "threads": float(threads)}
            if certified is not None:
                metrics["certified error over the least, at most"] = certified
            timed: dict[str, Any] = {"median": statistics.median(seconds), "least": min(seconds)}
            ratio = RANK * 2 * SIZE / SIZE**2
            yield Row(
                case="decomposition",
                arm=name,
                asked=asked,
                ratio=ratio,
                metrics=metrics,
                seconds=timed,
                seed=seed,
                commit=commit(),
            )


def _ours(matrix: Tensor) -> tuple[Tensor, Tensor, float]:
    found = decompose(matrix[None], None, RANK)
    # The loss is half the squared error, and the least is at most `excess` below it.
    loss, excess = found.tails[RANK].item(), found.excess[RANK].item()
    certified = math.sqrt(loss / (loss - excess)) if loss > excess else math.inf
    a, b = found.factors(RANK)
    return a[0], b[0], min(certified, 1e9)


def _torch(matrix: Tensor) -> tuple[Tensor, Tensor, None]:
    u, s, v = torch.svd_lowrank(matrix, RANK + RANK // 8, niter=2)
    return (u * s)[:, :RANK], v[:, :RANK].mT, None


def _matrix(decay: float, seed: int) -> tuple[Tensor, float]:
    """A matrix in float64 and the least error of a map of rank `RANK`."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.arange(1, SIZE + 1, dtype=torch.float64) ** -decay
    w = torch.diag(values)
    for _ in range(REFLECTIONS):
        for _ in range(2):
            v = torch.nn.functional.normalize(
                torch.randn(SIZE, generator=generator, dtype=torch.float64), dim=0
            )
            w = (w - 2 * torch.outer(v, v @ w)).mT
    return w.contiguous(), values[RANK:].square().sum().sqrt().item()
