"""`stonefx.accelerate`: functions of a library on stonefx's operators, for those who ask."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterable
from typing import Any

from .chosen import LIBRARIES
from .rebinding import Acceleration

BOUNDS = ("library", "stonefx")


def accelerate(
    library: str,
    functions: str | Iterable[str] = "all",
    *,
    bounds: str = "library",
    lorentz: bool = False,
) -> Acceleration:
    """Run a library's functions and methods on stonefx's operators, in this process and until it is undone.

    Values and gradients are those of the library's formulas with its own guards, computed without loss of digits; what
    an operator does not cover (other dtypes, dimensions, shapes or curvatures, unknown subclasses, transforms of
    `torch.func`) the library computes itself, as it does after `undo`. Works in eager and in compiled code, forward
    and backward. Several may be on at once; the newest counts.

    Args:
        library: "geoopt" or "hypll", which must be installed.
        functions: "all", or names as the result prints them, such as "dist" or "PoincareBall.expmap".
        bounds: "library" for the library's guards, "stonefx" for stonefx's own, which act only where a result would not
            be finite or would leave the ball (geoopt only).
        lorentz: also geoopt's hyperboloid, whose ambient gradients then differ: those of the stored time are 0.

    Returns:
        What was rebound and what was left alone; it prints as a table, has `undo()`, and undoes itself as a context
        manager.

    Raises:
        ValueError: an unknown library, function or bound.
        ImportError: the library is not installed.

    >>> with accelerate("geoopt", "logmap") as changed:
    ...     print(changed)
    library    function    runs on
    ---------  ----------  ---------
    geoopt     logmap      logmap
    """
    _one_of("library", library, LIBRARIES)
    _one_of("bounds", bounds, BOUNDS)
    if library == "hypll" and (bounds != "library" or lorentz):
        raise ValueError(
            "accelerate: bounds and lorentz are for geoopt; HypLL has one ball with guards of its own"
        )
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise ImportError(f"accelerate: {library} is not installed; pip install {library}") from error
    pairs, left = _pairs(library, bounds, lorentz)
    known = [*(target.name for target, _ in pairs), *left]
    names = known if functions == "all" else [functions] if isinstance(functions, str) else list(functions)
    for name in names:
        _one_of("functions", name, known)
    left = {name: why for name, why in left.items() if name in names}
    if left:
        warnings.warn(
            f"stonefx: {len(left)} function(s) of {library} are left alone: {next(iter(left.values()))}",
            RuntimeWarning,
            2,
        )
    return Acceleration(library, [pair for pair in pairs if pair[0].name in names], left)


def _pairs(library: str, bounds: str, lorentz: bool) -> tuple[list[Any], dict[str, str]]:
    if library == "geoopt":
        from .geoopt.acceleration import pairs

        return pairs(bounds, lorentz)
    from .hypll.acceleration import pairs as hypll_pairs

    return hypll_pairs()


def _one_of(argument: str, value: str, choices: Iterable[str]) -> None:
    choices = tuple(choices)
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"accelerate: {argument} got {value!r}{hint} Choices: {', '.join(choices)}")
