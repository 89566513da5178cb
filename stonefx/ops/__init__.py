"""`torch.ops.stone.*`: fused operators, with fake, native gradient, batching and a reference in torch."""

from .butterfly import butterfly
from .expmap0 import expmap0
from .hnnpp_linear import hnnpp_linear
from .klein_cdist import klein_cdist
from .library import load
from .logmap0 import logmap0
from .lorentz_cdist import lorentz_cdist
from .low_rank_linear import low_rank_linear
from .mobius_add import mobius_add
from .poincare_cdist import poincare_cdist
from .poincare_hyperplanes import poincare_hyperplanes
from .poincare_mlr import hnnpp_mlr, poincare_mlr

load()

__all__ = [
    "butterfly",
    "expmap0",
    "hnnpp_linear",
    "hnnpp_mlr",
    "klein_cdist",
    "logmap0",
    "lorentz_cdist",
    "low_rank_linear",
    "mobius_add",
    "poincare_cdist",
    "poincare_hyperplanes",
    "poincare_mlr",
]
