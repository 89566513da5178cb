"""The functions of geoopt, HypLL and reality_stone, by the names that they have here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Function = Callable[..., Any]
HINT = 'comparing with other libraries needs them: pip install "stonefx[bench]"'


def geoopt(c: float) -> dict[str, Function]:
    """Of geoopt's stereographic and Lorentz models; it writes the curvature as `-k`, and as `1 / k`.

    Raises:
        ImportError: geoopt is not installed.
    """
    try:
        from geoopt.manifolds.lorentz import math as lorentz
        from geoopt.manifolds.stereographic import math as ball
    except ImportError as error:
        raise ImportError(HINT) from error
    k, radius = torch.tensor(-c), torch.tensor(1 / c)
    return {
        "expmap0": lambda v: ball.expmap0(v, k=k),
        "logmap0": lambda y: ball.logmap0(y, k=k),
        "mobius_add": lambda x, y: ball.mobius_add(x, y, k=k),
        "mobius_scalar_mul": lambda x: ball.mobius_scalar_mul(torch.tensor(0.5), x, k=k),
        "dist": lambda x, y: ball.dist(x, y, k=k),
        "dist0": lambda x: ball.dist0(x, k=k),
        "expmap": lambda x, v: ball.expmap(x, v, k=k),
        "logmap": lambda x, y: ball.logmap(x, y, k=k),
        "parallel_transport": lambda x, y, v: ball.parallel_transport(x, y, v, k=k),
        "project": lambda x: ball.project(x, k=k),
        "lorentz.expmap0": lambda v: lorentz.expmap0(v, k=radius),
        "lorentz.logmap0": lambda x: lorentz.logmap0(x, k=radius),
        "lorentz.dist": lambda x, y: lorentz.dist(x, y, k=radius),
        "lorentz.expmap": lambda x, v: lorentz.expmap(x, v, k=radius),
        "cdist": lambda x, y: ball.dist(x[:, None], y[None], k=k),
    }


def hypll(c: float) -> dict[str, Function]:
    """Of HypLL's Poincaré ball.

    Raises:
        ImportError: HypLL is not installed.
    """
    try:
        from hypll.manifolds.poincare_ball.math import diffgeom as ball
    except ImportError as error:
        raise ImportError(HINT) from error
    curvature = torch.tensor(c)
    return {
        "expmap0": lambda v: ball.expmap0(v, curvature),
        "logmap0": lambda y: ball.logmap0(y, curvature),
        "mobius_add": lambda x, y: ball.mobius_add(x, y, curvature),
        "dist": lambda x, y: ball.dist(x, y, curvature),
        "expmap": lambda x, v: ball.expmap(x, v, curvature),
        "logmap": lambda x, y: ball.logmap(x, y, curvature),
        "parallel_transport": lambda x, y, v: ball.transp(x, y, v, curvature),
        "project": lambda x: ball.project(x, curvature),
        "cdist": lambda x, y: ball.cdist(x[None], y[None], curvature)[0],
    }


def reality_stone(c: float) -> dict[str, Function]:
    """Of reality_stone's three models; its hyperboloid has the other sign and is left out.

    Raises:
        ImportError: reality_stone is not installed.
    """
    try:
        import reality_stone as stone
    except ImportError as error:
        raise ImportError(HINT) from error
    return {
        "mobius_add": lambda x, y: stone.poincare_add(x, y, c),
        "mobius_scalar_mul": lambda x: stone.poincare_scalar_mul(x, 0.5, c),
        "dist": lambda x, y: stone.poincare_distance(x, y, c),
        "klein.dist": lambda x, y: stone.klein_distance(x, y, c),
        "poincare.to_klein": lambda x: stone.poincare_to_klein(x, c),
        "klein.to_poincare": lambda x: stone.klein_to_poincare(x, c),
    }


PEERS: dict[str, Callable[[float], dict[str, Function]]] = {
    "geoopt": geoopt,
    "HypLL": hypll,
    "reality_stone": reality_stone,
}
