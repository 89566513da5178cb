"""Hyperbolic and spherical geometry as functions of tensors, `[*batch, dim]` in and out."""

from . import klein, lorentz, poincare, sphere

__all__ = ["klein", "lorentz", "poincare", "sphere"]
