"""`torch.ops.stone.*`: fused operators, with fake, native gradient, batching and a reference in torch."""

from . import conversions, klein, lorentz, poincare, sphere
from .add_time import add_time
from .butterfly import butterfly
from .expmap0 import expmap0
from .hnnpp_linear import hnnpp_linear
from .hyper_butterfly import hyper_butterfly
from .klein_cdist import klein_cdist
from .library import load
from .logmap0 import logmap0
from .lorentz_cdist import lorentz_cdist
from .lorentz_linear import lorentz_linear
from .low_rank_linear import low_rank_linear
from .mobius_add import mobius_add
from .pifa_linear import pifa_linear
from .poincare_cdist import poincare_cdist
from .poincare_hyperplanes import poincare_hyperplanes
from .poincare_linear import poincare_linear
from .poincare_mlr import hnnpp_mlr, poincare_mlr
from .poincare_planes import hnnpp_planes, poincare_planes
from .point_of_distances import point_of_distances

ROW_FORMULAS = {
    formula.name: formula
    for model in (poincare, lorentz, klein, conversions, sphere)
    for formula in model.FORMULAS
}

load()

__all__ = [
    "ROW_FORMULAS",
    "add_time",
    "butterfly",
    "expmap0",
    "hnnpp_linear",
    "hnnpp_mlr",
    "hnnpp_planes",
    "hyper_butterfly",
    "klein_cdist",
    "logmap0",
    "lorentz_cdist",
    "lorentz_linear",
    "low_rank_linear",
    "mobius_add",
    "pifa_linear",
    "poincare_cdist",
    "poincare_hyperplanes",
    "poincare_linear",
    "poincare_mlr",
    "poincare_planes",
    "point_of_distances",
]
