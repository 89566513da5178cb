"""Row algebra: hyperbolic maps recognised by what they compute, in whatever way they are spelled."""

from __future__ import annotations

from .recognise import HYPERBOLIC

__all__ = ["HYPERBOLIC"]
