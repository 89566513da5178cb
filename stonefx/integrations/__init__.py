"""Existing hyperbolic code reached: geoopt and HypLL traced whole, and run on stonefx's operators."""

from .chosen import LIBRARIES, chosen, libraries
from .dynamo import Tracing, notes, register

__all__ = ["LIBRARIES", "chosen", "libraries", "notes"]


def _geoopt() -> Tracing:
    from .geoopt.tracing import tracing

    return tracing()


def _hypll() -> Tracing:
    from .hypll.tracing import tracing

    return tracing()


register("geoopt", _geoopt)
register("hypll", _hypll)
