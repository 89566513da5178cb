"""Layers over hyperbolic geometry (points in, points out, inside the model whatever the input), and linear layers of
low rank.
"""

from .hyper_butterfly import HyperButterflyLayer
from .klein import KleinLayer
from .lorentz_linear import LorentzLinear
from .low_rank_linear import LowRankLinear
from .pifa_linear import PifaLinear
from .poincare_linear import PoincareLinear
from .poincare_mlr import PoincareMLR

__all__ = [
    "HyperButterflyLayer",
    "KleinLayer",
    "LorentzLinear",
    "LowRankLinear",
    "PifaLinear",
    "PoincareLinear",
    "PoincareMLR",
]
