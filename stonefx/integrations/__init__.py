"""Existing hyperbolic code reached: geoopt and HypLL traced whole, and run on stonefx's operators."""

import sys
from typing import Any

from torch import nn

from .accelerating import accelerate
from .chosen import LIBRARIES, chosen, libraries, own_branches
from .dynamo import Tracing, notes, register, replaces_functions
from .rebinding import Acceleration

__all__ = [
    "LIBRARIES",
    "Acceleration",
    "accelerate",
    "chosen",
    "copied",
    "libraries",
    "notes",
    "own_branches",
    "replaces_functions",
    "unusable",
]


def copied(model: nn.Module, memo: dict[int, Any]) -> None:
    """Put copies into a memo of `copy.deepcopy` for those tensors of a model that it cannot copy."""
    if "hypll" in sys.modules:
        from .hypll.tracing import copy_parameters

        copy_parameters(model, memo)


def unusable(value: Any) -> str:
    """Why `stonefx.optimize` cannot take an argument of a library's own type; empty where nothing is known of it."""
    if type(value).__module__.partition(".")[0] == "hypll" and hasattr(value, "manifold"):
        return (
            "HypLL tells manifolds apart by identity, and the copy of the model that optimize makes has its own; take "
            'a tensor and make the manifold tensor in forward, or use torch.compile(model, backend="stone")'
        )
    return ""


def _geoopt() -> Tracing:
    from .geoopt.tracing import tracing

    return tracing()


def _hypll() -> Tracing:
    from .hypll.tracing import tracing

    return tracing()


register("geoopt", _geoopt)
register("hypll", _hypll)
