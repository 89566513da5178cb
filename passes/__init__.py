"""Graph to graph: every rewrite that stonefx knows. Imports torch and itself only."""

from .pipeline import PIPELINE, TARGETS
from .site import Context, Pass, Site

__all__ = ["PIPELINE", "TARGETS", "Context", "Pass", "Site"]
