"""Layers over hyperbolic geometry: points in, points out, inside the model whatever the input."""

from .hyper_butterfly import HyperButterflyLayer
from .klein import KleinLayer
from .lorentz_linear import LorentzLinear
from .poincare_linear import PoincareLinear
from .poincare_mlr import PoincareMLR

__all__ = ["HyperButterflyLayer", "KleinLayer", "LorentzLinear", "PoincareLinear", "PoincareMLR"]
