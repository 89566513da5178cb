"""What `stonefx.accelerate("hypll")` rebinds, and the fingerprints of what it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

from hypll.manifolds.poincare_ball import PoincareBall
from hypll.manifolds.poincare_ball.math import diffgeom, linalg
from hypll.tensors import ManifoldParameter
from torch import nn

from ..fingerprints import fingerprint, unknown_version
from ..rebinding import Target, original_of
from . import ball
from .tracing import VERSIONS, deepcopied

Pair = tuple[Target, Callable[..., Any]]

# Function -> the operator that it runs on, and the fingerprint of HypLL's own.
FUNCTIONS = {
    "mobius_add": ("mobius_add", "189f4c261762be7f"),
    "project": ("project", "2be89f0ab4c33ba8"),
    "expmap0": ("expmap0", "cf6900f2f6aa3a44"),
    "logmap0": ("logmap0", "ac83a566408e6b01"),
    "expmap": ("expmap", "2140cf3a013c5287"),
    "logmap": ("logmap", "9d411eba4530c83d"),
    "transp": ("poincare_transport", "9301929ee2ad29d5"),
    "dist": ("poincare_dist", "6f10c264a8333b73"),
    "inner": ("conformal_factor", "f06aa4a53cd1d4d1"),
    "euc_to_tangent": ("conformal_factor", "cecd2307269bdf46"),
    "cdist": ("poincare_cdist", "84ee106db94ef4d0"),
    "poincare_hyperplane_dists": ("hnnpp_mlr", "b1b9b1738b48044e"),
    "poincare_fully_connected": ("hnnpp_linear", "173e8a6b02e4fa12"),
}
FULLY_CONNECTED = ("hnnpp_linear", "5229f70451fdde0f")
# torch's own, which cannot make a manifold parameter.
DEEPCOPY = nn.Parameter.__deepcopy__


def pairs() -> tuple[list[Pair], dict[str, str]]:
    """What to rebind, and what is left alone and why."""
    left: dict[str, str] = {}
    found: list[Pair] = []
    unknown = unknown_version("hypll", version("hypll"), VERSIONS)
    for target, run, expected in _candidates():
        if unknown:
            left[target.name] = unknown[0]
        elif expected and fingerprint(target.source) != expected:
            left[target.name] = f"its source is not that of HypLL {VERSIONS[0]}"
        else:
            found.append((target, run))
    return found, left


def _candidates() -> Iterator[tuple[Target, Callable[..., Any], str]]:
    run = ball.functions()
    for name, (operator, expected) in FUNCTIONS.items():
        module = linalg if hasattr(linalg, name) else diffgeom
        original = original_of(getattr(module, name))
        yield Target(name, module, name, original, original, operator), run[name], expected
    operator, expected = FULLY_CONNECTED
    original = original_of(PoincareBall.fully_connected)
    target = Target(
        "PoincareBall.fully_connected", PoincareBall, "fully_connected", original, original, operator
    )
    yield target, ball.fully_connected, expected
    target = Target(
        "ManifoldParameter.__deepcopy__", ManifoldParameter, "__deepcopy__", DEEPCOPY, DEEPCOPY, "copies"
    )
    yield target, deepcopied, ""
