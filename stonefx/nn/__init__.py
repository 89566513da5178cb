"""Layers over hyperbolic geometry (points in, points out, inside the model whatever the input), and linear layers of
low rank.
"""

from .attention import HyperbolicAttention
from .batch_norm import HyperbolicBatchNorm
from .hyper_butterfly import HyperButterflyLayer
from .klein import KleinLayer
from .lorentz_linear import LorentzLinear
from .low_rank_linear import LowRankLinear
from .pifa_linear import PifaLinear
from .poincare_linear import PoincareLinear
from .poincare_mlr import PoincareMLR
from .space_layers import HyperbolicActivation, HyperbolicLayerNorm, HyperbolicResidual
from .transformer_layer import HyperbolicTransformerLayer

__all__ = [
    "HyperButterflyLayer",
    "HyperbolicActivation",
    "HyperbolicAttention",
    "HyperbolicBatchNorm",
    "HyperbolicLayerNorm",
    "HyperbolicResidual",
    "HyperbolicTransformerLayer",
    "KleinLayer",
    "LorentzLinear",
    "LowRankLinear",
    "PifaLinear",
    "PoincareLinear",
    "PoincareMLR",
]
