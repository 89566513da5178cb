"""`torch.ops.stone.*`: fused operators, with fake, native gradient, batching and a reference in torch."""

from .layers.butterfly import butterfly
from .layers.hnnpp_linear import hnnpp_linear
from .layers.hyper_butterfly import hyper_butterfly
from .layers.lorentz_linear import lorentz_linear
from .layers.low_rank_linear import low_rank_linear
from .layers.pifa_linear import pifa_linear
from .layers.poincare_linear import poincare_linear
from .library import load
from .pairs.klein_cdist import klein_cdist
from .pairs.lorentz_cdist import lorentz_cdist
from .pairs.poincare_cdist import poincare_cdist
from .pairs.poincare_hyperplanes import poincare_hyperplanes
from .pairs.poincare_mlr import hnnpp_mlr, poincare_mlr
from .pairs.poincare_planes import hnnpp_planes, poincare_planes
from .rows import conversions, klein, lorentz, poincare, sphere
from .rows.add_time import add_time
from .rows.expmap0 import expmap0
from .rows.logmap0 import logmap0
from .rows.mobius_add import mobius_add
from .rows.point_of_distances import point_of_distances

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
