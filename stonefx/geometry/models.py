"""The three models of hyperbolic space: how their points are written, and the isometries between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from torch import Tensor

from . import klein, lorentz, poincare
from .bounds import of

ModelName = Literal["lorentz", "poincare", "klein"]


class Model(NamedTuple):
    """One of the models.

    Args:
        times: how many coordinates more than dimensions a point has.
        to_lorentz, from_lorentz: isometries, of points and a curvature. Points from outside of a model are taken to be
            the nearest ones inside.
    """

    times: int
    to_lorentz: Callable[..., Tensor]
    from_lorentz: Callable[..., Tensor]


def _poincare_to_lorentz(x: Tensor, c: float | Tensor) -> Tensor:
    # A point from outside would go where squares overflow.
    return poincare.to_lorentz(poincare.project(x, c, eps=1 - of(x).radius), c)


def _klein_to_lorentz(x: Tensor, c: float | Tensor) -> Tensor:
    return klein.to_lorentz(klein.project(x, c, eps=1 - of(x).radius), c)


def _as_it_is(x: Tensor, c: float | Tensor) -> Tensor:
    return x


MODELS: dict[str, Model] = {
    # What comes in may be off the hyperboloid by rounding, or by much: its time is made anew.
    "lorentz": Model(1, lorentz.project, _as_it_is),
    "poincare": Model(0, _poincare_to_lorentz, lorentz.to_poincare),
    "klein": Model(0, _klein_to_lorentz, lorentz.to_klein),
}


def model_named(function: str, name: str) -> Model:
    """The model of a name.

    Args:
        function: what was given the name, for the message.
        name: "lorentz", "poincare" or "klein".

    Raises:
        ValueError: there is no such model.

    >>> model_named("WrappedNormal", "klein").times
    0
    """
    if name not in MODELS:
        raise ValueError(f"{function}: expected model {', '.join(map(repr, MODELS))}, got {name!r}")
    return MODELS[name]
