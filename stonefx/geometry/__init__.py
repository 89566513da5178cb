"""Hyperbolic and spherical geometry as functions of tensors, `[*batch, dim]` in and out."""

from . import klein, lorentz, poincare, sphere
from .wrapped_normal import WrappedNormal

__all__ = ["WrappedNormal", "klein", "lorentz", "poincare", "sphere"]
