"""The Poincaré ball of curvature `-c`: points `x` with `c * ||x||^2 < 1`.

Results are finite, points that come out lie inside the ball (`sqrt(c) ||x||` is at most `1 - 2 eps` of the dtype,
`1 - 8 eps` in float64), and `1 - c ||x||^2` of a point is taken to be at least `eps`. Inner products are summed in
float64. Gradients are finite too: that of `dist(x, x)` and `dist0(0)` is 0, that of the maps at 0 is the identity's,
and none passes where one of these bounds holds; only in float16 the derivatives of `1 / (1 - c ||x||^2)`, which are in
`conformal_factor`, `to_lorentz` and `parallel_transport`, exceed its largest number at the boundary. Second derivatives
go through the formula in plain torch.
"""

from .algebra import gyromidpoint, mobius_add, mobius_matvec, mobius_scalar_mul
from .maps import boundary, expmap, expmap0, logmap, logmap0, parallel_transport
from .metric import cdist, conformal_factor, dist, dist0, geodesic
from .positions import project, to_klein, to_lorentz

__all__ = [
    "boundary",
    "cdist",
    "conformal_factor",
    "dist",
    "dist0",
    "expmap",
    "expmap0",
    "geodesic",
    "gyromidpoint",
    "logmap",
    "logmap0",
    "mobius_add",
    "mobius_matvec",
    "mobius_scalar_mul",
    "parallel_transport",
    "project",
    "to_klein",
    "to_lorentz",
]
