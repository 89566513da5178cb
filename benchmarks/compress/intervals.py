"""How sure a figure is: percentile bootstrap over documents, never over pairs of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy

RESAMPLES = 2000


def interval(
    statistic: Callable[[numpy.ndarray], float], count: int, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """The middle `confidence` of a statistic over resampled documents.

    Args:
        statistic: of the numbers of the documents drawn.
        count: how many documents there are.
        confidence: how much of the resamples lies inside.
        seed: of the resamples.

    >>> values = numpy.arange(100.0)
    >>> low, high = interval(lambda drawn: values[drawn].mean(), 100)
    >>> 40 < low < 49.5 < high < 59
    True
    """
    generator = numpy.random.default_rng(seed)
    found = [statistic(generator.integers(count, size=count)) for _ in range(RESAMPLES)]
    low, high = numpy.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def pearson(first: numpy.ndarray, second: numpy.ndarray, drawn: numpy.ndarray) -> float:
    """Correlation of two matrices of similarities over the pairs of different documents among those drawn.

    >>> similar = numpy.array([[1.0, 0.2, 0.3], [0.2, 1.0, 0.9], [0.3, 0.9, 1.0]])
    >>> round(pearson(similar, 2 * similar, numpy.arange(3)), 12)
    1.0
    """
    above = numpy.triu_indices(len(drawn), 1)
    i, j = drawn[above[0]], drawn[above[1]]
    different = i != j
    i, j = i[different], j[different]
    return float(numpy.corrcoef(first[i, j], second[i, j])[0, 1])
