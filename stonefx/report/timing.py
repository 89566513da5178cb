"""Times two spellings of one call against each other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

_WARM, _ROUNDS = 3, 15


def alternating_seconds(before: Callable[[], Any], after: Callable[[], Any]) -> dict[str, float]:
    """The median seconds of each call, taken in turns so that what disturbs the machine disturbs both.

    >>> sorted(alternating_seconds(lambda: None, lambda: None))
    ['after', 'before']
    """
    calls = {"before": before, "after": after}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(_WARM + _ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken = time.perf_counter() - start
            if number >= _WARM:
                times[name].append(taken)
    return {name: statistics.median(each) for name, each in times.items()}
