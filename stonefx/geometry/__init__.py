"""Hyperbolic and spherical geometry as functions of tensors, `[*batch, dim]` in and out."""

from . import poincare

__all__ = ["poincare"]
