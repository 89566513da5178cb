"""What a case of the corpus is: a function that a library has, in one of its spellings, and what it must become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """A function of rows and a curvature `c`.

    Args:
        library: whose spelling it is.
        name: of the function there.
        target: the operator that it must become.
        function: called with the rows, then `c`, a float or a tensor.
        kinds: what each row vector is: "tangent", "point", "second", "normal" or "any".
        guards: the operator's guards, as written; limits just below 1 are compared as the dtype holds them.
        limited: outside of the ball it is finite, and must stay what it is.
        loses: near points come out wrong by so many roots of eps, as arcosh has it.
        single: not in float64, where a guard acts that float32 cannot hold, or the operator has no kernel.
        in_double: the guards that only float64 can hold.
        cancels: negative results are not compared: log(z + sqrt(1 + z^2)) has lost their digits, in float64 as well.
        beside: what else of the function becomes an operator, such as the map that makes its points.
    """

    library: str
    name: str
    target: str
    function: Callable[..., Tensor]
    kinds: tuple[str, ...]
    guards: dict[str, Any] = field(default_factory=dict)
    limited: bool = False
    loses: float = 0.0
    beside: tuple[str, ...] = ()
    single: bool = False
    in_double: dict[str, Any] = field(default_factory=dict)
    cancels: bool = False

    def __str__(self) -> str:
        return f"{self.library}.{self.name}"


@dataclass(frozen=True)
class LookAlike:
    """What must stay as it is: the first difference is named by `reason`, a pattern, in a site of `target`."""

    name: str
    function: Callable[..., Tensor]
    vectors: int
    target: str
    reason: str

    def __str__(self) -> str:
        return self.name


CASES: list[Case] = []
LOOK_ALIKES: list[LookAlike] = []


def case(
    library: str,
    target: str,
    *kinds: str,
    limited: bool = False,
    loses: float = 0.0,
    beside: tuple[str, ...] = (),
    single: bool = False,
    in_double: dict[str, Any] | None = None,
    cancels: bool = False,
    **guards: Any,
) -> Callable[..., Any]:
    """Add a function to the corpus."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        CASES.append(
            Case(
                library,
                function.__name__,
                target,
                function,
                kinds,
                guards,
                limited,
                loses,
                beside,
                single,
                in_double or {},
                cancels,
            )
        )
        return function

    return add


def look_alike(vectors: int, target: str, reason: str) -> Callable[..., Any]:
    """Add a function of so many rows to those that must be left alone."""

    def add(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        LOOK_ALIKES.append(LookAlike(function.__name__, function, vectors, target, reason))
        return function

    return add


# Norms in units of the radius, so that rows lie in the interior, near and on the boundary, at the origin, and outside.
PLACES = {
    "interior": (0.05, 0.3, 0.6, 0.9),
    "boundary": (0.99, 0.999, 0.99999, 0.9999),
    "origin": (0.0, 1e-20, 1e-9, 1e-4),
    "outside": (1.01, 1.5, 1.001, 20.0),
}


def rows(kind: str, place: str, c: float, dtype: torch.dtype, seed: int, dim: int = 5) -> Tensor:
    """Rows at a place; of a tangent vector or of what is no point, any length is inside."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, dim, generator=generator, dtype=torch.float64)
    lengths = torch.tensor(PLACES[place], dtype=torch.float64)
    if kind == "second":  # of two points only the first leaves the interior
        lengths = torch.tensor(PLACES["origin" if place == "origin" else "interior"], dtype=torch.float64)
    if kind == "normal":  # the direction of a hyperplane, which the origin has none of
        lengths = torch.tensor(PLACES["interior"], dtype=torch.float64)
    return (x / x.norm(dim=-1, keepdim=True) * (lengths / c**0.5)[:, None]).to(dtype)
