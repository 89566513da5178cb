"""How far a merged chain may be from the float64 value of the original, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

# What one product of float32 operands is rounded to where torch may use a faster, coarser multiplier.
_COARSE_FLOAT32 = {"high": 2.0**-10, "medium": 2.0**-7}


def merge_bound(widths: Sequence[int], dtype: torch.dtype) -> float:
    """Bound the relative error of a planned chain against the float64 evaluation of the original.

    The sum over the matrices that are left of `8 * eps + 2 * sqrt(k) * accumulator_eps`, relative to the largest
    entry of the result. Each matrix was rounded once (`eps / 2` an entry) and its result is rounded once; bias and
    operand rounding take as much again, and the rest of the 8 is room for inputs on which the terms partly cancel.
    A product of inner width `k` adds `k` terms, whose rounding errors are independent and grow as `sqrt(k)`
    (Higham and Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019). Half-precision products
    accumulate in float32, so that `accumulator_eps` is float32's. A chain in float64 is given twice that, since the
    evaluation that it is measured against rounds as much as the chain itself.

    Args:
        widths: the inner widths `k` of the matrices that are left.
        dtype: of the chain.

    >>> f"{merge_bound([128], torch.float32):.1e}"
    '3.7e-06'
    """
    unit = torch.finfo(dtype).eps
    accumulator = torch.finfo(torch.float32 if dtype.itemsize < 4 else dtype).eps
    if dtype == torch.float32:
        unit = max(unit, _COARSE_FLOAT32.get(torch.get_float32_matmul_precision(), 0.0))
    once = sum(8 * unit + 2 * math.sqrt(width) * accumulator for width in widths)
    return 2 * once if dtype == torch.float64 else once
