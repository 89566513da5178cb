"""What `stonefx.accelerate("geoopt")` rebinds, and the fingerprints of what it stands for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import geoopt
from geoopt.manifolds.lorentz import math as lorentz_math
from geoopt.manifolds.stereographic import math as ball_math
from geoopt.manifolds.stereographic.manifold import PoincareBall, Stereographic

from ..fingerprints import fingerprint, unknown_version
from ..operands import accept
from ..rebinding import Target, original_of
from . import ball, lorentz, methods
from .tracing import VERSIONS

accept(geoopt.ManifoldTensor, geoopt.ManifoldParameter)

Pair = tuple[Target, Callable[..., Any]]

# Function -> the operator that it runs on, and the fingerprint of geoopt's own.
BALL = {
    "project": ("project", "73676c3ac37b112e"),
    "lambda_x": ("conformal_factor", "35861b2c2ea444aa"),
    "inner": ("conformal_factor", "ac1f2ce28962710e"),
    "norm": ("conformal_factor", "ab52109ef4414052"),
    "egrad2rgrad": ("conformal_factor", "66d7336e7234680f"),
    "mobius_add": ("mobius_add", "8cdf0eecba053d4e"),
    "mobius_sub": ("mobius_add", "2efe4e9f57b308d3"),
    "mobius_scalar_mul": ("mobius_scalar_mul", "1caa74cbb64f6b17"),
    "mobius_matvec": ("mobius_matvec", "b0551326d6272593"),
    "mobius_pointwise_mul": ("mobius_matvec", "3f4f82677bfabb78"),
    "dist": ("poincare_dist, poincare_cdist", "0697729b246433f4"),
    "dist0": ("poincare_dist0", "da2af48c8a12bdd9"),
    "geodesic": ("mobius_add, mobius_scalar_mul", "68ebed5021c47842"),
    "expmap": ("expmap", "5b1216441dbdc01f"),
    "expmap0": ("expmap0", "dde3d9afddf69e02"),
    "logmap": ("logmap", "95f480c9c5f37c19"),
    "logmap0": ("logmap0", "99df38d48c443930"),
    "mobius_fn_apply": ("logmap0, expmap0", "0687d2cd890896e8"),
    "mobius_fn_apply_chain": ("logmap0, expmap0", "37522ba50db04e8b"),
    "dist2plane": ("poincare_hyperplanes", "7be1ea89a5378c0c"),
    "parallel_transport": ("poincare_transport", "683f08d04a4621b7"),
    "parallel_transport0": ("conformal_factor", "46774e9b02d5f9ed"),
    "parallel_transport0back": ("conformal_factor", "32efd443a19c6937"),
    "weighted_midpoint": ("conformal_factor, mobius_scalar_mul", "88ff7dd35804de98"),
}
LORENTZ = {
    "inner": ("lorentz_inner", "4da082b0fd1470bf"),
    "dist": ("lorentz_dist", "ba2111228c0cbe88"),
    "expmap": ("lorentz_expmap", "321863a2cf987976"),
    "expmap0": ("lorentz_expmap0", "a829b7a2084a5546"),
    "logmap": ("lorentz_logmap", "f4d1fd2bf81a1017"),
    "logmap0": ("lorentz_logmap0", "b468e462433ee870"),
    "project": ("lorentz_project", "00ca84c13c3fba29"),
    "parallel_transport": ("lorentz_transport", "d84c84bd7a078ff8"),
}
METHODS = {
    "dist": ("poincare_dist, poincare_cdist", "dc0f2e163e5b66f3"),
    "dist0": ("poincare_dist0", "e23efb331c6798c0"),
    "lambda_x": ("conformal_factor", "2166f0a046838dff"),
    "inner": ("conformal_factor", "aeb5ff584e420469"),
    "norm": ("conformal_factor", "56e41a55eb093f25"),
    "egrad2rgrad": ("conformal_factor", "69735953d7c4c7dc"),
    "mobius_add": ("mobius_add", "b522d096512e409c"),
    "mobius_sub": ("mobius_add", "d0d6be9afee21185"),
    "mobius_scalar_mul": ("mobius_scalar_mul", "576269255844c272"),
    "mobius_pointwise_mul": ("mobius_matvec", "20a09c316d6f2bac"),
    "mobius_matvec": ("mobius_matvec", "e20620b97b435461"),
    "geodesic": ("mobius_add, mobius_scalar_mul", "56a31b9f434fabc6"),
    "expmap": ("expmap", "b69c3ae02778ded4"),
    "logmap": ("logmap", "953825ea0b204d63"),
    "expmap0": ("expmap0", "729fc15e713a3653"),
    "logmap0": ("logmap0", "7d42b2175f6d4f38"),
    "dist2plane": ("poincare_hyperplanes", "dca9afb91711b7af"),
    "weighted_midpoint": ("conformal_factor, mobius_scalar_mul", "0189f5f52cbd4e4c"),
    "dist2": ("poincare_dist, poincare_cdist", "7e7697751051d9e4"),
    "projx": ("project", "ec2312710179e0c3"),
    "retr": ("project", "1daa0db8996cba7c"),
    "retr_transp": ("project, poincare_transport", "08ed558b5d7fe2fa"),
    "expmap_transp": ("expmap, poincare_transport", "7ddf4c772a8e3a28"),
    "transp": ("poincare_transport", "8dc824c8e1a987d9"),
    "transp0": ("conformal_factor", "a1af2d141e6ac7ff"),
    "transp0back": ("conformal_factor", "e8d4ff61f2436fae"),
}


def pairs(bounds: str, with_lorentz: bool) -> tuple[list[Pair], dict[str, str]]:
    """What to rebind, and what is left alone and why.

    Args:
        bounds: "library" for geoopt's guards, "stonefx" for stonefx's own.
        with_lorentz: whether the hyperboloid's functions are rebound too.
    """
    left: dict[str, str] = {}
    found: list[Pair] = []
    unknown = unknown_version("geoopt", geoopt.__version__, VERSIONS)
    for target, run, expected in _candidates(bounds, with_lorentz):
        if unknown:
            left[target.name] = unknown[0]
        elif fingerprint(target.source) != expected:
            left[target.name] = f"its source is not that of geoopt {VERSIONS[0]}"
        else:
            found.append((target, run))
    return found, left


def _candidates(bounds: str, with_lorentz: bool) -> Iterator[tuple[Target, Callable[..., Any], str]]:
    tables = [("", ball_math, BALL, ball.functions(ball.Ball(bounds)))]
    if with_lorentz:
        tables.append(("lorentz.", lorentz_math, LORENTZ, lorentz.functions()))
    for prefix, module, table, run in tables:
        for name, (operator, expected) in table.items():
            original = original_of(getattr(module, name))
            yield Target(prefix + name, module, name, original, original, operator), run[name], expected
    run = methods.methods(bounds)
    for name, (operator, expected) in METHODS.items():
        source = getattr(Stereographic, name)
        yield (
            Target(f"PoincareBall.{name}", PoincareBall, name, _inherited(name), source, operator),
            run[name],
            expected,
        )


def _inherited(name: str) -> Callable[..., Any]:
    """What a ball's method is without ours: that of the next class, which differs between its subclasses."""

    @functools.wraps(getattr(Stereographic, name))
    def original(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(super(PoincareBall, self), name)(*args, **kwargs)

    return original
