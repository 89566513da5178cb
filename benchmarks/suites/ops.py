"""Every operator by itself, against libraries, inductor and copies."""

from __future__ import annotations

from collections.abc import Iterator

from stonefx.benchmarks.case import Planned
from stonefx.benchmarks.ops.calls import call_cases
from stonefx.benchmarks.ops.cuda_others import cuda_other_cases
from stonefx.benchmarks.ops.others import other_cases
from stonefx.benchmarks.ops.rowwise import cuda_rowwise_cases, rowwise_cases


def ops_cases(device: str = "cpu") -> Iterator[Planned]:
    """Rowwise operators at two sizes, then the others, then what a call of each costs.

    On CUDA, at sizes of a card: first the others, then the rowwise ones, without other libraries.

    Raises:
        ImportError: geoopt, HypLL or reality_stone is not installed.
    """
    if device == "cuda":
        yield from cuda_other_cases()
        yield from cuda_rowwise_cases()
        return
    yield from rowwise_cases(device)
    yield from other_cases(device)
    yield from call_cases(device)
