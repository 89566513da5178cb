"""The guards of each of geoopt's formulas as options of the operator that computes it, by dtype."""

from __future__ import annotations

import math
from typing import Any

import torch

from stonefx.geometry.bounds import ALL

Guards = dict[str, dict[str, Any]]

# What geoopt's projection leaves to the boundary.
MARGIN = {torch.float32: 4e-3, torch.float64: 1e-5}
# `clamp(1 - 1e-7)` on a float32 tensor compares with the nearest float32, which is this.
_ARTANH_LIMIT = {torch.float32: 1 - 2.0**-23, torch.float64: 1 - 1e-7}
_TINY = 1e-15


def library(dtype: torch.dtype) -> Guards:
    """geoopt's own guards."""
    limit = _ARTANH_LIMIT[dtype]
    stretch = {"min_norm": _TINY, "atanh_limit": limit, "tanh_limit": 15.0}
    return {
        "expmap0": {"min_norm": _TINY, "tanh_limit": 15.0},
        "logmap0": {"min_norm": _TINY, "atanh_limit": limit},
        "expmap": {"min_gap": _TINY, "min_norm": _TINY, "tanh_limit": 15.0, "min_denominator": _TINY},
        "logmap": {"min_gap": _TINY, "min_denominator": _TINY, "atanh_limit": limit},
        "mobius_add": {"min_denominator": _TINY},
        "mobius_scalar_mul": stretch,
        "mobius_matvec": stretch,
        "dist": {"min_denominator": _TINY, "atanh_limit": limit},
        "dist0": {"atanh_limit": limit},
        "transport": {"min_gap": _TINY},
        "conformal_factor": {"min_gap": _TINY},
        "planes": {},
    }


def own(dtype: torch.dtype) -> Guards:
    """stonefx's bounds, which act only where a result would not be finite or not inside of the ball."""
    b = ALL[dtype]
    stretch = {"min_gap": b.gap, "max_radius": b.radius}
    return {
        "expmap0": {"tanh_limit": b.tangent},
        "logmap0": {"atanh_limit": 1 - b.eps},
        "expmap": {"min_gap": b.gap, "min_denominator": 1e-30, "max_radius": b.radius},
        "logmap": {"min_gap": b.gap},
        "mobius_add": {"min_denominator": 1e-30, "max_radius": b.radius},
        "mobius_scalar_mul": stretch,
        "mobius_matvec": stretch,
        "dist": {"min_gap": b.gap},
        "dist0": {"min_gap": b.gap},
        "transport": {"min_gap": b.gap},
        "conformal_factor": {"min_gap": b.gap},
        "planes": {"min_alpha": b.gap},
    }


BOUNDS = {"library": library, "stonefx": own}


def inside(guards: Guards, dtype: torch.dtype) -> Guards:
    """The same with geoopt's projection behind each map that gives points."""
    radius = {"max_radius": 1 - MARGIN[dtype]}
    near = {"tanh_limit": math.atanh(1 - MARGIN[dtype])}
    bound = {"expmap": radius, "mobius_add": radius, "mobius_scalar_mul": radius, "mobius_matvec": radius}
    return guards | {name: guards[name] | limit for name, limit in ({"expmap0": near} | bound).items()}
