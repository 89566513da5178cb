"""The symbolic sizes of a recording: which dimension each symbol is, and what the trace assumed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sympy  # type: ignore[import-untyped]
from torch import fx
from torch._dynamo.source import TensorProperty, TensorPropertySource
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.printers import PythonPrinter

from .arguments import Path

Dimension = tuple[Path, int]


@dataclass(frozen=True)
class Sizes:
    """The dynamic dimensions of a call.

    Attributes:
        dimensions: for each dynamic dimension its size: an int that the trace settled on, or a Python expression
            over symbols, such as "s0" or "2*s0".
        symbols: for each symbol the dimension it is read from.
        guards: Python conditions over the symbols that the graph assumes, such as "s0 % 2 == 0".
    """

    dimensions: dict[Dimension, int | str]
    symbols: dict[str, Dimension]
    guards: tuple[str, ...]


def read_sizes(module: fx.GraphModule, call: Mapping[str, Any], paths: Mapping[int, Path]) -> Sizes:
    """Read the symbols of a retraced graph.

    Args:
        module: the graph.
        call: the recorded function's own variables (`args`, `kwargs`), in which Dynamo's sources are read.
        paths: paths of the call's tensors by `id`.
    """
    env = shape_env(module)
    if env is None:
        return Sizes({}, {}, ())
    dimensions: dict[Dimension, Any] = {}
    for symbol, sources in env.var_to_sources.items():
        for source in sources:
            if (dimension := source_dimension(source, call, paths)) is not None:
                dimensions[dimension] = env.replace(symbol)
    symbols: dict[str, Dimension] = {}
    for dimension, size in dimensions.items():
        if isinstance(size, sympy.Symbol):
            symbols.setdefault(str(size), dimension)
    plain = {key: int(size) if size.is_number else _source(size) for key, size in dimensions.items()}
    return Sizes(plain, symbols, _guards(env, set(symbols)))


def shape_env(module: fx.GraphModule) -> ShapeEnv | None:
    """The shape environment of a graph's fake tensors."""
    for node in module.graph.nodes:
        mode = getattr(node.meta.get("val"), "fake_mode", None)
        if mode is not None and mode.shape_env is not None:
            return mode.shape_env
    return None


def source_dimension(source: Any, call: Mapping[str, Any], paths: Mapping[int, Path]) -> Dimension | None:
    """The dimension of an argument that one of Dynamo's sources reads; None for any other source."""
    if not isinstance(source, TensorPropertySource) or source.prop is not TensorProperty.SIZE:
        return None
    # A source's name is the expression that Dynamo's own guards evaluate.
    value = eval(source.base.name, {"L": dict(call)})
    path = paths.get(id(value))
    return None if path is None or source.idx is None else (path, source.idx)


def _guards(env: ShapeEnv, symbols: set[str]) -> tuple[str, ...]:
    conditions: dict[str, None] = {}
    for guard in env.guards:
        condition = env.simplify(env.replace(guard.expr))
        if condition is sympy.true or not condition.free_symbols:
            continue
        if {str(symbol) for symbol in condition.free_symbols} <= symbols:
            conditions[_source(condition)] = None
    for symbol, bounds in env.var_to_range.items():
        if str(symbol) in symbols:
            if bounds.lower > 0:
                conditions[f"{symbol} >= {bounds.lower}"] = None
            if bounds.upper not in (int_oo, sympy.oo) and bounds.upper < 2**62:
                conditions[f"{symbol} <= {bounds.upper}"] = None
    return tuple(conditions)


def _source(expression: sympy.Basic) -> str:
    return PythonPrinter().doprint(expression)
